"""Pad: the data is copied into place, then each dimension's margins are filled from what already stands in the result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

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
from sparsec.backends.cpu.lower.copies import copy_strided, fill, storage_walk
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.layout import ROW_MAJOR, Blocked
from sparsec.compiler.ops.pad import Pad
from sparsec.compiler.schedule import LayerSchedule
from sparsec.compiler.target import LayoutOption


def pad_op(node: Node) -> Pad:
    """The node's attributes."""
    assert isinstance(node.op, Pad)
    return node.op


def margins(mode: str, kept: int, before: int, after: int) -> Iterator[tuple[int, int, int, int]]:
    """(first result index, count, first source index, source step), along a dimension whose data begins at `before`.

    Every margin is read from the data or from margins that came earlier.
    """
    end = before + kept
    if mode == "edge":
        yield 0, before, before, 0
        yield end, after, end - 1, 0
    elif mode == "reflect":
        yield 0, before, 2 * before, -1
        yield end, after, end - 2, -1
    elif mode == "wrap":
        for at in range(before, 0, -kept):
            count = min(kept, at)
            yield at - count, count, at - count + kept, 1
        for at in range(end, end + after, kept):
            yield at, min(kept, end + after - at), at - kept, 1


@lowering
class LowerPad(Lowering):
    """Copies; blocked data when its channels are not padded."""

    op = Pad

    def legal(self, graph: Graph, node: Node, isa: Isa) -> Sequence[LayoutOption]:
        x, y, op = graph.types[node.inputs[0]], graph.types[node.output], pad_op(node)
        cycles = stream_cycles(x.nbytes + 2 * y.nbytes)
        options = [LayoutOption((ROW_MAJOR,), (ROW_MAJOR,), cycles)]
        for a in channel_axes(x) if x.dtype in BLOCKED_TYPES else ():
            whole = op.mode != "constant" or op.fill == 0 or x.shape[a] % isa.lanes == 0
            if whole and op.pads[a] == op.pads[x.rank + a] == 0:
                layout = blocked(x, a, isa)
                options.append(LayoutOption((layout,), (layout,), cycles))
        return options

    def lower(self, ctx: LowerContext, node: Node, layer: LayerSchedule) -> None:
        x, y, op = ctx.view(node.inputs[0]), ctx.view(node.output), pad_op(node)
        rank = x.type.rank
        before, after = [max(p, 0) for p in op.pads[:rank]], [max(p, 0) for p in op.pads[rank:]]
        cut = [max(-p, 0) for p in op.pads[:rank]]
        kept = [n - lo - hi for n, lo, hi in zip(y.type.shape, before, after, strict=True)]
        if op.mode == "constant" and (any(before) or any(after)):
            fill(ctx, node, y, np.asarray(op.fill).astype(y.type.dtype.numpy))
        _copy(ctx, node, kept, (x, cut), (y, before))
        if op.mode == "constant":
            return
        done = list(kept)
        start = list(before)
        for axis in range(rank):
            for to, count, source, step in margins(op.mode, kept[axis], before[axis], after[axis]):
                part = [*done[:axis], count, *done[axis + 1 :]]
                _copy(ctx, node, part, (y, _at(start, axis, source)), (y, _at(start, axis, to)), axis, step)
            done[axis], start[axis] = y.type.shape[axis], 0


def _at(start: Sequence[int], axis: int, index: int) -> list[int]:
    return [*start[:axis], index, *start[axis + 1 :]]


def _copy(
    ctx: LowerContext,
    node: Node,
    extents: Sequence[int],
    source: tuple[View, Sequence[int]],
    result: tuple[View, Sequence[int]],
    axis: int = 0,
    step: int = 1,
) -> None:
    """Copy a box between two (tensor, first index of every dimension); along `axis` the source is read by `step`."""
    if 0 in extents:
        return
    walks = []
    for view, first in (source, result):
        shape, strides, offset = storage_walk(view, extents)
        walks.append((shape, list(strides), offset + sum(i * s for i, s in zip(first, view.strides.dims, strict=True))))
    (shape, steps, offset), (_, result_steps, result_offset) = walks
    layout = source[0].type.layout
    at = axis if not isinstance(layout, Blocked) else axis + (1 if axis < layout.axis else 0)
    if not (isinstance(layout, Blocked) and axis == layout.axis):
        steps[at] *= step
    copy_strided(
        ctx,
        node,
        shape,
        source[0].ref,
        steps,
        result[0].ref,
        result_steps,
        source[0].type.dtype,
        source_offset=offset,
        result_offset=result_offset,
    )
