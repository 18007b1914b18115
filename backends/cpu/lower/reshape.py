"""Reshape: never computes. Row-major data is the same bytes; blocked data is when the channels stay a dimension of their own."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.lower.base import BLOCKED_TYPES, LowerContext, Lowering, blocked, channel_axes, lowering
from sparsec.backends.cpu.lower.copies import copy_bytes
from sparsec.backends.cpu.storage import Alias
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.layout import ROW_MAJOR
from sparsec.compiler.ops.reshape import Reshape
from sparsec.compiler.schedule import LayerSchedule
from sparsec.compiler.target import LayoutOption


def same_blocks(a: tuple[int, ...], axis_a: int, b: tuple[int, ...], axis_b: int) -> bool:
    """Whether [C / c][others][c] storage of shape `a` is, byte for byte, that of shape `b`.

    True when both have the same channels and the same number of positions before and after them.
    """
    return a[axis_a] == b[axis_b] and prod(a[:axis_a]) == prod(b[:axis_b])


@lowering
class LowerReshape(Lowering):
    """A view."""

    op = Reshape

    def legal(self, graph: Graph, node: Node, isa: Isa) -> Sequence[LayoutOption]:
        x, y = graph.types[node.inputs[0]], graph.types[node.output]
        options = [LayoutOption((ROW_MAJOR,), (ROW_MAJOR,), 0.0)]
        if x.dtype in BLOCKED_TYPES:
            for a in channel_axes(x):
                for b in channel_axes(y):
                    if same_blocks(x.shape, a, y.shape, b):
                        options.append(LayoutOption((blocked(x, a, isa),), (blocked(y, b, isa),), 0.0))
        return options

    def aliases(self, graph: Graph, node: Node) -> Sequence[Alias]:
        x = node.inputs[0]
        return () if x in graph.constants else (Alias(node.output, x),)

    def lower(self, ctx: LowerContext, node: Node, layer: LayerSchedule) -> None:
        if not ctx.same_place(node.output, node.inputs[0]):
            copy_bytes(ctx, node, ctx.view(node.inputs[0]), ctx.view(node.output))
