"""Import rules of RotaryEmbedding, ONNX's and onnxruntime's: slices, products with cached cosines and sines, Concat.

Pairs of elements (x1, x2) of each head turn by an angle that depends on the position:
(x1 cos - x2 sin, x2 cos + x1 sin). A pair is (i, i + half) or, interleaved, (2 i, 2 i + 1).
"""

from __future__ import annotations

import numpy as np

from sparsec.compiler.errors import ModelError
from sparsec.compiler.graph import ABSENT
from sparsec.compiler.onnx_rules import ImportContext, OnnxNode, onnx_rule
from sparsec.compiler.ops.concat import Concat
from sparsec.compiler.ops.gather import Gather
from sparsec.compiler.ops.map import emit_map
from sparsec.compiler.ops.reshape import Reshape
from sparsec.compiler.ops.slice import emit_slice


def _rotate(ctx: ImportContext, x: str, cos: str, sin: str, interleaved: bool) -> str:
    """Turn the whole last dimension; cos and sin broadcast to half of it."""
    shape = ctx.type(x).shape
    last, half = len(shape) - 1, shape[-1] // 2
    if interleaved:
        x1, x2 = (emit_slice(ctx, x, last, i, half, 2) for i in (0, 1))
    else:
        x1, x2 = emit_slice(ctx, x, last, 0, half), emit_slice(ctx, x, last, half, half)
    real = emit_map(ctx, "mul(a0,a2);mul(a1,a3);sub(t0,t1)", x1, x2, cos, sin)
    imaginary = emit_map(ctx, "mul(a1,a2);mul(a0,a3);add(t0,t1)", x1, x2, cos, sin)
    if not interleaved:
        return ctx.emit(Concat(last), real, imaginary)
    pair = (*shape[:-1], half, 1)
    stacked = ctx.emit(Concat(last + 1), ctx.emit(Reshape(pair), real), ctx.emit(Reshape(pair), imaginary))
    return ctx.emit(Reshape(shape), stacked)


def _rotary(ctx: ImportContext, node: OnnxNode, x: str, positions: str, cos: str, sin: str) -> str:
    """`cos` and `sin` are [positions, half] with `positions` [B, S], or [B, S, half] without."""
    shape = ctx.type(x).shape
    heads = int(node.attr("num_heads", 0))
    if len(shape) == 3:
        if heads < 1 or shape[2] % heads:
            raise ModelError(f"num_heads {heads} does not divide the width of {ctx.type(x)}")
        x = ctx.emit(Reshape((*shape[:2], heads, shape[2] // heads)), x)
    batch, length = shape[0], shape[1] if len(shape) == 3 else shape[2]
    width = int(node.attr("rotary_embedding_dim", 0)) or ctx.type(x).shape[-1]
    tables = []
    for table in (cos, sin):
        if positions != ABSENT:
            table = ctx.emit(Gather(0), table, positions)
        half = ctx.type(table).shape[-1]
        if ctx.type(table).rank != 3 or 2 * half != width:
            raise ModelError(f"the cache {ctx.type(table)} does not fit {width} elements to rotate")
        lead = ctx.type(table).shape[0]
        tables.append(ctx.emit(Reshape((lead, length, 1, half) if len(shape) == 3 else (lead, 1, length, half)), table))
    if ctx.type(tables[0]).shape[0] not in (1, batch):
        raise ModelError(f"the cache {ctx.type(cos)} does not fit {ctx.type(x)}")
    last = ctx.type(x).rank - 1
    whole = ctx.type(x).shape[-1]
    y = _rotate(ctx, emit_slice(ctx, x, last, 0, width), tables[0], tables[1], bool(node.attr("interleaved", 0)))
    if width < whole:
        y = ctx.emit(Concat(last), y, emit_slice(ctx, x, last, width, whole - width))
    return ctx.emit(Reshape(shape), y) if len(shape) == 3 else y


@onnx_rule("RotaryEmbedding", becomes="Slice, Map, Concat, Gather")
def _import_rotary(ctx: ImportContext, node: OnnxNode) -> str:
    return _rotary(ctx, node, node.inputs[0], node.inputs[3] if node.has(3) else ABSENT, *node.inputs[1:3])


@onnx_rule("RotaryEmbedding", domain="com.microsoft", becomes="Slice, Map, Concat, Gather", constraints="no scale")
def _import_ms_rotary(ctx: ImportContext, node: OnnxNode) -> str:
    """As ONNX's, with the positions first; a single position is where the sequence starts."""
    if node.attr("scale", 1.0) != 1.0 or node.attr("is_packed_batching", 0):
        raise node.refuse("scale and packed batching are not supported")
    x, positions, cos, sin = node.inputs[:4]
    t = ctx.type(x)
    if t.rank == 3 and not node.attr("num_heads", 0):  # the caches tell the width of a head
        heads = t.shape[2] // (2 * ctx.type(cos).shape[1])
        node = OnnxNode(node.op_type, node.domain, node.name, node.inputs, node.outputs, {**node.attributes, "num_heads": heads})
    if ctx.type(positions).rank == 1:
        length = t.shape[1] if t.rank == 3 else t.shape[2]
        steps = ctx.constant(np.arange(length)[None, :])
        positions = emit_map(ctx, "add(a0,a1)", steps, ctx.emit(Reshape((1, 1)), positions))
    return _rotary(ctx, node, x, positions, cos, sin)
