"""Slice: whole channel blocks are a view, everything else one strided copy."""

from __future__ import annotations

from collections.abc import Sequence

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.lower.base import (
    BLOCKED_TYPES,
    LowerContext,
    Lowering,
    View,
    blocked,
    channel_axes,
    lowering,
    stream_cycles,
)
from sparsec.backends.cpu.lower.copies import clear_tail, copy_channels, copy_strided
from sparsec.backends.cpu.storage import Alias
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.layout import ROW_MAJOR, Blocked
from sparsec.compiler.ops.slice import Slice
from sparsec.compiler.schedule import LayerSchedule
from sparsec.compiler.target import LayoutOption


def slice_op(node: Node) -> Slice:
    """The node's attributes."""
    assert isinstance(node.op, Slice)
    return node.op


def whole_blocks(op: Slice, channels: int, axis: int, lanes: int) -> bool:
    """Whether the slice takes whole blocks of `axis`: they begin at a block and end at one or with the tensor."""
    start, end = op.starts[axis], op.starts[axis] + op.sizes[axis]
    return op.steps[axis] == 1 and start % lanes == 0 and (end % lanes == 0 or end == channels)


def only_channels(op: Slice, shape: tuple[int, ...], axis: int) -> bool:
    """Whether all dimensions but `axis` stay whole and in order."""
    return all(i == axis or (op.steps[i] == 1 and op.sizes[i] == n) for i, n in enumerate(shape))


@lowering
class LowerSlice(Lowering):
    """A view or a strided copy."""

    op = Slice

    def legal(self, graph: Graph, node: Node, isa: Isa) -> Sequence[LayoutOption]:
        x, y, op = graph.types[node.inputs[0]], graph.types[node.output], slice_op(node)
        cycles = stream_cycles(2 * y.nbytes) + (y.elements if op.steps and op.steps[-1] != 1 else 0)
        options = [LayoutOption((ROW_MAJOR,), (ROW_MAJOR,), cycles)]
        for a in channel_axes(x) if x.dtype in BLOCKED_TYPES else ():
            layout = blocked(x, a, isa)
            if whole_blocks(op, x.shape[a], a, isa.lanes):
                cycles = 0.0 if only_channels(op, x.shape, a) else stream_cycles(2 * y.nbytes)
                options.append(LayoutOption((layout,), (layout,), cycles))
            elif op.steps[a] == 1:
                options.append(LayoutOption((layout,), (layout,), stream_cycles(4 * y.nbytes)))
        return options

    def aliases(self, graph: Graph, node: Node) -> Sequence[Alias]:
        x, op = node.inputs[0], slice_op(node)
        t = graph.types[x]
        if not isinstance(t.layout, Blocked) or x in graph.constants or graph.types[node.output].elements == 0:
            return ()
        a, block = t.layout.axis, t.layout.block
        if not whole_blocks(op, t.shape[a], a, block) or not only_channels(op, t.shape, a):
            return ()
        return (Alias(node.output, x, op.starts[a] // block, same_order=True),)

    def lower(self, ctx: LowerContext, node: Node, layer: LayerSchedule) -> None:
        x, y, op = ctx.view(node.inputs[0]), ctx.view(node.output), slice_op(node)
        s = x.strides
        steps = tuple(n * p for n, p in zip(s.dims, op.steps, strict=True))
        if not isinstance(x.type.layout, Blocked):
            offset = sum(a * n for a, n in zip(op.starts, s.dims, strict=True))
            copy_strided(
                ctx, node, op.sizes, x.ref, steps, y.ref, y.strides.dims, x.type.dtype, source_offset=offset
            )  # fmt: skip
            return
        axis, block = x.type.layout.axis, x.type.layout.block
        if x.ref.at(op.starts[axis] // block * s.block * x.type.dtype.itemsize) == y.ref and only_channels(
            op, x.type.shape, axis
        ):
            return
        origin = s.origin + sum(op.starts[i] * n for i, n in enumerate(s.dims) if i != axis)
        source = View(x.ref, x.type, type(s)(s.block, steps, origin, s.total))
        copy_channels(ctx, node, source, op.starts[axis], y, 0, op.sizes)
        clear_tail(ctx, node, y)
