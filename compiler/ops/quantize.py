"""Import rules of the quantised operators: exact integer products between elementwise programs."""

from __future__ import annotations

from dataclasses import replace

from sparsec.compiler.dtypes import DType
from sparsec.compiler.graph import ABSENT
from sparsec.compiler.onnx_rules import ImportContext, OnnxNode, onnx_rule
from sparsec.compiler.ops.conv import import_conv
from sparsec.compiler.ops.map import Map, emit_map
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.ops.reduce import Reduce
from sparsec.compiler.ops.reshape import Reshape
from sparsec.compiler.scalar import Arg, Imm, Program, Tmp

RANGES = {DType.I8: (-128, 127), DType.U8: (0, 255), DType.I16: (-32768, 32767), DType.U16: (0, 65535)}


def _along(ctx: ImportContext, node: OnnxNode, x: str, parameter: str, axis: int) -> str:
    """A scale or zero point, of one element or one for each index of `axis`, shaped to broadcast to x."""
    t, data = ctx.type(parameter), ctx.type(x)
    if t.elements == 1:
        return ctx.emit(Reshape(()), parameter) if t.rank else parameter
    if t.rank != 1 or not -data.rank <= axis < data.rank or t.elements != data.shape[axis]:
        raise node.refuse(f"its scale or zero point {t} has neither one element nor one for each index of axis {axis} of {data}")
    return ctx.emit(Reshape((t.elements, *[1] * (data.rank - 1 - axis % data.rank))), parameter)


# (x - zero) * scale with a scale, and a zero point, for each index of an axis
DEQUANTISE = Program.parse("cast.f32(a0);cast.f32(a1);mul(t0,t1)")
DEQUANTISE_ZERO = Program.parse("cast.i32(a0);cast.i32(a1);sub(t0,t1);cast.f32(t2);cast.f32(a2);mul(t3,t4)")


def quantise_program(scale: float, zero: int, dtype: DType) -> Program:
    """saturate(round(x / scale) + zero) of a float32 x, ties to even, in the 8- or 16-bit type `dtype`."""
    low, high = RANGES[dtype]
    program = Program().then("div", Arg(0), Imm(scale)).then("round", Tmp(-1)).then("add", Tmp(-1), Imm(float(zero)))
    program = program.then("max", Tmp(-1), Imm(float(low))).then("min", Tmp(-1), Imm(float(high)))
    return program.then("cast", Tmp(-1), dtype=dtype)


def dequantise_program(scale: float, zero: int) -> Program:
    """(x - zero) * scale in float32."""
    program = centre_program(zero).then("cast", Tmp(-1), dtype=DType.F32)
    return program.then("mul", Tmp(-1), Imm(scale))


def centre_program(zero: int) -> Program:
    """x - zero in int32."""
    return Program().then("cast", Arg(0), dtype=DType.I32).then("sub", Tmp(-1), Imm(zero))


def _number(ctx: ImportContext, value: str | None) -> float | int | None:
    """A known scale or zero point for all elements; 0 for none given."""
    if value is None:
        return 0
    array = ctx.const(value)
    return array.reshape(-1)[0].item() if array is not None and array.size == 1 else None


def saturate(ctx: ImportContext, node: OnnxNode, x: str, zero: str | None, target: DType) -> str:
    """round(x) + zero, limited to the range of `target`; x is float32 and already divided by the scale."""
    if target not in RANGES:
        raise node.refuse(f"quantising to {target.value} is not supported: {', '.join(t.value for t in RANGES)} are")
    low, high = (float(n) for n in RANGES[target])
    if zero is None:
        return emit_map(ctx, f"round(a0);max(t0,{low!r});min(t1,{high!r});cast.{target.value}(t2)", x)
    program = f"round(a0);cast.f32(a1);add(t0,t1);max(t2,{low!r});min(t3,{high!r});cast.{target.value}(t4)"
    return emit_map(ctx, program, x, zero)


def _whole_blocks(node: OnnxNode) -> None:
    if node.attr("block_size", 0):
        raise node.refuse("scales for blocks (block_size) are not supported: one scale, or one for each index of an axis, is")


@onnx_rule("QuantizeLinear", becomes="Map", constraints="to 8 or 16 bits; a scale for all or for each index of an axis")
def _import_quantize(ctx: ImportContext, node: OnnxNode) -> str:
    _whole_blocks(node)
    x, axis = node.inputs[0], int(node.attr("axis", 1))
    if not ctx.type(x).dtype.is_float:
        raise node.refuse(f"its data are {ctx.type(x)}, and must be floating point")
    zero = _along(ctx, node, x, node.inputs[2], axis) if node.has(2) else None
    code = int(node.attr("output_dtype", 0))
    target = ctx.type(zero).dtype if zero else DType.from_onnx(code) if code else DType.U8
    scale, offset = _number(ctx, node.inputs[1]), _number(ctx, zero)
    if scale is not None and offset is not None and ctx.type(x).dtype is DType.F32 and target in RANGES:
        return ctx.emit(Map(quantise_program(scale, int(offset), target)), x)
    scaled = emit_map(ctx, "cast.f32(a0);cast.f32(a1);div(t0,t1)", x, _along(ctx, node, x, node.inputs[1], axis))
    return saturate(ctx, node, scaled, zero, target)


@onnx_rule("DequantizeLinear", becomes="Map", constraints="a scale for all or for each index of an axis")
def _import_dequantize(ctx: ImportContext, node: OnnxNode) -> str:
    _whole_blocks(node)
    x, axis = node.inputs[0], int(node.attr("axis", 1))
    scale = _along(ctx, node, x, node.inputs[1], axis)
    zero = _along(ctx, node, x, node.inputs[2], axis) if node.has(2) else None
    code = int(node.attr("output_dtype", 0))
    target = DType.from_onnx(code) if code else ctx.type(scale).dtype
    factor, offset = _number(ctx, scale), _number(ctx, zero)
    if factor is not None and offset is not None and target is DType.F32:
        return ctx.keep(Map(dequantise_program(factor, int(offset))), x)
    if zero is None:
        program = (
            DEQUANTISE if target is DType.F32 else Program.parse(f"cast.{target.value}(a0);cast.{target.value}(a1);mul(t0,t1)")
        )
        return ctx.keep(Map(program), x, scale)
    text = f"cast.i32(a0);cast.i32(a1);sub(t0,t1);cast.{target.value}(t2);cast.{target.value}(a2);mul(t3,t4)"
    return ctx.keep(Map(DEQUANTISE_ZERO if target is DType.F32 else Program.parse(text)), x, zero, scale)


@onnx_rule("DynamicQuantizeLinear", becomes="Reduce, Map")
def _import_dynamic_quantize(ctx: ImportContext, node: OnnxNode) -> tuple[str, ...]:
    """(y, scale, zero point): uint8 over the data's range, which is stretched to hold 0; all zeros get scale 1."""
    x = node.inputs[0]
    if not ctx.type(x).dtype.is_float:
        raise node.refuse(f"its data are {ctx.type(x)}, and must be floating point")
    axes = tuple(range(ctx.type(x).rank))
    low, high = (ctx.emit(Reduce(kind, axes, False), x) for kind in ("min", "max"))
    scale = emit_map(ctx, "min(a0,0.0);max(a1,0.0);sub(t1,t0);div(t2,255.0);eq(t3,0.0);where(t4,1.0,t3)", low, high)
    zero = emit_map(ctx, "min(a0,0.0);neg(t0);div(t1,a1);max(t2,0.0);min(t3,255.0);round(t4);cast.u8(t5)", low, scale)
    return saturate(ctx, node, emit_map(ctx, "div(a0,a1)", x, scale), zero, DType.U8), scale, zero


def _centred(ctx: ImportContext, node: OnnxNode, x: str, zero: str, axis: int) -> str:
    """x - zero as int32."""
    offset = _number(ctx, None if zero == ABSENT else zero)
    if offset is not None:
        return ctx.emit(Map(centre_program(int(offset))), x)
    return emit_map(ctx, "cast.i32(a0);cast.i32(a1);sub(t0,t1)", x, _along(ctx, node, x, zero, axis))


@onnx_rule("MatMulInteger", becomes="Map, MatMul", constraints="rank >= 2")
def _import_matmul_integer(ctx: ImportContext, node: OnnxNode) -> str:
    a, b, a_zero, b_zero = (*node.inputs, ABSENT, ABSENT)[:4]
    return ctx.emit(MatMul(), _centred(ctx, node, a, a_zero, -2), _centred(ctx, node, b, b_zero, -1))


@onnx_rule("ConvInteger", becomes="Map, Conv", constraints="as Conv")
def _import_conv_integer(ctx: ImportContext, node: OnnxNode) -> str:
    x, w, x_zero, w_zero = (*node.inputs, ABSENT, ABSENT)[:4]
    return import_conv(ctx, replace(node, inputs=(_centred(ctx, node, x, x_zero, 1), _centred(ctx, node, w, w_zero, 0))))


def _requantise(ctx: ImportContext, node: OnnxNode, acc: str, scales: tuple[str, str, str], zero: str, axis: int) -> str:
    """The int32 accumulator times (scales 0 and 1) / scale 2, in the zero point's type."""
    a, b, y = (_along(ctx, node, acc, s, axis) for s in scales)
    scaled = emit_map(ctx, "cast.f32(a0);mul(a1,a2);div(t1,a3);mul(t0,t2)", acc, a, b, y)
    return saturate(ctx, node, scaled, _along(ctx, node, acc, zero, axis), ctx.type(zero).dtype)


@onnx_rule("QLinearMatMul", becomes="Map, MatMul", constraints="rank >= 2; scales for all, or of b's columns")
def _import_qlinear_matmul(ctx: ImportContext, node: OnnxNode) -> str:
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = node.inputs
    acc = ctx.emit(MatMul(), _centred(ctx, node, a, a_zero, -2), _centred(ctx, node, b, b_zero, -1))
    return _requantise(ctx, node, acc, (a_scale, b_scale, y_scale), y_zero, -1)


@onnx_rule("QGemm", domain="com.microsoft", becomes="Map, MatMul", constraints="alpha is 1; quantised result")
def _import_qgemm(ctx: ImportContext, node: OnnxNode) -> str:
    """The bias is int32 in the accumulator's scale."""
    a, a_scale, a_zero, b, b_scale, b_zero, bias, y_scale, y_zero = (*node.inputs, ABSENT, ABSENT)[:9]
    if ABSENT in (y_scale, y_zero) or float(node.attr("alpha", 1.0)) != 1.0:
        raise node.refuse("only alpha = 1 with a scale and a zero point for the result is supported")
    trans_a, trans_b = bool(node.attr("transA", 0)), bool(node.attr("transB", 0))
    factors = _centred(ctx, node, a, a_zero, 1), _centred(ctx, node, b, b_zero, 0 if trans_b else 1)
    acc = ctx.emit(MatMul(trans_a, trans_b), *factors)
    acc = emit_map(ctx, "add(a0,a1)", acc, bias) if bias != ABSENT else acc
    return _requantise(ctx, node, acc, (a_scale, b_scale, y_scale), y_zero, -1)


@onnx_rule("QLinearConv", becomes="Map, Conv", constraints="as Conv")
def _import_qlinear_conv(ctx: ImportContext, node: OnnxNode) -> str:
    """The weights' scale may be one for each output channel; the bias is int32 in the accumulator's scale."""
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero = node.inputs[:8]
    inputs = (_centred(ctx, node, x, x_zero, 1), _centred(ctx, node, w, w_zero, 0), *node.inputs[8:9])
    return _requantise(ctx, node, import_conv(ctx, replace(node, inputs=inputs)), (x_scale, w_scale, y_scale), y_zero, 1)
