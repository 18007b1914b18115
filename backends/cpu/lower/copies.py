"""Plain copies that several lowerings need: whole values, strided blocks, regions of a stored tensor, outputs of the graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

import numpy as np

from sparsec.backends.cpu.kernels.copy import copy
from sparsec.backends.cpu.lower.base import LowerContext, View
from sparsec.backends.cpu.program import Ref, Space
from sparsec.backends.cpu.storage import strides_of
from sparsec.compiler.dtypes import DType
from sparsec.compiler.graph import Node, Port
from sparsec.compiler.layout import Blocked


def copy_strided(
    ctx: LowerContext,
    node: Node,
    shape: Sequence[int],
    source: Ref,
    source_strides: Sequence[int],
    result: Ref,
    result_strides: Sequence[int],
    dtype: DType,
    *,
    source_offset: int = 0,
    result_offset: int = 0,
) -> None:
    """Copy `shape` elements between two strided arrays; strides and offsets in elements. Nothing for an empty shape."""
    if 0 in shape:
        return
    kernel, geometry = copy(shape, source_strides, result_strides, dtype.itemsize, source_offset, result_offset)
    ctx.call(node, kernel, geometry, [source, result])


def copy_bytes(ctx: LowerContext, node: Node, source: View, result: View) -> None:
    """Copy a value whose storage is the same bytes."""
    n = strides_of(source.type).total
    copy_strided(ctx, node, (n,), source.ref, (1,), result.ref, (1,), source.type.dtype)


def region(whole: View, axis: int, start: int) -> Ref:
    """The address at which index `start` of dimension `axis` begins in a stored tensor (a whole block for channels)."""
    layout = whole.type.layout
    if isinstance(layout, Blocked) and layout.axis == axis:
        return whole.ref.at(start // layout.block * whole.strides.block * whole.type.dtype.itemsize)
    return whole.ref.at(start * whole.strides.dims[axis] * whole.type.dtype.itemsize)


def storage_walk(view: View, extents: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """(shape, strides, offset) of the interior of `extents` logical elements as stored: blocks, dimensions, lanes."""
    layout, s = view.type.layout, view.strides
    if not isinstance(layout, Blocked):
        return tuple(extents), s.dims, 0
    others = [(n, s.dims[i]) for i, n in enumerate(extents) if i != layout.axis]
    blocks = -(-extents[layout.axis] // layout.block)
    return (
        (blocks, *(n for n, _ in others), layout.block),
        (s.block, *(step for _, step in others), 1),
        s.origin,
    )


def copy_region(ctx: LowerContext, node: Node, part: View, whole: View, axis: int, start: int) -> None:
    """Copy `part` to where index `start` of dimension `axis` of `whole` begins; both stored alike (halos may differ)."""
    shape, source, source_offset = storage_walk(part, part.type.shape)
    _, result, result_offset = storage_walk(whole, part.type.shape)
    target = region(whole, axis, start)
    copy_strided(
        ctx,
        node,
        shape,
        part.ref,
        source,
        target,
        result,
        part.type.dtype,
        source_offset=source_offset,
        result_offset=result_offset,
    )


def channel_runs(n: int, source: int, result: int, block: int) -> Iterator[tuple[int, int, int, int]]:
    """(first channel, blocks, lanes, step): runs of equally placed lanes that cover `n` channels moved from `source` to `result`.

    A run takes `lanes` channels from each of `blocks` consecutive blocks, `block` channels apart.
    """
    at = 0
    pieces: list[tuple[int, int]] = []
    while at < n:
        lanes = min(n - at, block - (source + at) % block, block - (result + at) % block)
        pieces.append((at, lanes))
        at += lanes
    while pieces:
        first, lanes = pieces[0]
        run = [p for p in pieces if (p[0] - first) % block == 0 and p[1] == lanes]
        yield first, len(run), lanes, block
        pieces = [p for p in pieces if p not in run]


def copy_channels(
    ctx: LowerContext, node: Node, source: View, source_channel: int, result: View, result_channel: int, extents: Sequence[int]
) -> None:
    """Copy a box of `extents` between two tensors blocked alike, from one channel on to another channel on.

    The other dimensions begin at the views' origins. Padded lanes of the result are not touched.
    """
    layout = source.type.layout
    assert isinstance(layout, Blocked)
    block, itemsize = layout.block, source.type.dtype.itemsize
    n = extents[layout.axis]
    others = [i for i in range(len(extents)) if i != layout.axis]
    for first, blocks, lanes, _ in channel_runs(n, source_channel, result_channel, block):
        refs = []
        for view, channel in ((source, source_channel + first), (result, result_channel + first)):
            at = channel // block * view.strides.block + channel % block + view.strides.origin
            refs.append(view.ref.at(at * itemsize))
        copy_strided(
            ctx,
            node,
            (blocks, *(extents[i] for i in others), lanes),
            refs[0],
            (source.strides.block, *(source.strides.dims[i] for i in others), 1),
            refs[1],
            (result.strides.block, *(result.strides.dims[i] for i in others), 1),
            source.type.dtype,
        )


def clear_tail(ctx: LowerContext, node: Node, view: View) -> None:
    """Zero the padded lanes of a blocked value."""
    layout, s = view.type.layout, view.strides
    assert isinstance(layout, Blocked)
    channels, block = view.type.shape[layout.axis], layout.block
    if channels % block == 0 or view.type.elements == 0:
        return
    others = [i for i in range(view.type.rank) if i != layout.axis]
    at = channels // block * s.block + channels % block + s.origin
    shape = (*(view.type.shape[i] for i in others), block - channels % block)
    strides = (*(s.dims[i] for i in others), 1)
    zero = ctx.pack(np.zeros(1, view.type.dtype.numpy))
    copy_strided(ctx, node, shape, zero, (0,) * len(shape), view.ref, strides, view.type.dtype, result_offset=at)


def fill(ctx: LowerContext, node: Node, view: View, number: np.ndarray) -> None:
    """Set every element of a stored value, the padded lanes too, to one number of its type; the halo is left alone."""
    shape, strides, offset = storage_walk(view, view.type.shape)
    if prod(shape):
        source = ctx.pack(number.reshape(1))
        copy_strided(
            ctx, node, shape, source, (0,) * len(shape), view.ref, strides, view.type.dtype, result_offset=offset
        )  # fmt: skip


def copy_to_port(ctx: LowerContext, port: Port, view: View) -> None:
    """Copy a row-major value to the caller's array of an output port."""
    n = view.type.elements
    if n:
        kernel, geometry = copy((n,), (1,), (1,), view.type.dtype.itemsize)
        ctx.call_for(f"output {port.name}", kernel, geometry, [view.ref, Ref(Space.OUTPUT, port.name)])
