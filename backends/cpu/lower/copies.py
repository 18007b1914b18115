"""Plain copies that several lowerings need: whole values, strided blocks, regions of a stored tensor, outputs of the graph."""

from __future__ import annotations

from collections.abc import Sequence

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


def copy_to_port(ctx: LowerContext, port: Port, view: View) -> None:
    """Copy a row-major value to the caller's array of an output port."""
    n = view.type.elements
    if n:
        kernel, geometry = copy((n,), (1,), (1,), view.type.dtype.itemsize)
        ctx.call_for(f"output {port.name}", kernel, geometry, [view.ref, Ref(Space.OUTPUT, port.name)])
