"""Resize: images by both their tables at once, any other data one axis at a time, nearest neighbours of any type by copies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernels.index_copy import index_copy
from sparsec.backends.cpu.kernels.lines import Interpolate, line_geometry
from sparsec.backends.cpu.kernels.resize import resize
from sparsec.backends.cpu.lower.base import Array, LowerContext, Lowering, blocked, channel_axes, lowering, stream_cycles
from sparsec.backends.cpu.lower.copies import copy_bytes
from sparsec.backends.cpu.lower.reduce import as_image
from sparsec.backends.cpu.program import Ref
from sparsec.compiler.dtypes import DType
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.layout import ROW_MAJOR, Blocked
from sparsec.compiler.ops.resize import Resize
from sparsec.compiler.schedule import LayerSchedule
from sparsec.compiler.target import LayoutOption
from sparsec.compiler.types import TensorType


def resize_op(node: Node) -> Resize:
    """The node's attributes."""
    assert isinstance(node.op, Resize)
    return node.op


def is_image(op: Resize, x: TensorType, axis: int) -> bool:
    """Whether only the two dimensions after the batch, channels `axis` apart, change, and nothing is extrapolated."""
    spatial = [i for i in range(1, x.rank) if i != axis]
    return x.rank == 4 and op.coordinates != "tf_crop_and_resize" and set(op.resized(x.shape)) <= set(spatial)


@lowering
class LowerResize(Lowering):
    """Interpolation."""

    op = Resize

    def legal(self, graph: Graph, node: Node, isa: Isa) -> Sequence[LayoutOption]:
        x, y, op = graph.types[node.inputs[0]], graph.types[node.output], resize_op(node)
        taps = {"nearest": 1, "linear": 2, "cubic": 4}[op.mode]
        cycles = stream_cycles(x.nbytes + 2 * y.nbytes) + 2 * taps * y.elements / isa.lanes
        options = []
        single = len(op.resized(x.shape)) <= 1 and x.dtype is DType.F32
        if single or (x.dtype is DType.F32 and is_image(op, x, 1)) or (op.mode == "nearest" and _by_tables(op, x)):
            options.append(LayoutOption((ROW_MAJOR,), (ROW_MAJOR,), 2 * cycles))
        if x.dtype is DType.F32:
            for a in channel_axes(x):
                if is_image(op, x, a):
                    layout = blocked(x, a, isa)
                    options.append(LayoutOption((layout,), (layout,), cycles))
        return options

    def lower(self, ctx: LowerContext, node: Node, layer: LayerSchedule) -> None:
        op, x, y = resize_op(node), ctx.view(node.inputs[0]), ctx.view(node.output)
        changed = op.resized(x.type.shape)
        layout = x.type.layout
        if isinstance(layout, Blocked):
            spatial = [i for i in range(1, 4) if i != layout.axis]
            source, result = (as_image(t, layout.axis, t.layout) for t in (x.type, y.type))
            _image(ctx, node, source, result, spatial, (x.ref, y.ref))
        elif not changed:
            copy_bytes(ctx, node, x, y)
        elif x.type.dtype is DType.F32 and is_image(op, x.type, 1):
            _image(ctx, node, x.type, y.type, [2, 3], (x.ref, y.ref))
        elif x.type.dtype is DType.F32 and len(changed) == 1:
            index, weight, inside = op.taps(changed[0], x.type.shape[changed[0]])
            index = np.where(inside[:, None], index, -1)
            outside = ctx.pack(np.full(1, op.extrapolation, np.float32))
            geometry = line_geometry(x.type.shape, changed[0], op.sizes[changed[0]])
            operands = [x.ref, ctx.pack(index), ctx.pack(weight), outside, y.ref]
            ctx.call(node, Interpolate(index.shape[1]), geometry, operands)
        else:
            dtype = x.type.dtype
            kernel, copying, table = index_copy(x.type.shape, _nearest(op, x.type), dtype.itemsize)
            outside = ctx.pack(np.full(1, op.extrapolation).astype(dtype.numpy))
            ctx.call(node, kernel, copying, [x.ref, ctx.pack(table), outside, y.ref])


def _nearest(op: Resize, x: TensorType) -> list[Array]:
    """Source positions of every dimension, -1 where the result is extrapolated."""
    changed, positions = op.resized(x.shape), []
    for i, n in enumerate(x.shape):
        index, _, inside = op.taps(i, n) if i in changed else (np.arange(n)[:, None], None, np.ones(n, bool))
        positions.append(np.where(inside, index[:, 0], -1))
    return positions


def _by_tables(op: Resize, x: TensorType) -> bool:
    try:
        index_copy(x.shape, _nearest(op, x), x.dtype.itemsize)
    except ValueError:  # more dimensions than the kernel has
        return False
    return True


def _image(
    ctx: LowerContext, node: Node, x: TensorType, y: TensorType, spatial: Sequence[int], operands: tuple[Ref, Ref]
) -> None:
    """[N, C, H, W] along H and W, which are the dimensions `spatial` of the operator's operand."""
    op = resize_op(node)
    changed = op.resized(ctx.graph.types[node.inputs[0]].shape)
    tables: list[Array] = []
    for axis, n in zip(spatial, x.shape[2:], strict=True):
        if axis in changed:
            index, weight, _ = op.taps(axis, n)
        else:
            index, weight = np.arange(n)[:, None], np.ones((n, 1), np.float32)
        tables += [index.astype(np.int64), weight.astype(np.float32)]
    kernel, geometry = resize(x, y, tables[0].shape[1], tables[2].shape[1], ctx.isa)
    ctx.call(node, kernel, geometry, [operands[0], *map(ctx.pack, tables), operands[1]])
