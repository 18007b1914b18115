"""Reduce: over all positions of blocked data, or over any axes of row-major data."""

from __future__ import annotations

from collections.abc import Sequence

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernels.pool import global_pool
from sparsec.backends.cpu.lower.base import LowerContext, Lowering, blocked, lowering, stream_cycles
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.ops.reduce import Reduce
from sparsec.compiler.schedule import LayerSchedule
from sparsec.compiler.target import LayoutOption

_GLOBAL = ("sum", "mean", "max", "min")


def is_global(graph: Graph, node: Node) -> bool:
    """Whether a node reduces all spatial dimensions of [N, C, ...], which the pooling kernel does."""
    op, x = node.op, graph.types[node.inputs[0]]
    assert isinstance(op, Reduce)
    return x.rank in (3, 4) and op.over == tuple(range(2, x.rank)) and op.keepdims and op.kind in _GLOBAL


@lowering
class LowerReduce(Lowering):
    """Global pooling."""

    op = Reduce

    def legal(self, graph: Graph, node: Node, isa: Isa) -> Sequence[LayoutOption]:
        x, y = graph.types[node.inputs[0]], graph.types[node.output]
        if x.dtype.value != "f32" or not is_global(graph, node) or 0 in x.shape:
            return ()
        return (LayoutOption((blocked(x, 1, isa),), (blocked(y, 1, isa),), stream_cycles(x.nbytes)),)

    def lower(self, ctx: LowerContext, node: Node, layer: LayerSchedule) -> None:
        assert isinstance(node.op, Reduce)
        x, y = ctx.view(node.inputs[0]), ctx.view(node.output)
        kernel, geometry = global_pool(node.op.kind, x.type, y.type, ctx.isa)
        ctx.call(node, kernel, geometry, [x.ref, y.ref])
