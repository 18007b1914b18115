"""Import rule of onnxruntime's EmbedLayerNormalization: the sum of embeddings, normalised."""

from __future__ import annotations

import numpy as np

from sparsec.compiler.dtypes import DType
from sparsec.compiler.graph import ABSENT
from sparsec.compiler.onnx_rules import ImportContext, OnnxNode, onnx_rule
from sparsec.compiler.ops.gather import Gather
from sparsec.compiler.ops.layer_norm import LayerNorm
from sparsec.compiler.ops.map import emit_map
from sparsec.compiler.ops.reduce import Reduce
from sparsec.compiler.ops.slice import emit_slice


@onnx_rule("EmbedLayerNormalization", domain="com.microsoft", becomes="Gather, Map, LayerNorm, Reduce")
def _import_embed(ctx: ImportContext, node: OnnxNode) -> tuple[str, ...]:
    """Word, position and segment embeddings added and normalised; output 1 counts the mask, output 2 is the sum."""
    ids, segments, words, places, kinds, scale, bias = node.inputs[:7]
    batch, length = ctx.type(ids).shape
    if node.has(8):
        positions = ctx.emit(Gather(0), places, node.inputs[8])
    else:
        positions = emit_slice(ctx, places, 0, 0, length)
    total = emit_map(ctx, "add(a0,a1)", ctx.emit(Gather(0), words, ids), positions)
    if segments != ABSENT:
        total = emit_map(ctx, "add(a0,a1)", total, ctx.emit(Gather(0), kinds, segments))
    y = ctx.emit(LayerNorm(2, float(node.attr("epsilon", 1e-12))), total, scale, bias)
    if node.has(7):
        mask = node.inputs[7]
        narrow = mask if ctx.type(mask).dtype is DType.I32 else emit_map(ctx, "cast.i32(a0)", mask)
        count = ctx.emit(Reduce("sum", (1,), False), narrow)
    else:
        count = ctx.constant(np.zeros(batch, np.int32))
    return y, count, total
