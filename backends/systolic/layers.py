"""The products of a graph: every convolution and matrix product that an array can take."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from sparsec.backends.systolic.gemm import Gemm
from sparsec.backends.systolic.isa import Number, Output, Windows
from sparsec.compiler.dtypes import DType
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.ops.base import Op
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.matmul import MatMul

Array = np.ndarray[Any, Any]
MAX_JOINED = 1 << 25  # elements of a block-diagonal W
_NUMBERS = {DType.F32: Number.F32, DType.I8: Number.I8, DType.U8: Number.U8}


@dataclass(frozen=True)
class Arrangement:
    """Where a value's elements are in W[M, K] of its products: as `view`, with its axes in `order`, the value is
    [products, M, K], the last of which may be several axes."""

    view: tuple[int, ...]
    order: tuple[int, ...]

    def matrices(self, value: Array) -> Array:
        """[products, M, K] of a value."""
        turned = value.reshape(self.view).transpose(self.order)
        return np.ascontiguousarray(turned).reshape(*turned.shape[:2], -1)

    def value(self, matrices: Array, shape: tuple[int, ...]) -> Array:
        """The value, of `shape`, of [products, M, K]."""
        turned = matrices.reshape([self.view[axis] for axis in self.order])
        return np.ascontiguousarray(turned.transpose(np.argsort(self.order))).reshape(shape)


@dataclass(frozen=True)
class Layer:
    """The products of one node, all of one shape: one a group of a convolution, or a matrix of a batch.

    `data` is the value that the data memory holds. `weights` is the value that W is of, as `arrangement` says. When it is not
    `constant`, it is known when the network runs, and until then W stands for dense weights. `joined`: the groups of a
    convolution as one product with the groups' weights on the diagonal of W, for dataflows that leave its zeros out.
    """

    node: Node
    data: str
    weights: str
    arrangement: Arrangement
    gemms: tuple[Gemm, ...]
    constant: bool
    joined: Gemm | None = None

    @property
    def macs(self) -> int:
        """Multiplications of the dense computation."""
        return sum(g.m * g.k * g.n for g in self.gemms)

    def bound(self, weights: Array) -> Layer:
        """With `weights` as the value that W is of."""
        matrices = self.arrangement.matrices(weights)
        gemms = tuple(replace(g, w=w) for g, w in zip(self.gemms, matrices, strict=True))
        return replace(self, gemms=gemms, joined=_joined(self.node.op, gemms))


def network_layers(graph: Graph) -> tuple[tuple[Layer, ...], dict[str, str]]:
    """The layers in the order of the graph, and why every other node that multiplies stays with the host."""
    found, left = list[Layer](), dict[str, str]()
    for node in graph.nodes:
        if not node.op.macs(graph.in_types(node)):
            continue
        layer = _layer(graph, node)
        if isinstance(layer, Layer):
            found.append(layer)
        else:
            left[node.name] = layer
    return tuple(found), left


def _layer(graph: Graph, node: Node) -> Layer | str:
    if not isinstance(node.op, Conv | MatMul):
        return f"{node.op.name} is no single product"
    types = [graph.types[v] for v in node.inputs[:2]]
    pair = tuple(t.dtype for t in types)
    if pair not in ((DType.F32, DType.F32), (DType.I8, DType.I8), (DType.U8, DType.I8)):
        return f"PEs multiply float32, or 8-bit data by int8 weights, not {pair[0].value} by {pair[1].value}"
    placed = _conv(graph, node, node.op) if isinstance(node.op, Conv) else _matmul(graph, node, node.op)
    if isinstance(placed, str):
        return placed
    m, k, places = placed
    constant = node.inputs[1] in graph.constants
    dense = np.broadcast_to(np.ones((), types[1].dtype.numpy), (m, k))
    number, zero = _NUMBERS[types[0].dtype], node.op.zero
    gemms = tuple(Gemm(node.name, dense, windows, output, number, zero) for windows, output in places)
    arrangement = _arrangement(node.op, types[1].shape, len(gemms))
    layer = Layer(node, node.inputs[0], node.inputs[1], arrangement, gemms, constant)
    return layer.bound(graph.constants[layer.weights]) if constant else layer


def _joined(op: Op, gemms: tuple[Gemm, ...]) -> Gemm | None:
    """All groups' products as one; None where there is one group, or where W would be too large."""
    first, groups = gemms[0], len(gemms)
    if not isinstance(op, Conv) or groups == 1 or groups**2 * first.w.size > MAX_JOINED:
        return None
    channels, taps = first.windows.channels, first.k // first.windows.channels
    w = np.zeros((groups, first.m, taps, groups, channels), first.w.dtype)
    each = np.arange(groups)
    w[each, :, :, each] = np.stack([g.w.reshape(first.m, taps, channels) for g in gemms])
    windows = replace(first.windows, channels=groups * channels)
    return replace(first, w=w.reshape(groups * first.m, -1), windows=windows)


def parted(joined: Array, groups: int, channels: int) -> Array:
    """W [groups, M, K] of the groups, each of `channels`, out of their block-diagonal W."""
    each, rows = np.arange(groups), len(joined) // groups
    blocks = joined.reshape(groups, rows, -1, groups, channels)[each, :, :, each]
    return np.ascontiguousarray(blocks).reshape(groups, rows, -1)


_Placed = tuple[int, int, list[tuple[Windows, Output]]]


def _conv(graph: Graph, node: Node, op: Conv) -> _Placed | str:
    """M, K, and where data and results of every group are."""
    x, w = (graph.types[v].shape for v in node.inputs[:2])
    y = op.infer(graph.in_types(node))[0].shape
    if len(x) != 4:
        return f"im2col of {len(x) - 2} spatial dimensions is not done on the fly"
    channels, rows = w[1], w[0] // op.groups
    area, positions = x[2] * x[3], y[2] * y[3]
    places = []
    for g in range(op.groups):
        base, image = g * channels * area, x[1] * area
        windows = Windows(
            *(base, x[0], channels, x[2], x[3], image, area, x[3], 1),
            *(w[2], w[3], *op.strides, *op.dilations, *op.pads[:2], y[2], y[3]),
        )
        places.append((windows, Output(g * rows * positions, positions, 1, positions, w[0] * positions)))
    return rows, channels * w[2] * w[3], places


def _matmul(graph: Graph, node: Node, op: MatMul) -> _Placed | str:
    """M (columns of the right operand), K, and where data and results of every matrix of the right operand are."""
    a, b = (graph.types[v].shape for v in node.inputs[:2])
    y = op.infer(graph.in_types(node))[0].shape
    k, m = a[-2 if op.trans_a else -1], y[-1]
    down, across = (a[-1], 1) if op.trans_a else (1, k)
    rows, outer = y[-2], prod(a[:-2])
    if len(b) == 2 or prod(b[:-2]) == 1:  # one matrix for all
        if outer > 1 and not op.trans_a:
            rows, outer = rows * outer, 1
        windows = Windows(0, outer, k, 1, rows, k * rows, down, 0, across, *(1,) * 6, 0, 0, 1, rows)
        return m, k, [(windows, Output(0, 1, m, rows, rows * m))]
    if a[:-2] != b[:-2]:
        return f"batches of {list(a)} and {list(b)} are not matched one to one"
    places = []
    for i in range(outer):
        windows = Windows(i * k * rows, 1, k, 1, rows, 0, down, 0, across, *(1,) * 6, 0, 0, 1, rows)
        places.append((windows, Output(i * rows * m, 1, m, rows, 0)))
    return m, k, places


def _arrangement(op: Conv | MatMul, shape: tuple[int, ...], count: int) -> Arrangement:
    """Of the right operand; K of a convolution is tap by tap."""
    if isinstance(op, Conv):
        return Arrangement((count, shape[0] // count, shape[1], prod(shape[2:])), (0, 1, 3, 2))
    return Arrangement((count, *shape[-2:]), (0, 1, 2) if op.trans_b else (0, 2, 1))
