"""Convolutions as the planar kernels see them."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernels.dot import row_channels
from sparsec.backends.cpu.lower.conv_views import conv_op, dense_view, full_operands
from sparsec.backends.cpu.lower.narrow import types_of
from sparsec.backends.cpu.lower.operands import padded_lanes
from sparsec.backends.cpu.lower.planar import PlanarLayer, PlanarPlan, Side, has_zeros, plan_planar
from sparsec.backends.cpu.storage import strides_of
from sparsec.compiler.dtypes import DType
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.layout import ROW_MAJOR, Blocked
from sparsec.compiler.types import TensorType


def planar_applies(graph: Graph, node: Node, x: TensorType, y: TensorType, isa: Isa) -> bool:
    """Whether the planar kernels take the node with its input and output stored as `x` and `y` are.

    1. Enough weights are zero.
    2. A blocked tensor has the vector's block; a planar input is read as it is: 1x1, stride 1, no padding.
    3. What is narrower than float32 is several to a lane.
    """
    op, w = conv_op(node), graph.constants[node.inputs[1]]
    pointwise = prod(w.shape[2:]) == 1 and set(op.strides) == {1} and not any(op.pads)
    layouts = all(not isinstance(t.layout, Blocked) or t.layout.block == isa.lanes for t in (x, y))
    dense = x.dtype is DType.F32 or row_channels(x.dtype, isa) > 1
    return has_zeros(w) and layouts and dense and (isinstance(x.layout, Blocked) or pointwise)


def plan_conv(graph: Graph, node: Node, kinds: tuple[str, ...], x: TensorType, y: TensorType, isa: Isa) -> PlanarPlan:
    """The planar plan with input and output stored as `x` and `y` are."""
    op, w = conv_op(node), graph.constants[node.inputs[1]]
    n, oc, oh, ow = y.shape
    full = iter(full_operands(graph, node, kinds))
    like_y = [_side(t if t.layout != ROW_MAJOR or y.layout == ROW_MAJOR else y) for t in full]
    sides = iter(like_y)
    layer = PlanarLayer(
        n=n,
        positions=oh * ow,
        ow=ow,
        oc=oc,
        taps=prod(w.shape[2:]),
        ic=x.shape[1],
        x=_side(x, op.strides),
        y=_side(y),
        extras=tuple(next(sides) if k == "full" else None for k in kinds),
        kinds=kinds,
        epilogue=op.epilogue,
        tail_lanes=padded_lanes(op.epilogue, kinds, oc, isa),
        types=types_of(graph, node, isa),
    )
    return plan_planar(layer, w, dense_view(w, op.groups), isa)


def _side(t: TensorType, strides: Sequence[int] = (1, 1)) -> Side:
    s = strides_of(t)
    if isinstance(t.layout, Blocked):
        return Side(True, s.dims[0], s.block, s.dims[2] * strides[0], s.dims[3] * strides[1])
    return Side(False, s.dims[0], s.dims[1])
