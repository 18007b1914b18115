"""Import rules of the matrix products: MatMul, Gemm and their fused forms become MatMul nodes."""

from __future__ import annotations

from sparsec.compiler.onnx_rules import ImportContext, OnnxNode, onnx_rule
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.ops.reshape import Reshape
from sparsec.compiler.scalar import Arg, Imm, Program, Tmp


@onnx_rule("MatMul", becomes="MatMul")
def _import_matmul(ctx: ImportContext, node: OnnxNode) -> str:
    """A vector on the left is a row, on the right a column, and its dimension is missing from the result."""
    a, b = node.inputs[0], node.inputs[1]
    row, column = ctx.type(a).rank == 1, ctx.type(b).rank == 1
    if row:
        a = ctx.emit(Reshape((1, ctx.type(a).elements)), a)
    if column:
        b = ctx.emit(Reshape((ctx.type(b).elements, 1)), b)
    y = ctx.emit(MatMul(), a, b)
    shape = ctx.type(y).shape
    if row:
        shape = (*shape[:-2], shape[-1])
    if column:
        shape = shape[:-1]
    return ctx.emit(Reshape(shape), y) if row or column else y


def _scale(node: OnnxNode, factor: float, integral: bool) -> Imm:
    """`factor` as an immediate of the operands' type."""
    if not integral:
        return Imm(factor)
    if not factor.is_integer():
        raise node.refuse(f"it scales integers by {factor}, and only whole numbers are supported")
    return Imm(int(factor))


@onnx_rule("Gemm", becomes="MatMul", constraints="alpha and beta are whole numbers for integer data")
def import_gemm(ctx: ImportContext, node: OnnxNode) -> str:
    """alpha * A B + beta * C: the scaling and C go to the epilogue."""
    inputs, epilogue = list(node.inputs[:2]), Program()
    alpha, beta = float(node.attr("alpha", 1.0)), float(node.attr("beta", 1.0))
    integral = not ctx.type(inputs[0]).dtype.is_float
    if alpha != 1:
        epilogue = epilogue.then("mul", Arg(0), _scale(node, alpha, integral))
    if node.has(2) and beta != 0:
        inputs.append(node.inputs[2])
        before = epilogue.result
        if beta != 1:
            epilogue = epilogue.then("mul", Arg(1), _scale(node, beta, integral))
            epilogue = epilogue.then("add", before, Tmp(-1))
        else:
            epilogue = epilogue.then("add", before, Arg(1))
    return ctx.emit(MatMul(bool(node.attr("transA", 0)), bool(node.attr("transB", 0)), epilogue), *inputs)


@onnx_rule("FusedMatMul", domain="com.microsoft", becomes="MatMul", constraints="no transBatchA, transBatchB; rank >= 2")
def _import_fused_matmul(ctx: ImportContext, node: OnnxNode) -> str:
    if node.attr("transBatchA", 0) or node.attr("transBatchB", 0):
        raise node.refuse("it has transBatchA or transBatchB set, which is not supported")
    alpha = float(node.attr("alpha", 1.0))
    epilogue = Program() if alpha == 1 else Program().then("mul", Arg(0), Imm(alpha))
    return ctx.emit(MatMul(bool(node.attr("transA", 0)), bool(node.attr("transB", 0)), epilogue), *node.inputs[:2])
