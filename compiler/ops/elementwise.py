"""Import rules of the plain elementwise operators: arithmetic, comparison, logic, bits, selection, conversion."""

from __future__ import annotations

import numpy as np

from sparsec.compiler.dtypes import DType
from sparsec.compiler.onnx_rules import ImportContext, OnnxNode, onnx_rule
from sparsec.compiler.ops.expand import Expand
from sparsec.compiler.ops.map import emit_map
from sparsec.compiler.types import TensorType

_UNARY = {
    "Abs": "abs",
    "Neg": "neg",
    "Sign": "sign",
    "Sqrt": "sqrt",
    "Reciprocal": "reciprocal",
    "Exp": "exp",
    "Log": "log",
    "Floor": "floor",
    "Ceil": "ceil",
    "Round": "round",
    "Sin": "sin",
    "Cos": "cos",
    "Tan": "tan",
    "Asin": "asin",
    "Acos": "acos",
    "Atan": "atan",
    "Sinh": "sinh",
    "Cosh": "cosh",
    "Asinh": "asinh",
    "Acosh": "acosh",
    "Atanh": "atanh",
    "Erf": "erf",
    "Not": "not",
    "IsNaN": "isnan",
    "BitwiseNot": "bitnot",
    "Relu": "relu",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "HardSwish": "hard_swish",
}
_BINARY = {
    "Add": "add",
    "Sub": "sub",
    "Mul": "mul",
    "Div": "div",
    "Equal": "eq",
    "Less": "lt",
    "LessOrEqual": "le",
    "Greater": "gt",
    "GreaterOrEqual": "ge",
    "And": "and",
    "Or": "or",
    "Xor": "xor",
    "BitwiseAnd": "bitand",
    "BitwiseOr": "bitor",
    "BitwiseXor": "bitxor",
    "PRelu": "leaky_relu",
}
_VARIADIC = {"Sum": "add", "Mean": "add", "Max": "max", "Min": "min"}


@onnx_rule(*_UNARY, becomes="Map")
def _import_unary(ctx: ImportContext, node: OnnxNode) -> str:
    return emit_map(ctx, f"{_UNARY[node.op_type]}(a0)", node.inputs[0])


@onnx_rule(*_BINARY, becomes="Map")
def _import_binary(ctx: ImportContext, node: OnnxNode) -> str:
    a, b = ctx.type(node.inputs[0]), ctx.type(node.inputs[1])
    if a.dtype != b.dtype:
        raise node.refuse(f"its operands are {a} and {b}: they must have the same element type")
    return emit_map(ctx, f"{_BINARY[node.op_type]}(a0,a1)", *node.inputs)


@onnx_rule(*_VARIADIC, becomes="Map")
def _import_variadic(ctx: ImportContext, node: OnnxNode) -> str:
    """One program for any number of operands; a single one passes through."""
    n, fn = len(node.inputs), _VARIADIC[node.op_type]
    if n == 1:
        return node.inputs[0]
    steps = [f"{fn}(a0,a1)", *(f"{fn}(t{i - 2},a{i})" for i in range(2, n))]
    if node.op_type == "Mean":
        steps.append(f"div(t{n - 2},{float(n)!r})")
    return emit_map(ctx, ";".join(steps), *node.inputs)


@onnx_rule("Identity", becomes="(nothing)")
def _import_identity(ctx: ImportContext, node: OnnxNode) -> str:
    return node.inputs[0]


@onnx_rule("Dropout", becomes="(nothing)", constraints="inference only")
def _import_dropout(ctx: ImportContext, node: OnnxNode) -> tuple[str, ...]:
    """Inference passes the data through; the mask, where something reads it, is all true."""
    if node.has(2) and node.need_const(ctx, 2, "training_mode").item():
        ratio = node.need_const(ctx, 1, "ratio").item() if node.has(1) else 0.5
        if ratio != 0:
            raise node.refuse("it has training_mode set: export the model for inference")
    if len(node.outputs) < 2 or not node.outputs[1]:
        return (node.inputs[0],)
    return (node.inputs[0], ctx.emit(Expand(ctx.type(node.inputs[0]).shape), ctx.constant(np.asarray(True))))


@onnx_rule("Where", becomes="Map")
def _import_where(ctx: ImportContext, node: OnnxNode) -> str:
    return emit_map(ctx, "where(a0,a1,a2)", *node.inputs)


@onnx_rule("Cast", "CastLike", becomes="Map", constraints="numbers and booleans; no strings, no float8 or 4-bit types")
def _import_cast(ctx: ImportContext, node: OnnxNode) -> str:
    source = ctx.type(node.inputs[0]).dtype
    if node.op_type == "CastLike":
        target = ctx.type(node.inputs[1]).dtype
    else:
        try:
            target = DType.from_onnx(int(node.attr("to")))
        except KeyError:
            raise node.refuse(f"it casts to ONNX element type {node.attr('to')}, which is not supported") from None
    return node.inputs[0] if source is target else emit_map(ctx, f"cast.{target.value}(a0)", node.inputs[0])


@onnx_rule("Mod", becomes="Map")
def _import_mod(ctx: ImportContext, node: OnnxNode) -> str:
    """With `fmod` the sign follows the dividend (C's fmod and %), else the divisor."""
    return emit_map(ctx, f"{'fmod' if node.attr('fmod', 0) else 'mod'}(a0,a1)", *node.inputs)


@onnx_rule("BitShift", becomes="Map")
def _import_bit_shift(ctx: ImportContext, node: OnnxNode) -> str:
    direction = node.attr("direction")
    if direction not in ("LEFT", "RIGHT"):
        raise node.refuse(f"its direction is {direction!r}, expected LEFT or RIGHT")
    return emit_map(ctx, f"{'shl' if direction == 'LEFT' else 'shr'}(a0,a1)", *node.inputs)


@onnx_rule("IsInf", becomes="Map")
def _import_is_inf(ctx: ImportContext, node: OnnxNode) -> str:
    below, above = node.attr("detect_negative", 1), node.attr("detect_positive", 1)
    if below and above:
        program = "isinf(a0)"
    elif below or above:
        program = f"eq(a0,{'inf' if above else '-inf'})"
    else:
        program = "isinf(a0);xor(t0,t0)"
    return emit_map(ctx, program, node.inputs[0])


_POWERS = {
    1.0: "identity(a0)",
    2.0: "mul(a0,a0)",
    3.0: "mul(a0,a0);mul(t0,a0)",
    0.5: "sqrt(a0)",
    -1.0: "reciprocal(a0)",
    -0.5: "rsqrt(a0)",
}


@onnx_rule("Pow", becomes="Map")
def _import_pow(ctx: ImportContext, node: OnnxNode) -> str:
    """The result has the base's type. Small constant exponents become products and roots, which need no `pow`."""
    base, exponent = ctx.type(node.inputs[0]), ctx.type(node.inputs[1])
    array = ctx.const(node.inputs[1])
    if array is not None and array.size == 1 and exponent.rank <= base.rank and base.dtype.is_float:
        p = float(array.reshape(()))
        return emit_map(ctx, _POWERS.get(p, f"pow(a0,{p!r})"), node.inputs[0])
    return emit_map(ctx, _mixed_pow(base, exponent), *node.inputs)


def _mixed_pow(base: TensorType, exponent: TensorType) -> str:
    if base.dtype is exponent.dtype:
        return "pow(a0,a1)"
    if base.dtype.is_float:
        return f"cast.{base.dtype.value}(a1);pow(a0,t0)"
    return f"cast.f64(a0);cast.f64(a1);pow(t0,t1);cast.{base.dtype.value}(t2)"
