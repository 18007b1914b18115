"""Import rules of onnxruntime's quantised operators beside products: dequantise, compute in float32, quantise."""

from __future__ import annotations

from sparsec.compiler.errors import ModelError
from sparsec.compiler.graph import ABSENT
from sparsec.compiler.onnx_rules import ImportContext, OnnxNode, onnx_rule
from sparsec.compiler.ops.concat import Concat
from sparsec.compiler.ops.map import emit_map
from sparsec.compiler.ops.quantize import saturate
from sparsec.compiler.ops.reduce import Reduce

_MS = "com.microsoft"


def _real(ctx: ImportContext, x: str, scale: str, zero: str) -> str:
    """(x - zero) * scale as float32; `scale` and `zero` are for all of x."""
    if zero == ABSENT:
        return emit_map(ctx, "cast.f32(a0);mul(t0,a1)", x, scale)
    return emit_map(ctx, "cast.i32(a0);cast.i32(a1);sub(t0,t1);cast.f32(t2);mul(t3,a2)", x, zero, scale)


def _quantised(ctx: ImportContext, node: OnnxNode, y: str, scale: str, zero: str, like: str) -> str:
    """y in the type of `like`, by the scale and zero point given."""
    for value in (scale, zero):
        if value != ABSENT and ctx.type(value).elements != 1:
            raise node.refuse(f"its scale or zero point {ctx.type(value)} has more than one element: one for all is supported")
    scaled = emit_map(ctx, "div(a0,a1)", y, scale)
    return saturate(ctx, node, scaled, zero if zero != ABSENT else None, ctx.type(like).dtype)


@onnx_rule("QLinearAdd", "QLinearMul", domain=_MS, becomes="Map", constraints="scales for all")
def _import_binary(ctx: ImportContext, node: OnnxNode) -> str:
    a, a_scale, a_zero, b, b_scale, b_zero, scale, zero = (*node.inputs, ABSENT)[:8]
    real = (_real(ctx, a, a_scale, a_zero), _real(ctx, b, b_scale, b_zero))
    y = emit_map(ctx, "add(a0,a1)" if node.op_type == "QLinearAdd" else "mul(a0,a1)", *real)
    return _quantised(ctx, node, y, scale, zero, a)


@onnx_rule("QLinearSigmoid", "QLinearLeakyRelu", domain=_MS, becomes="Map", constraints="scales for all")
def _import_unary(ctx: ImportContext, node: OnnxNode) -> str:
    x, x_scale, x_zero, scale, zero = (*node.inputs, ABSENT)[:5]
    alpha = float(node.attr("alpha", 0.01))
    program = "sigmoid(a0)" if node.op_type == "QLinearSigmoid" else f"lt(a0,0.0);mul(a0,{alpha!r});where(t0,t1,a0)"
    return _quantised(ctx, node, emit_map(ctx, program, _real(ctx, x, x_scale, x_zero)), scale, zero, x)


@onnx_rule("QLinearGlobalAveragePool", domain=_MS, becomes="Map, Reduce", constraints="channels first; scales for all")
def _import_pool(ctx: ImportContext, node: OnnxNode) -> str:
    x, x_scale, x_zero, scale, zero = node.inputs[:5]
    if node.attr("channels_last", 0):
        raise node.refuse("channels_last is not supported: export with channels first")
    mean = ctx.emit(Reduce("mean", tuple(range(2, ctx.type(x).rank)), True), _real(ctx, x, x_scale, x_zero))
    return _quantised(ctx, node, mean, scale, zero, x)


@onnx_rule("QLinearConcat", domain=_MS, becomes="Map, Concat", constraints="scales for all")
def _import_concat(ctx: ImportContext, node: OnnxNode) -> str:
    scale, zero, *rest = node.inputs
    if not rest or len(rest) % 3:
        raise ModelError(f"it has {len(node.inputs)} inputs, expected a scale, a zero point and three for each part")
    parts = [_real(ctx, *rest[i : i + 3]) for i in range(0, len(rest), 3)]
    axis = int(node.attr("axis", 0))
    joined = ctx.emit(Concat(axis + (ctx.type(parts[0]).rank if axis < 0 else 0)), *parts)
    return _quantised(ctx, node, joined, scale, zero, rest[0])
