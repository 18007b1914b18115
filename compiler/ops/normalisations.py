"""Import rules of the rarer normalisations: each becomes reductions and elementwise programs."""

from __future__ import annotations

from sparsec.compiler.onnx_rules import ImportContext, OnnxNode, onnx_rule
from sparsec.compiler.ops.base import normal_axis
from sparsec.compiler.ops.map import emit_map
from sparsec.compiler.ops.reduce import Reduce


@onnx_rule("MeanVarianceNormalization", becomes="Reduce, Map")
def _import_mean_variance(ctx: ImportContext, node: OnnxNode) -> str:
    """(x - mean) / (standard deviation + 1e-9), the constant as in ONNX's function body."""
    x = node.inputs[0]
    rank = ctx.type(x).rank
    axes = tuple(sorted({normal_axis(int(a), rank) for a in node.attr("axes", [0, 2, 3])}))
    centred = emit_map(ctx, "sub(a0,a1)", x, ctx.emit(Reduce("mean", axes), x))
    variance = ctx.emit(Reduce("mean", axes), emit_map(ctx, "mul(a0,a0)", centred))
    return emit_map(ctx, "sqrt(a1);add(t0,1e-09);div(a0,t1)", centred, variance)


@onnx_rule("LpNormalization", becomes="Reduce, Map", constraints="p is 1 or 2")
def _import_lp_normalization(ctx: ImportContext, node: OnnxNode) -> str:
    """x / its p-norm along the axis; a line of zeros stays zero."""
    x, p = node.inputs[0], int(node.attr("p", 2))
    rank = ctx.type(x).rank
    axis = normal_axis(int(node.attr("axis", -1)), rank)
    if p not in (1, 2):
        raise node.refuse(f"its p is {p}, and only 1 and 2 are defined")
    total = ctx.emit(Reduce("sum", (axis,)), emit_map(ctx, "abs(a0)" if p == 1 else "mul(a0,a0)", x))
    norm = total if p == 1 else emit_map(ctx, "sqrt(a0)", total)
    return emit_map(ctx, "eq(a1,0.0);div(a0,a1);where(t0,0.0,t1)", x, norm)
