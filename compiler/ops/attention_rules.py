"""Import rules of the attention operators: ONNX's own, and onnxruntime's Attention and MultiHeadAttention."""

from __future__ import annotations

from math import sqrt

import numpy as np

from sparsec.compiler.dtypes import DType
from sparsec.compiler.errors import ModelError
from sparsec.compiler.onnx_rules import ImportContext, OnnxNode, onnx_rule
from sparsec.compiler.ops.attention import Attention
from sparsec.compiler.ops.concat import Concat
from sparsec.compiler.ops.map import emit_map
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.ops.reshape import Reshape
from sparsec.compiler.ops.slice import emit_slice
from sparsec.compiler.ops.transpose import Transpose
from sparsec.compiler.types import TensorType


def heads_outside(ctx: ImportContext, x: str, heads: int) -> str:
    """[B, S, heads * D] -> [B, heads, S, D]; rank 4 stays."""
    shape = ctx.type(x).shape
    if len(shape) == 4:
        return x
    if len(shape) != 3 or heads < 1 or shape[2] % heads:
        raise ModelError(f"{ctx.type(x)} does not hold {heads} heads")
    split = ctx.emit(Reshape((shape[0], shape[1], heads, shape[2] // heads)), x)
    return ctx.emit(Transpose((0, 2, 1, 3)), split)


def _causal(ctx: ImportContext, rows: int, columns: int, offset: int, dtype: DType, fill: float) -> str:
    """[rows, columns]: 0 where column <= row + offset, else `fill`."""
    ctx.limits.check_constant(TensorType(dtype, (rows, columns)))
    future = np.arange(columns)[None, :] > np.arange(rows)[:, None] + offset
    return ctx.constant(np.where(future, dtype.numpy.type(fill), dtype.numpy.type(0)))


def _total(ctx: ImportContext, masks: list[str]) -> list[str]:
    """The sum of additive masks: none or one value."""
    total = masks[:1]
    for mask in masks[1:]:
        total = [emit_map(ctx, "add(a0,a1)", total[0], mask)]
    return total


@onnx_rule(
    "Attention",
    becomes="Attention",
    constraints="no softcap, nonpad_kv_seqlen or window; the scores (output 3) cannot be read; softmax in the data's precision",
)
def _import_attention(ctx: ImportContext, node: OnnxNode) -> tuple[str, ...]:
    q, k, v = node.inputs[:3]
    if node.attr("softcap", 0.0) != 0.0 or node.has(6):
        raise node.refuse("softcap and nonpad_kv_seqlen are not supported")
    if max(node.attr("left_window_size", -1), node.attr("right_window_size", -1)) >= 0:
        raise node.refuse("a sliding window (left_window_size, right_window_size) is not supported")
    flat = ctx.type(q).rank == 3
    heads = int(node.attr("q_num_heads", 0)) if flat else ctx.type(q).shape[1]
    shared = int(node.attr("kv_num_heads", 0)) if flat else ctx.type(k).shape[1]
    if heads < 1 or shared < 1:
        raise ModelError("q_num_heads and kv_num_heads are needed for queries of rank 3")
    width = ctx.type(q).shape[-1] // (heads if flat else 1)
    scale, dtype, past = float(node.attr("scale", 1 / sqrt(max(width, 1)))), ctx.type(q).dtype, 0
    present: tuple[str, ...] = ()
    if node.has(4) and node.has(5):
        past = ctx.type(node.inputs[4]).shape[2]
        k = ctx.emit(Concat(2), node.inputs[4], heads_outside(ctx, k, shared))
        v = ctx.emit(Concat(2), node.inputs[5], heads_outside(ctx, v, shared))
        q, present = heads_outside(ctx, q, heads), (k, v)
    elif len(node.outputs) > 1 and any(node.outputs[1:3]):
        present = (heads_outside(ctx, k, shared), heads_outside(ctx, v, shared))
    rows, columns = ctx.type(q).shape[-2], ctx.type(k).shape[-2]
    masks = []
    if node.has(3):
        mask = node.inputs[3]
        masks.append(emit_map(ctx, f"cast.{dtype.value}(0);where(a0,t0,-inf)", mask) if _is_bool(ctx, mask) else mask)
    if node.attr("is_causal", 0):
        masks.append(_causal(ctx, rows, columns, past, dtype, -np.inf))
    y = ctx.emit(Attention(heads, shared, scale), q, k, v, *_total(ctx, masks))
    if flat and ctx.type(y).rank == 4:
        y = _heads_inside(ctx, y)
    return (y, *present)


def _is_bool(ctx: ImportContext, value: str) -> bool:
    return ctx.type(value).dtype is DType.BOOL


def _heads_inside(ctx: ImportContext, y: str) -> str:
    b, h, s, d = ctx.type(y).shape
    return ctx.emit(Reshape((b, s, h * d)), ctx.emit(Transpose((0, 2, 1, 3)), y))


def _padding(ctx: ImportContext, node: OnnxNode, mask: str, dtype: DType) -> str:
    """An additive mask from integers that are 0 where a key is padding: [B, L] or [B, S, L]."""
    shape = ctx.type(mask).shape
    if len(shape) not in (2, 3) or ctx.type(mask).dtype is not DType.I32:
        raise node.refuse(f"a mask {ctx.type(mask)} is not supported: int32 [batch, keys] or [batch, queries, keys] is")
    wide = ctx.emit(Reshape((shape[0], 1, *([1] if len(shape) == 2 else []), *shape[1:])), mask)
    fill = float(np.float32(node.attr("mask_filter_value", -10000.0)))
    return emit_map(ctx, f"cast.{dtype.value}(0);cast.{dtype.value}({fill!r});gt(a0,0);where(t2,t0,t1)", wide)


@onnx_rule(
    "MultiHeadAttention",
    domain="com.microsoft",
    becomes="Attention",
    constraints="queries, keys and values apart; key_padding_mask of rank 2 or 3; no past, no cache; one output",
)
def _import_multi_head(ctx: ImportContext, node: OnnxNode) -> tuple[str, ...]:
    if not (node.has(1) and node.has(2)) or any(node.has(i) for i in range(6, len(node.inputs))):
        raise node.refuse("packed operands and past keys are not supported")
    operands, heads, dtype = list(node.inputs[:3]), int(node.attr("num_heads", 0)), ctx.type(node.inputs[0]).dtype
    if heads < 1 or ctx.type(operands[0]).rank != 3:
        raise node.refuse(
            f"queries {ctx.type(operands[0])} with num_heads {heads} are not supported: [batch, queries, heads * width] is"
        )
    if node.has(3):
        start = 0
        for i, x in enumerate(operands):
            if ctx.type(x).rank == 3:
                size = ctx.type(x).shape[2]
                operands[i] = emit_map(ctx, "add(a0,a1)", x, emit_slice(ctx, node.inputs[3], 0, start, size))
                start += size
    width = ctx.type(operands[0]).shape[2] // heads
    masks = [_padding(ctx, node, node.inputs[4], dtype)] if node.has(4) else []
    masks += [node.inputs[5]] if node.has(5) else []
    inside = all(ctx.type(x).rank == 3 for x in operands)
    if not inside:
        operands = [heads_outside(ctx, x, heads) for x in operands]
    if node.attr("unidirectional", 0):
        rows, columns = ctx.type(operands[0]).shape[-2], ctx.type(operands[1]).shape[-2]
        masks.append(_causal(ctx, rows, columns, columns - rows, dtype, -np.inf))
    scale = float(node.attr("scale", 0.0)) or 1 / sqrt(max(width, 1))
    y = ctx.emit(Attention(heads, heads, scale), *operands, *_total(ctx, masks))
    return (y if inside else _heads_inside(ctx, y),)


@onnx_rule(
    "Attention",
    domain="com.microsoft",
    becomes="MatMul, Attention",
    constraints="mask of rank 2 or 3; no past; no rotary embedding; one output",
)
def _import_ms_attention(ctx: ImportContext, node: OnnxNode) -> tuple[str, ...]:
    """The projection of the input to queries, keys and values side by side, then attention."""
    if node.has(4) or node.has(6) or node.attr("do_rotary", 0):
        raise node.refuse("past keys and rotary embedding are not supported")
    x, weights = node.inputs[:2]
    heads, dtype, width = int(node.attr("num_heads", 0)), ctx.type(x).dtype, ctx.type(weights).shape[-1]
    sizes = [int(n) for n in node.attr("qkv_hidden_sizes", [])] or [width // 3] * 3
    if heads < 1 or len(sizes) != 3 or sum(sizes) != width or any(n % heads for n in sizes):
        raise ModelError(f"weights {ctx.type(weights)} do not hold {heads} heads of widths {sizes}")
    packed = ctx.emit(MatMul(), x, weights)
    if node.has(2):
        packed = emit_map(ctx, "add(a0,a1)", packed, node.inputs[2])
    operands = [emit_slice(ctx, packed, 2, sum(sizes[:i]), n) for i, n in enumerate(sizes)]
    masks = [_padding(ctx, node, node.inputs[3], dtype)] if node.has(3) else []
    masks += [node.inputs[5]] if node.has(5) else []
    if node.attr("unidirectional", 0):
        length = ctx.type(x).shape[1]
        masks.append(_causal(ctx, length, length, 0, dtype, -np.inf))
    scale = float(node.attr("scale", 0.0)) or 1 / sqrt(max(sizes[0] // heads, 1))
    return (ctx.emit(Attention(heads, heads, scale), *operands, *_total(ctx, masks)),)
