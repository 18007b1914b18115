"""Reduce: over all positions of blocked data, or over any axes of row-major data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernels.pool import global_pool
from sparsec.backends.cpu.kernels.reduce import reduce
from sparsec.backends.cpu.lower.base import LowerContext, Lowering, blocked, channel_axes, lowering, stream_cycles
from sparsec.backends.cpu.lower.copies import fill
from sparsec.compiler.dtypes import DType
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.layout import ROW_MAJOR, Blocked, Layout
from sparsec.compiler.ops.reduce import Reduce
from sparsec.compiler.schedule import LayerSchedule
from sparsec.compiler.target import LayoutOption
from sparsec.compiler.types import TensorType

_GLOBAL = ("sum", "mean", "max", "min")
_IN_ANY_ORDER = ("max", "min")


def reduce_op(node: Node) -> Reduce:
    """The node's attributes."""
    assert isinstance(node.op, Reduce)
    return node.op


def is_global(op: Reduce, x: TensorType, axis: int) -> bool:
    """Whether all dimensions but the first and the channels `axis` are reduced, which the pooling kernel does."""
    return x.rank in (3, 4) and op.over == tuple(i for i in range(1, x.rank) if i != axis) and op.kind in _GLOBAL


def of_everything(op: Reduce, x: TensorType) -> bool:
    """Whether the extreme of a whole tensor is wanted, which is the same in whatever order it is stored."""
    return op.kind in _IN_ANY_ORDER and len(op.over) == x.rank > 0


def as_image(t: TensorType, axis: int, layout: Layout) -> TensorType:
    """The type whose channels are dimension 1, with the same blocked storage."""
    assert isinstance(layout, Blocked)
    others = [n for i, n in enumerate(t.shape) if i != axis]
    return TensorType(t.dtype, (others[0], t.shape[axis], *others[1:]), Blocked(1, layout.block, layout.halo))


@lowering
class LowerReduce(Lowering):
    """Sums, means, extremes and products."""

    op = Reduce

    def legal(self, graph: Graph, node: Node, isa: Isa) -> Sequence[LayoutOption]:
        x, y, op = graph.types[node.inputs[0]], graph.types[node.output], reduce_op(node)
        options = []
        if self._kernel_takes(op, x):
            wide = op.over and op.over[-1] == x.rank - 1 and x.dtype is DType.F32
            options.append(
                LayoutOption((ROW_MAJOR,), (ROW_MAJOR,), stream_cycles(x.nbytes) + x.elements / (isa.lanes if wide else 2))
            )
        if x.dtype is DType.F32 and 0 not in x.shape:
            for a in channel_axes(x):
                if of_everything(op, x) and x.shape[a] % isa.lanes == 0:  # else the last block holds other lanes
                    rows = LayoutOption((blocked(x, a, isa),), (ROW_MAJOR,), stream_cycles(x.nbytes) + x.elements / isa.lanes)
                    options.append(rows)
                b = a if op.keepdims else 1
                if is_global(op, x, a) and b in channel_axes(y):
                    options.append(LayoutOption((blocked(x, a, isa),), (blocked(y, b, isa),), stream_cycles(x.nbytes)))
        return options

    @staticmethod
    def _kernel_takes(op: Reduce, x: TensorType) -> bool:
        try:
            reduce(op.kind, x.dtype, x.shape, op.over)
        except ValueError:  # more loops than it has
            return False
        return True

    def lower(self, ctx: LowerContext, node: Node, layer: LayerSchedule) -> None:
        op, x, y = reduce_op(node), ctx.view(node.inputs[0]), ctx.view(node.output)
        layout = x.type.layout
        if isinstance(layout, Blocked) and of_everything(op, x.type):
            s, others = x.strides, [i for i in range(x.type.rank) if i != layout.axis]
            shape = (x.type.shape[layout.axis] // layout.block, *(x.type.shape[i] for i in others), layout.block)
            strides = (s.block, *(s.dims[i] for i in others), 1)
            over_storage = reduce(op.kind, x.type.dtype, shape, tuple(range(len(shape))), strides)
            ctx.call(node, *over_storage, [x.interior, y.ref])
        elif isinstance(layout, Blocked):
            source = as_image(x.type, layout.axis, layout)
            kept = (*source.shape[:2], *(1,) * (source.rank - 2))
            whole = as_image(y.type, layout.axis, y.type.layout) if op.keepdims else None
            result = whole or TensorType(y.type.dtype, kept, Blocked(1, layout.block))
            over_blocks = global_pool(op.kind, source, result, ctx.isa)
            ctx.call(node, *over_blocks, [x.ref, y.ref])
        elif x.type.elements == 0:
            with np.errstate(all="ignore"):
                fill(ctx, node, y, op.evaluate([np.zeros(x.type.shape, x.type.dtype.numpy)])[0].reshape(-1)[:1])
        else:
            rows = reduce(op.kind, x.type.dtype, x.type.shape, op.over)
            ctx.call(node, *rows, [x.ref, y.ref])
