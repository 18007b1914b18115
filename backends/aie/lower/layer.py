"""Layers that the array computes: convolutions and products of bytes or bfloat16, read from the graph."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from sparsec.backends.aie.core.sparse_b import GROUP, KEPT
from sparsec.backends.aie.lower.computed import Computed, computed_of
from sparsec.backends.aie.lower.floats import divided, floats_of
from sparsec.backends.aie.lower.geometry import BFLOAT16, BLOCK, BYTE, Element, Thinned, Window, heads_of, plane
from sparsec.backends.aie.lower.page_sizes import Streams
from sparsec.backends.aie.lower.scaling import scaled_bytes, scaled_of
from sparsec.backends.aie.lower.shifts import Shifts, bytewise, shifts_of
from sparsec.compiler.dtypes import DType
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.map import Map
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.ops.pool import Pool
from sparsec.compiler.ops.reduce import Reduce
from sparsec.passes.byte_means import refusal
from sparsec.passes.common.windows import mean_windows

Array = np.ndarray[Any, Any]
_BYTES = {DType.U8: (0, 255), DType.I8: (-128, 127)}
_LEAST = {dtype: low for dtype, (low, _) in _BYTES.items()} | {DType.BF16: 0xFF80}  # minus infinity
_MULTIPLIED = (*_BYTES, DType.BF16)


@dataclass(frozen=True)
class ConvLayer:
    """A convolution of bytes, or the `maximum` of windows.

    `weights` int8 [output blocks, 8, input blocks, 8, kernel rows, columns], zeros beyond the channels; for depthwise [blocks,
    8, summands of a weight, 1, kernel rows, columns]. `outside` is what it reads around the data, or None where it reads nothing
    there; minus infinity of bfloat16 as its bits.
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
    first_block: int = 0  # of output channels, in the image of results: a layer may be made in several parts
    fan: int = 1  # parts of channels, each as large as it says, that take places of parts of the positions
    thinned: Thinned | None = None  # what leaves for DDR in place of all results
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
        made = extent[0] if self.apart else self.fan * self.channels[1]
        return extent[1] * extent[2] * made * (self.terms or kernel * each)

    def part_of(self, graph: Graph) -> tuple[int, int] | None:
        """The first and last of the node's channels that it makes, if it does not make all."""
        extent = plane(graph.types[self.y])
        assert extent is not None
        first = BLOCK * self.first_block
        made = extent[0] if self.apart else self.fan * self.channels[1]
        return (first, first + made - 1) if made < extent[0] else None

    def part(self, first: int, end: int) -> ConvLayer:
        """Blocks of output channels [first, end) as a layer of their own; of a depthwise one, which reads only these."""
        channels = min(self.channels[1], BLOCK * end) - BLOCK * first
        shifts = replace(self.shifts, bias=self.shifts.bias[BLOCK * first : BLOCK * end])
        return replace(
            self,
            channels=(channels if self.depthwise else self.channels[0], channels),
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
        found = (self.x, self.residual, self.computed.value if self.computed else None)
        return (*(v for v in found if v is not None), *self.made)

    @property
    def made(self) -> tuple[str, ...]:
        """What it makes."""
        return (self.y, self.thinned.value) if self.thinned else (self.y,)

    def share_left(self, *, all_leave: bool) -> float:
        """The share of its results that goes to DDR, where all of them do beside what is thinned out, or none."""
        return float(all_leave) + (self.thinned.share if self.thinned else 0.0)

    @property
    def left(self) -> str:
        """What leaves for DDR, if anything does."""
        return self.made[-1]

    @property
    def first_source(self) -> int:
        """The first block of channels that it reads."""
        if self.computed:
            return self.computed.first * self.computed.inner
        return self.first_block if self.depthwise else 0

    @property
    def alike(self) -> int:
        """Whole blocks of channels that have the same weights and biases, so that one may stand for another; 0: not all do."""
        blocks = self.channels[1] // BLOCK if self.depthwise else 0
        w, bias = self.weights[:blocks], self.shifts.bias[: BLOCK * blocks]
        return blocks if (w == self.weights[0, 0]).all() and (bias == self.shifts.bias[0]).all() else 0

    def fanned(self, count: int, each: int) -> ConvLayer:
        """The first blocks of channels, which are alike: `count` parts of `each` so many."""
        return replace(self.part(0, each), fan=count)

    def fanned_apart(self, count: int) -> ConvLayer:
        """All of its channels in `count` parts of one size, each with weights of its own; the last ones may overlap."""
        channels = BLOCK * -(-self.output_blocks // count)
        return replace(self, channels=(channels, channels), fan=count)

    @property
    def apart(self) -> bool:
        """Whether parts of the channels that take places of parts of the positions have weights of their own."""
        return self.fan > 1 and len(self.weights) > self.output_blocks

    def fan_block(self, part: int) -> int:
        """The first block of a part of the channels that takes places of parts of the positions."""
        first = part * self.output_blocks
        return min(first, len(self.weights) - self.output_blocks) if self.apart else first

    @property
    def made_blocks(self) -> int:
        """Blocks of output channels, of all parts that take places of parts of the positions."""
        return len(self.weights) if self.apart else self.fan * self.output_blocks

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

    @cached_property
    def two_of_four(self) -> bool:
        """Whether the array multiplies sparse operands of it: bytes, an even number of input blocks, and of every four
        consecutive input channels of a position and an output channel at most two that are not zero."""
        w = self.weights
        if self.depthwise or self.maximum or self.element is not BYTE or self.input_blocks % 2:
            return False
        groups = w.reshape(*w.shape[:3], BLOCK // GROUP, GROUP, *w.shape[4:])
        return bool(np.count_nonzero(groups, axis=4).max(initial=0) <= KEPT)

    def sparse_counts(self, parts: int, channel_parts: int) -> Array:
        """Sparse operands that are not zero, int [pairs of output blocks, parts of the input channels].

        The pairs of a core are two of its blocks that follow one another, `channel_parts` apart; they take turns as blocks do.
        """
        if (parts, channel_parts) not in self._sparse_counts:
            outputs, inputs, *kernel = self._filled.shape
            pairs = self._filled.reshape(-1, 2, channel_parts, inputs // 2, 2, *kernel).any(axis=(1, 4))
            self._sparse_counts[parts, channel_parts] = pairs.reshape(outputs // 2, parts, -1).sum(axis=2)
        return self._sparse_counts[parts, channel_parts]

    @cached_property
    def _sparse_counts(self) -> dict[tuple[int, int], Array]:
        return {}

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

    @cached_property
    def output_blocks(self) -> int:
        """Blocks of output channels."""
        return -(-self.channels[1] // BLOCK)

    @cached_property
    def input_blocks(self) -> int:
        """Blocks of input channels."""
        return -(-self.channels[0] // BLOCK)


def layer_of(graph: Graph, node: Node) -> ConvLayer | str:
    """The node as a layer of the array; or why it is none, as a clause."""
    if isinstance(node.op, Conv):
        return conv_layer(graph, node)
    if isinstance(node.op, MatMul):
        return _product_layer(graph, node)
    if isinstance(node.op, Pool | Reduce) and node.op.kind in ("avg", "mean"):
        windows = mean_windows(node, graph.types[node.inputs[0]].shape)
        floats = f"it {windows}" if isinstance(windows, str) else "it takes a mean of floats, and the array of bytes and bfloat16"
        return refusal(graph, node) or floats
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
    shifts = (floats_of if x.dtype is DType.BF16 else shifts_of)(graph, node)
    if isinstance(shifts, str) and depthwise and x.dtype in _BYTES:
        scaled = scaled_of(graph, node)
        shifts = scaled if isinstance(scaled, Shifts) or (graph.constants[node.inputs[1]] == 1).all() else shifts
    if isinstance(shifts, str):
        return shifts
    window = Window((w.shape[2], w.shape[3]), op.strides[0], (op.pads[0], op.pads[1]))
    values = graph.constants[node.inputs[1]]
    weights = _blocked(values if depthwise else _ungrouped(values, op.groups), depthwise)
    if shifts.divisor != 1:
        weights = divided(weights, shifts.divisor)
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
    """The greatest elements of windows. Padding is the least one, which wins nowhere."""
    op, x = node.op, graph.types[node.inputs[0]]
    assert isinstance(op, Pool)
    if op.kind != "max" or x.dtype not in _LEAST:
        told = "maximum" if op.kind == "max" else "norm"
        return f"it takes the {told} of {x.dtype.value}, and the array the maximum of bytes or bfloat16"
    if x.rank != 4 or x.shape[0] != 1:
        return f"its data {list(x.shape)} are not one image"
    if op.strides[0] != op.strides[1] or any(d != 1 for d in op.dilations):
        return f"strides {list(op.strides)} or dilations {list(op.dilations)} differ from one stride without dilation"
    least = _LEAST[x.dtype]
    channels, out = x.shape[1], graph.types[node.output].shape[2:]
    reach = [(o - 1) * op.strides[0] + k - p for o, k, p in zip(out, op.kernel, op.pads, strict=False)]
    outside = any(op.pads) or any(r > size for r, size in zip(reach, x.shape[2:], strict=True))
    word = least * 0x00010001 if x.dtype is DType.BF16 else least % 256 * 0x01010101
    start = np.full(-(-channels // BLOCK) * BLOCK, word, np.uint32).view(np.int32)  # as a bias: in all lanes
    window = Window((op.kernel[0], op.kernel[1]), op.strides[0], (op.pads[0], op.pads[1]))
    weights = _blocked(np.ones((channels, 1, *op.kernel), np.int8 if x.dtype in _BYTES else x.dtype.numpy), depthwise=True)
    made = _layer(graph, node, window, (channels, channels), Shifts(start, 0), weights, least if outside else None)
    return replace(made, maximum=True)


def _bytewise_layer(graph: Graph, node: Node) -> ConvLayer | str:
    """Bytes scaled, or two of them added: a depthwise product by a power of two, and a residual."""
    found = bytewise(graph, node)
    if isinstance(found, str):
        scaled = scaled_bytes(graph, node)
        found = found if isinstance(scaled, str) else (0, 1, scaled)
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
