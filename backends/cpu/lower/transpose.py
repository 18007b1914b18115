"""Transpose: a view when only the channel dimension of blocked data moves, else a strided copy."""

from __future__ import annotations

from collections.abc import Sequence

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.lower.base import BLOCKED_TYPES, LowerContext, Lowering, blocked, channel_axes, lowering, stream_cycles
from sparsec.backends.cpu.lower.copies import copy_strided
from sparsec.backends.cpu.storage import Alias
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.layout import ROW_MAJOR, Blocked
from sparsec.compiler.ops.transpose import Transpose
from sparsec.compiler.schedule import LayerSchedule
from sparsec.compiler.target import LayoutOption


def keeps_order(shape: tuple[int, ...], perm: tuple[int, ...], without: int | None = None) -> bool:
    """Whether a permutation leaves the order of the dimensions longer than 1 (but for dimension `without`) as it is."""
    moved = [p for p in perm if shape[p] != 1 and p != without]
    return moved == sorted(moved)


@lowering
class LowerTranspose(Lowering):
    """A view or a strided copy."""

    op = Transpose

    def legal(self, graph: Graph, node: Node, isa: Isa) -> Sequence[LayoutOption]:
        x, y = graph.types[node.inputs[0]], graph.types[node.output]
        perm = node.op.perm  # type: ignore[attr-defined]
        free = keeps_order(x.shape, perm)
        options = [LayoutOption((ROW_MAJOR,), (ROW_MAJOR,), 0.0 if free else stream_cycles(4 * x.nbytes))]
        if x.dtype in BLOCKED_TYPES:
            for a in channel_axes(x):
                if keeps_order(x.shape, perm, without=a) and perm.index(a) in channel_axes(y):
                    options.append(LayoutOption((blocked(x, a, isa),), (blocked(y, perm.index(a), isa),), 0.0))
        return options

    def aliases(self, graph: Graph, node: Node) -> Sequence[Alias]:
        x = node.inputs[0]
        perm, t = node.op.perm, graph.types[x]  # type: ignore[attr-defined]
        axis = t.layout.axis if isinstance(t.layout, Blocked) else None
        return (Alias(node.output, x),) if x not in graph.constants and keeps_order(t.shape, perm, without=axis) else ()

    def lower(self, ctx: LowerContext, node: Node, layer: LayerSchedule) -> None:
        x = node.inputs[0]
        if ctx.same_place(node.output, x):
            return
        source, result = ctx.view(x), ctx.view(node.output)
        perm = node.op.perm  # type: ignore[attr-defined]
        steps = tuple(source.strides.dims[p] for p in perm)
        copy_strided(ctx, node, result.type.shape, source.ref, steps, result.ref, result.strides.dims, result.type.dtype)
