"""Expand and Tile: copies that read some loops of the result with a stride of zero."""

from __future__ import annotations

from collections.abc import Sequence

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.lower.base import LowerContext, Lowering, lowering, stream_cycles
from sparsec.backends.cpu.lower.copies import copy_strided
from sparsec.backends.cpu.walk import broadcast_strides, row_major_strides
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.layout import ROW_MAJOR
from sparsec.compiler.ops.expand import Expand
from sparsec.compiler.ops.tile import Tile
from sparsec.compiler.schedule import LayerSchedule
from sparsec.compiler.target import LayoutOption


def _options(graph: Graph, node: Node) -> Sequence[LayoutOption]:
    y = graph.types[node.output]
    return (LayoutOption((ROW_MAJOR,), (ROW_MAJOR,), stream_cycles(2 * y.nbytes)),)


@lowering
class LowerExpand(Lowering):
    """Broadcast dimensions read with a stride of zero."""

    op = Expand

    def legal(self, graph: Graph, node: Node, isa: Isa) -> Sequence[LayoutOption]:
        return _options(graph, node)

    def lower(self, ctx: LowerContext, node: Node, layer: LayerSchedule) -> None:
        x, y = ctx.view(node.inputs[0]), ctx.view(node.output)
        steps = broadcast_strides(x.type.shape, y.type.shape)
        copy_strided(ctx, node, y.type.shape, x.ref, steps, y.ref, y.strides.dims, y.type.dtype)


@lowering
class LowerTile(Lowering):
    """Every dimension as repetitions (a stride of zero) of the data's own."""

    op = Tile

    def legal(self, graph: Graph, node: Node, isa: Isa) -> Sequence[LayoutOption]:
        return _options(graph, node)

    def lower(self, ctx: LowerContext, node: Node, layer: LayerSchedule) -> None:
        assert isinstance(node.op, Tile)
        x, y = ctx.view(node.inputs[0]), ctx.view(node.output)
        own = row_major_strides(x.type.shape)
        shape = [n for pair in zip(node.op.repeats, x.type.shape, strict=True) for n in pair]
        steps = [s for stride in own for s in (0, stride)]
        copy_strided(ctx, node, shape, x.ref, steps, y.ref, row_major_strides(shape), y.type.dtype)
