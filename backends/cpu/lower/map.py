"""Map: elementwise programs, in vectors over channel blocks or row-major with any broadcasting and element types."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernels.elements import ending
from sparsec.backends.cpu.kernels.map_blocked import OPERANDS as BLOCKED_OPERANDS
from sparsec.backends.cpu.kernels.map_blocked import blocked_map
from sparsec.backends.cpu.kernels.map_strided import strided_map
from sparsec.backends.cpu.lower.base import LowerContext, Lowering, blocked, channel_axes, lowering, stream_cycles
from sparsec.backends.cpu.lower.operands import block_array
from sparsec.backends.cpu.program import Ref
from sparsec.backends.cpu.walk import broadcast_strides, row_major_strides
from sparsec.compiler.dtypes import DType
from sparsec.compiler.errors import UnsupportedError
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.layout import ROW_MAJOR, Blocked, Layout
from sparsec.compiler.ops.map import Map
from sparsec.compiler.scalar import Program
from sparsec.compiler.schedule import LayerSchedule
from sparsec.compiler.target import LayoutOption
from sparsec.compiler.types import TensorType


def operand_layout(graph: Graph, value: str, out: TensorType, layout: Blocked) -> tuple[bool, Layout | None]:
    """(can it be read, in which order it is wanted) for an operand of a map whose result is stored as `layout`."""
    t = graph.types[value]
    if t.elements == 1:
        return True, ROW_MAJOR if value not in graph.constants else None
    at = layout.axis - (out.rank - t.rank)
    if at < 0:
        return False, None
    return True, None if value in graph.constants else Blocked(at, layout.block)


def has_vector_form(program: Program, dtypes: Sequence[DType], result: DType) -> bool:
    """Whether operands, result and every step of a program have one."""
    try:
        ending(program, [f"a{i}" for i in range(len(dtypes))], dtypes, result)
    except UnsupportedError:
        return False
    return True


@lowering
class LowerMap(Lowering):
    """Elementwise programs."""

    op = Map

    def overwrites(self, graph: Graph, node: Node) -> Sequence[str]:
        y = graph.types[node.output].dtype
        return [v for v in node.inputs if graph.types[v].dtype is y]

    def legal(self, graph: Graph, node: Node, isa: Isa) -> Sequence[LayoutOption]:
        assert isinstance(node.op, Map)
        y = graph.types[node.output]
        types = [graph.types[v] for v in node.inputs]
        traffic = sum(t.nbytes for t in (*types, y))
        work = y.elements / isa.lanes * max(1, len(node.op.program.steps))
        vectors = has_vector_form(node.op.program, [t.dtype for t in types], y.dtype)
        plain = 1.0 if vectors else isa.lanes / 2
        options = [LayoutOption((ROW_MAJOR,) * len(types), (ROW_MAJOR,), stream_cycles(traffic) + plain * work)]
        if vectors and 0 not in y.shape and len(types) < BLOCKED_OPERANDS:
            for axis in channel_axes(y):
                layout = blocked(y, axis, isa)
                found = [operand_layout(graph, v, y, layout) for v in node.inputs]
                if all(ok for ok, _ in found):
                    options.append(LayoutOption(tuple(want for _, want in found), (layout,), stream_cycles(traffic) + work))
        return options

    def lower(self, ctx: LowerContext, node: Node, layer: LayerSchedule) -> None:
        assert isinstance(node.op, Map)
        y = ctx.view(node.output)
        if 0 in y.type.shape:
            return
        if isinstance(y.type.layout, Blocked):
            refs, types = zip(*(_blocked_operand(ctx, v, y.type, y.type.layout) for v in node.inputs), strict=True)
            kernel, geometry = blocked_map(node.op.program, types, y.type, ctx.isa)
            ctx.call(node, kernel, geometry, [*refs, y.ref])
            return
        views = [ctx.view(v) for v in node.inputs]
        strides = [broadcast_strides(v.type.shape, y.type.shape) for v in views]
        dtypes = [v.type.dtype for v in views]
        flat, wide = strided_map(node.op.program, y.type.shape, dtypes, [*strides, row_major_strides(y.type.shape)])
        ctx.call(node, flat, wide, [*(v.ref for v in views), y.ref])


def _blocked_operand(ctx: LowerContext, value: str, out: TensorType, layout: Blocked) -> tuple[Ref, TensorType]:
    """Address and stored type of an operand; constants are put into the result's blocks here."""
    array = ctx.constant(value)
    t = ctx.graph.types[value]
    if array is None or array.size == 1:
        view = ctx.view(value)
        return view.ref, view.type
    at = layout.axis - (out.rank - t.rank)
    if t.shape[at] == t.elements:
        padded = np.zeros(-(-t.elements // layout.block) * layout.block, array.dtype)
        padded[: t.elements] = array.reshape(-1)
        return ctx.pack(padded), t
    stored = Blocked(at, layout.block)
    return ctx.pack(block_array(array, stored)), t.with_layout(stored)
