"""Convolutions as panel kernels see them."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd, prod
from typing import Any

import numpy as np

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernels.dot import row_channels
from sparsec.backends.cpu.kernels.panel_pack import blocked_channels, joined, tap_offsets
from sparsec.backends.cpu.lower.base import View
from sparsec.backends.cpu.lower.conv_views import conv_op
from sparsec.backends.cpu.lower.linear import Dims, Image, Linear
from sparsec.backends.cpu.lower.narrow import types_of
from sparsec.backends.cpu.lower.panel_weights import PanelWeights, run_length
from sparsec.backends.cpu.storage import Strides, strides_of
from sparsec.compiler.axes import DimKind
from sparsec.compiler.dtypes import DType
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.layout import Blocked
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.schedule import Loop
from sparsec.compiler.types import TensorType

Array = np.ndarray[Any, Any]
BYTES = 4  # of a lane
PLANAR_CHANNELS = 4  # up to this many input channels, blocking would read mostly padding


def iteration_dims(graph: Graph, node: Node) -> Dims:
    """The node's iteration dimensions."""
    found = node.op.axes(graph.in_types(node)).dims
    reduced = tuple(Loop(d.name, d.extent) for d in found if d.kind is DimKind.REDUCED and d.extent > 1)
    return Dims("N", "OH", "OW", "OC", reduced)


def row_fours(op: Conv, w: TensorType) -> int:
    """Fours of bytes that a kernel row takes where its taps lie side by side, all channels of one before the next.

    0 where that is no fewer than the taps are, and unless:

    1. Several channels, fewer than a four has, all of them read by every output.
    2. Taps are side by side, and rows are several: what a row's fours read beyond it lies within the tensor.
    """
    if w.rank != 4 or op.groups != 1 or not 1 < w.shape[1] < BYTES or op.dilations[1] != 1 or w.shape[2] < 2:
        return 0
    fours = -(-w.shape[3] * w.shape[1] // BYTES)
    return fours if fours < w.shape[3] else 0


def conv_problem(
    graph: Graph, node: Node, kinds: tuple[str, ...], x: TensorType, y: TensorType, full: Sequence[TensorType], isa: Isa
) -> Linear:
    """The panel kernel's view of a convolution stored as `x`, `y` and `full` say."""
    op, w = conv_op(node), graph.types[node.inputs[1]]
    xs, ys = strides_of(x), strides_of(y)
    n, oc, oh, ow = y.shape
    lanes = x.layout.block  # type: ignore[union-attr]
    types = types_of(graph, node, isa)
    per_row = row_channels(types.data, isa)
    inputs = -(-w.shape[1] // per_row)
    k_run = run_length(inputs, op.groups, max(1, lanes // per_row))
    groups_of = iter(full)
    images = [_image(strides_of(next(groups_of)), isa) if k == "full" else None for k in kinds]
    shared = op.groups == 1
    fours = row_fours(op, w) if lanes < BYTES and types.of_bytes else 0
    channels = -(-inputs // k_run) * k_run
    if not shared:  # a panel that straddles groups reads the inputs of all that it touches
        per = w.shape[0] // op.groups
        channels = int(channels * (1 + (isa.lanes - gcd(per, isa.lanes)) / per))
    taps = w.shape[2] * fours or prod(w.shape[2:])
    pointwise = taps == 1 and set(op.strides) == {1} and not any(op.pads)
    bare = all(not t.layout.halo for t in (x, y, *full))  # type: ignore[union-attr]
    flat = pointwise and bare
    return Linear(
        oc=oc,
        n=1 if flat else n,
        oh=1 if flat else oh,
        ow=n * oh * ow if flat else ow,
        k_run=k_run,
        x_step=op.strides[1] * lanes,
        x=Image(xs.dims[0], xs.block, xs.dims[2] * op.strides[0]),
        y=_image(ys, isa),
        extras=tuple(images),
        kinds=kinds,
        epilogue=op.epilogue,
        shared=shared,
        rows=channels * taps,
        n_runs=channels // k_run * taps,
        lines=channels * taps // max(1, w.shape[3] // op.strides[1]),
        types=types,
    )


def _image(s: Strides, isa: Isa) -> Image:
    return Image(s.dims[0], s.block, s.dims[2])


def panel_weights(weights: Array, op: Conv, x: View, problem: Linear, isa: Isa) -> PanelWeights:
    """The weights [OC, IC / groups, KH, KW] with where a blocked or planar input has its channels and taps."""
    layout, s = x.type.layout, x.strides
    assert isinstance(layout, Blocked)
    if problem.types.of_bytes and layout.block < BYTES:
        return _adjacent(weights, op, x)
    taps_inside = weights.transpose(0, 2, 3, 1).reshape(weights.shape[0], -1, weights.shape[1])
    channels = blocked_channels(x.type.shape[1], layout.block, s.block)
    taps = tap_offsets(weights.shape[2:], op.dilations, op.pads[:2], s.dims[2:])
    per_row = row_channels(problem.types.data, isa)
    filters = joined(taps_inside, per_row) if problem.types.data is not DType.F32 else taps_inside
    block = layout.block // per_row if problem.sparse else 0
    return PanelWeights(filters, op.groups, problem.k_run, channels[::per_row], taps, block)


def _adjacent(weights: Array, op: Conv, x: View) -> PanelWeights:
    """Weights whose taps of a kernel row lie side by side, in fours: each four is a tap of its own.

    Zeros fill the last four of the first row, and the first one of any other: so that no byte beyond the tensor is read.
    """
    oc, ic, kh, kw = weights.shape
    fours, row = -(-kw * ic // BYTES), x.strides.dims[2] * op.dilations[0]
    rows = np.zeros((oc, kh, fours * BYTES), weights.dtype)
    before = fours * BYTES - kw * ic
    flat = weights.transpose(0, 2, 3, 1).reshape(oc, kh, kw * ic)
    rows[:, 0, : kw * ic], rows[:, 1:, before:] = flat[:, 0], flat[:, 1:]
    first = -op.pads[0] * x.strides.dims[2] - op.pads[1] * x.strides.dims[3]
    begin = first + np.arange(kh) * row - np.where(np.arange(kh) > 0, before, 0)
    taps = (begin[:, None] + np.arange(fours) * BYTES).reshape(-1)
    return PanelWeights(joined(rows, BYTES).reshape(oc, kh * fours, 1), 1, 1, np.zeros(1, np.int64), taps)
