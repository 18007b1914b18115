"""Extra operands of fused programs: of which kind each is, and how it is put where the kernel reads it."""

from __future__ import annotations

import numpy as np

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernels.blocked_epilogue import FULL, lanes_to_keep
from sparsec.backends.cpu.lower.base import LowerContext, View
from sparsec.backends.cpu.program import Ref
from sparsec.backends.cpu.storage import strides_of
from sparsec.compiler.dtypes import DType
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.layout import Blocked, Layout
from sparsec.compiler.scalar import Program
from sparsec.compiler.types import TensorType

_AROUND = {
    DType.U8: (DType.F32, DType.I32, DType.U8, DType.I8),
    DType.BF16: (DType.F32, DType.BF16),
}  # what an epilogue reads, by the type of the data that are multiplied; otherwise float32


def extra_kind(graph: Graph, value: str, out: TensorType, axis: int) -> str | None:
    """`scalar`, `channel` (a constant along `axis`), `full` (a tensor like the output), or None for another broadcast."""
    t = graph.types[value]
    if t.elements == 1:
        return "scalar"
    if t.shape == out.shape:
        return "full"
    lead = out.rank - t.rank
    along = [i + lead for i, n in enumerate(t.shape) if n != 1]
    return "channel" if along == [axis] and value in graph.constants else None


def extra_kinds(graph: Graph, node: Node, first: int, axis: int) -> tuple[str, ...] | None:
    """Kinds of the operands from `first` on, or None when a blocked kernel cannot read one of them."""
    out = graph.types[node.output]
    kinds = [extra_kind(graph, v, out, axis) for v in node.inputs[first:]]
    allowed = _AROUND.get(graph.types[node.inputs[0]].dtype, (DType.F32,))
    if None in kinds or kinds.count("full") > FULL or any(graph.types[v].dtype not in allowed for v in node.inputs[first:]):
        return None
    return tuple(k for k in kinds if k is not None)


def extra_layouts(kinds: tuple[str, ...], layout: Layout) -> tuple[Layout | None, ...]:
    """The layouts in which operands of these kinds are wanted."""
    return tuple(layout if k == "full" else None for k in kinds)


def extra_refs(ctx: LowerContext, node: Node, first: int, kinds: tuple[str, ...], axis: int) -> list[Ref]:
    """Addresses of the extra operands; channel vectors are padded to whole blocks, full constants are stored as the output is."""
    out = ctx.view(node.output).type
    refs = []
    for value, kind in zip(node.inputs[first:], kinds, strict=True):
        array = ctx.constant(value)
        if kind == "channel" and array is not None:
            padded = np.zeros(-(-out.shape[axis] // ctx.isa.lanes) * ctx.isa.lanes, array.dtype)
            padded[: out.shape[axis]] = array.reshape(-1)
            refs.append(ctx.pack(padded))
        elif kind == "full" and array is not None and isinstance(out.layout, Blocked):
            refs.append(ctx.pack(block_array(array, out.layout)))
        else:
            view = ctx.view(value)
            refs.append(view.ref)
    return refs


def full_types(ctx: LowerContext, node: Node, first: int, kinds: tuple[str, ...], axis: int) -> list[TensorType]:
    """Types, layout included, of the full operands in order."""
    out = ctx.view(node.output).type
    layout = out.layout.without_halo() if isinstance(out.layout, Blocked) else out.layout
    return [
        ctx.graph.types[v].with_layout(layout) if v in ctx.graph.constants else ctx.view(v).type
        for v, k in zip(node.inputs[first:], kinds, strict=True)
        if k == "full"
    ]


def blocked_constant(ctx: LowerContext, value: str, layout: Layout) -> View:
    """Where a constant is stored in the order of `layout`, without its halo."""
    if not isinstance(layout, Blocked):
        return ctx.view(value)
    t = ctx.graph.types[value].with_layout(layout.without_halo())
    return View(ctx.pack(block_array(ctx.graph.constants[value], layout)), t, strides_of(t))


def block_array(array: np.ndarray, layout: Blocked) -> np.ndarray:
    """A constant in blocked storage without halo: [C / c][others][c], zero beyond C and between blocks. One vector."""
    moved = np.moveaxis(array, layout.axis, 0)
    blocks = -(-moved.shape[0] // layout.block)
    padded = np.zeros((blocks * layout.block, *moved.shape[1:]), array.dtype)
    padded[: moved.shape[0]] = moved
    planes = np.moveaxis(padded.reshape(blocks, layout.block, *moved.shape[1:]), 1, -1).reshape(blocks, -1)
    gap = layout.without_halo().block_stride(array.shape, array.itemsize) - planes.shape[1]
    return np.ascontiguousarray(np.pad(planes, ((0, 0), (0, gap)))).ravel()


def padded_lanes(program: Program, kinds: tuple[str, ...], channels: int, isa: Isa) -> int:
    """Channels in the last block when the kernel must clear the lanes beyond them, else 0."""
    return lanes_to_keep(program, kinds, channels, isa.lanes)
