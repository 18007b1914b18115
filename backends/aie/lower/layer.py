"""Layers that the array computes: convolutions and products of bytes or bfloat16, read from the graph."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from sparsec.backends.aie.lower.computed import Computed, computed_of
from sparsec.backends.aie.lower.floats import floats_of
from sparsec.backends.aie.lower.geometry import BFLOAT16, BLOCK, BYTE, Element, Window, heads_of, plane
from sparsec.backends.aie.lower.paging import Streams
from sparsec.backends.aie.lower.shifts import Shifts, bytewise, shifts_of
from sparsec.compiler.dtypes import DType
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.map import Map
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.ops.pool import Pool

Array = np.ndarray[Any, Any]
_BYTES = {DType.U8: (0, 255), DType.I8: (-128, 127)}
_MULTIPLIED = (*_BYTES, DType.BF16)
_POOLS = {"max": "maximum", "avg": "mean", "lp": "norm"}


@dataclass(frozen=True)
class ConvLayer:
    """A convolution of bytes, or the `maximum` of windows.

    `weights` int8 [output blocks, 8, input blocks, 8, kernel rows, columns], zeros beyond the channels; for depthwise [blocks,
    8, 1, 1, kernel rows, columns]. `outside` is what it reads around the data, or None where it reads nothing there.
    """

    node: str
    x: str
    y: str
    residual: str | None
    window: Window
    channels: tuple[int, int]
    depthwise: bool
    signed: tuple[bool, bool, bool]  # data, residual, result
    outside: int | None
    weights: Array
    shifts: Shifts
    maximum: bool = False
    wide: bool = False  # results are the int32 sums
    element: Element = BYTE
    groups: int = 1  # of channels, if not depthwise
    terms: int = 0  # products of a sum, where weights hold zeros that only fill up the kernel (0: all)
    first_block: int = 0  # of channels, in the images of its values: a depthwise layer may be made in several parts
    computed: Computed | None = None  # where `weights` are not constant: these are ones where blocks are then

    def macs(self, graph: Graph) -> int:
        """Products of the dense layer."""
        if self.maximum:
            return 0
        if self.computed:
            return self.computed.heads * self.computed.macs
        kernel = self.window.kernel[0] * self.window.kernel[1]
        extent = plane(graph.types[self.y])
        assert extent is not None
        each = 1 if self.depthwise else self.channels[0] // self.groups
        return extent[1] * extent[2] * self.channels[1] * (self.terms or kernel * each)

    def part_of(self, graph: Graph) -> tuple[int, int] | None:
        """The first and last of the node's channels that it makes, if it does not make all."""
        extent = plane(graph.types[self.y])
        assert extent is not None
        first = BLOCK * self.first_block
        return (first, first + self.channels[1] - 1) if self.channels[1] < extent[0] else None

    def part(self, first: int, end: int) -> ConvLayer:
        """Blocks of channels [first, end) of a depthwise layer as a layer of its own."""
        channels = min(self.channels[1], BLOCK * end) - BLOCK * first
        shifts = replace(self.shifts, bias=self.shifts.bias[BLOCK * first : BLOCK * end])
        return replace(
            self,
            channels=(channels, channels),
            weights=self.weights[first:end],
            shifts=shifts,
            first_block=self.first_block + first,
        )

    def heads(self, first: int, end: int) -> ConvLayer:
        """Heads [first, end) of a product of computed tensors as a layer of its own."""
        assert self.computed is not None
        made, channels = self.computed.part(first, end), [n // self.computed.heads for n in self.channels]
        shifts = replace(self.shifts, bias=self.shifts.bias[channels[1] * first : channels[1] * end])
        return replace(
            self,
            channels=(channels[0] * (end - first), channels[1] * (end - first)),
            weights=made.pattern(self.weights.dtype),
            shifts=shifts,
            first_block=self.first_block + made.outer * first,
            computed=made,
        )

    @property
    def values(self) -> tuple[str, ...]:
        """What it reads, and what it makes."""
        found = (self.x, self.residual, self.computed.value if self.computed else None, self.y)
        return tuple(v for v in found if v is not None)

    @property
    def first_source(self) -> int:
        """The first block of channels that it reads."""
        return self.computed.first * self.computed.inner if self.computed else self.first_block

    @property
    def result_size(self) -> int:
        """Bytes of a result."""
        return 4 if self.wide else self.element.bytes

    @property
    def all_blocks(self) -> int:
        """Blocks of weights, with those that are zero."""
        w = self.weights
        return int(w.shape[0] * w.shape[2] * w.shape[4] * w.shape[5])

    @property
    def computed_blocks(self) -> int:
        """Blocks of weights that come out of a computed tensor."""
        return self.computed.heads * self.computed.inner * self.computed.outer if self.computed else 0

    @cached_property
    def _filled(self) -> Array:
        """Which blocks of weights are not zero, bool [output blocks, input blocks, kernel rows, columns]."""
        found: Array = np.asarray(self.weights.any(axis=(1, 3)))
        return found

    @cached_property
    def block_counts(self) -> tuple[int, ...]:
        """Nonzero blocks of weights, by block of output channels."""
        return tuple(int(n) for n in np.count_nonzero(self._filled, axis=(1, 2, 3)))

    def counts(self, parts: int) -> Array:
        """Nonzero blocks of weights, int [output blocks, parts of the input channels]."""
        if parts not in self._counts:
            filled = self._filled
            self._counts[parts] = filled.reshape(filled.shape[0], parts, -1).sum(axis=2)
        return self._counts[parts]

    @cached_property
    def streams(self) -> dict[tuple[int, ...], Streams]:
        """Its chunks by the way they are cut, as far as they are known."""
        return {}

    @cached_property
    def _counts(self) -> dict[int, Array]:
        return {}

    @property
    def output_blocks(self) -> int:
        """Blocks of output channels."""
        return -(-self.channels[1] // BLOCK)

    @property
    def input_blocks(self) -> int:
        """Blocks of input channels."""
        return -(-self.channels[0] // BLOCK)


def layer_of(graph: Graph, node: Node) -> ConvLayer | str:
    """The node as a layer of the array; or why it is none, as a clause."""
    if isinstance(node.op, Conv):
        return conv_layer(graph, node)
    if isinstance(node.op, MatMul):
        return _product_layer(graph, node)
    if isinstance(node.op, Pool):
        return _maximum_layer(graph, node)
    if isinstance(node.op, Map):
        return _bytewise_layer(graph, node)
    return f"{node.op.name} is not computed on the array"


def conv_layer(graph: Graph, node: Node) -> ConvLayer | str:
    """A convolution as a layer of the array; or why it is none, as a clause."""
    op = node.op
    assert isinstance(op, Conv)
    x, w = graph.types[node.inputs[0]], graph.types[node.inputs[1]]
    if x.dtype not in _MULTIPLIED or node.inputs[1] not in graph.constants:
        return "it does not multiply bytes or bfloat16 by constant weights"
    if x.rank != 4 or x.shape[0] != 1:
        return f"its data {list(x.shape)} are not one image"
    if op.strides[0] != op.strides[1] or any(d != 1 for d in op.dilations):
        return f"strides {list(op.strides)} or dilations {list(op.dilations)} differ from one stride without dilation"
    depthwise = op.groups == x.shape[1] == w.shape[0] and op.groups > 1
    if depthwise and x.dtype is DType.BF16:
        return "it multiplies channel by channel, which the array does to bytes only"
    shifts = (floats_of if x.dtype is DType.BF16 else shifts_of)(graph, node)
    if isinstance(shifts, str):
        return shifts
    window = Window((w.shape[2], w.shape[3]), op.strides[0], (op.pads[0], op.pads[1]))
    values = graph.constants[node.inputs[1]]
    weights = _blocked(values if depthwise else _ungrouped(values, op.groups), depthwise)
    made = _layer(graph, node, window, (x.shape[1], w.shape[0]), shifts, weights, op.zero if any(op.pads) else None)
    return made if depthwise else replace(made, groups=op.groups, terms=op.terms)


def _product_layer(graph: Graph, node: Node) -> ConvLayer | str:
    """A product [M, K] x [K, N] as a convolution of M positions and K channels."""
    op = node.op
    assert isinstance(op, MatMul)
    x = graph.types[node.inputs[0]]
    if node.inputs[1] not in graph.constants:
        return _computed_layer(graph, node)
    if x.dtype not in _MULTIPLIED:
        return "it does not multiply bytes or bfloat16 by constant weights"
    w = graph.constants[node.inputs[1]]
    if w.ndim != 2 or op.trans_a or x.rank == 4 or plane(x) is None or heads_of(x) > 1:
        return f"it multiplies {list(x.shape)}{' transposed' if op.trans_a else ''} by {list(w.shape)}, not rows by a matrix"
    shifts = (floats_of if x.dtype is DType.BF16 else shifts_of)(graph, node)
    if isinstance(shifts, str):
        return shifts
    oihw = (w if op.trans_b else w.T)[:, :, None, None]
    return _layer(graph, node, Window(), (oihw.shape[1], oihw.shape[0]), shifts, _blocked(oihw, depthwise=False), None)


def _computed_layer(graph: Graph, node: Node) -> ConvLayer | str:
    """A product of two computed tensors: a convolution of one group for each pair of matrices."""
    found = computed_of(graph, node)
    shifts = found if isinstance(found, str) else floats_of(graph, node)
    if isinstance(found, str) or isinstance(shifts, str):
        return found if isinstance(found, str) else str(shifts)
    bias = np.zeros((found.heads, BLOCK * found.outer), shifts.bias.dtype)
    bias[:, : shifts.bias.size] = shifts.bias
    x, y = plane(graph.types[node.inputs[0]]), plane(graph.types[node.output])
    assert x is not None and y is not None
    weights = found.pattern(DType.BF16.numpy)
    channels = found.heads * found.inner * BLOCK, found.heads * found.outer * BLOCK
    if found.heads == 1:
        channels, bias = (x[0], y[0]), bias[:, : y[0]]
    made = _layer(graph, node, Window(), channels, replace(shifts, bias=bias.reshape(-1)), weights, None)
    return replace(made, computed=found)


def _maximum_layer(graph: Graph, node: Node) -> ConvLayer | str:
    """The greatest bytes of windows. Padding is the least byte, which wins nowhere."""
    op, x = node.op, graph.types[node.inputs[0]]
    assert isinstance(op, Pool)
    if op.kind != "max" or x.dtype not in _BYTES:
        return f"it takes the {_POOLS[op.kind]} of {x.dtype.value}, and the array the maximum of bytes"
    if x.rank != 4 or x.shape[0] != 1:
        return f"its data {list(x.shape)} are not one image"
    if op.strides[0] != op.strides[1] or any(d != 1 for d in op.dilations):
        return f"strides {list(op.strides)} or dilations {list(op.dilations)} differ from one stride without dilation"
    least, _ = _BYTES[x.dtype]
    channels, out = x.shape[1], graph.types[node.output].shape[2:]
    reach = [(o - 1) * op.strides[0] + k - p for o, k, p in zip(out, op.kernel, op.pads, strict=False)]
    outside = any(op.pads) or any(r > size for r, size in zip(reach, x.shape[2:], strict=True))
    start = np.full(-(-channels // BLOCK) * BLOCK, least % 256 * 0x01010101, np.uint32).view(np.int32)  # as a bias: all bytes
    window = Window((op.kernel[0], op.kernel[1]), op.strides[0], (op.pads[0], op.pads[1]))
    weights = _blocked(np.ones((channels, 1, *op.kernel), np.int8), depthwise=True)
    made = _layer(graph, node, window, (channels, channels), Shifts(start, 0), weights, least if outside else None)
    return replace(made, maximum=True)


def _bytewise_layer(graph: Graph, node: Node) -> ConvLayer | str:
    """Bytes scaled, or two of them added: a depthwise product by a power of two, and a residual."""
    found = bytewise(graph, node)
    if isinstance(found, str):
        return found
    x, factor, shifts = found
    channels = graph.types[node.output].shape[1]
    if graph.types[node.output].shape[0] != 1:
        return f"its data {list(graph.types[node.output].shape)} are not one image"
    weights = _blocked(np.full((channels, 1, 1, 1), factor, np.int8), depthwise=True)
    made = _layer(graph, node, Window(), (channels, channels), shifts, weights, None)
    signed = (graph.types[node.inputs[x]].dtype is DType.I8, *made.signed[1:])
    return replace(made, x=node.inputs[x], signed=signed)


def _layer(
    graph: Graph, node: Node, window: Window, channels: tuple[int, int], shifts: Shifts, weights: Array, outside: int | None
) -> ConvLayer:
    residual = node.inputs[shifts.residual] if shifts.residual is not None else None
    signed = [v is not None and graph.types[v].dtype is DType.I8 for v in (node.inputs[0], residual, node.output)]
    return ConvLayer(
        node.name,
        node.inputs[0],
        node.output,
        residual,
        window,
        channels,
        weights.shape[3] == 1,
        (signed[0], signed[1], signed[2]),
        outside,
        weights,
        shifts,
        wide=graph.types[node.output].dtype is DType.I32,
        element=BFLOAT16 if graph.types[node.inputs[0]].dtype is DType.BF16 else BYTE,
    )


def _ungrouped(w: Array, groups: int) -> Array:
    """Weights [OC, IC / groups, ...] as those of one group [OC, IC, ...]: blocks between groups are zeros, which cost nothing."""
    oc, ic, *kernel = w.shape
    whole = np.zeros((groups, oc // groups, groups, ic, *kernel), w.dtype)
    for g in range(groups):
        whole[g, :, g] = w[g * (oc // groups) : (g + 1) * (oc // groups)]
    return whole.reshape(oc, groups * ic, *kernel)


def _blocked(w: Array, depthwise: bool) -> Array:
    oc, ic, kh, kw = w.shape
    inner = 1 if depthwise else BLOCK
    padded = np.zeros((-(-oc // BLOCK) * BLOCK, -(-ic // inner) * inner, kh, kw), w.dtype)
    padded[:oc, :ic] = w
    return padded.reshape(-1, BLOCK, padded.shape[1] // inner, inner, kh, kw)
