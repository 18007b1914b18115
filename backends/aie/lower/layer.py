"""Layers that the array computes: convolutions and products of bytes or bfloat16, and maxima."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from sparsec.backends.aie.core.sparse_b import GROUP, KEPT
from sparsec.backends.aie.lower.computed import Computed
from sparsec.backends.aie.lower.geometry import BLOCK, BYTE, Element, Thinned, Window, plane
from sparsec.backends.aie.lower.page_sizes import Streams
from sparsec.backends.aie.lower.shifts import Shifts
from sparsec.compiler.graph import Graph

Array = np.ndarray[Any, Any]


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
        return extent[1] * extent[2] * self._made_channels(extent[0]) * (self.terms or kernel * each)

    def part_of(self, graph: Graph) -> tuple[int, int] | None:
        """The first and last of the node's channels that it makes, if it does not make all."""
        extent = plane(graph.types[self.y])
        assert extent is not None
        first, made = BLOCK * self.first_block, self._made_channels(extent[0])
        return (first, first + made - 1) if made < extent[0] else None

    def _made_channels(self, every: int) -> int:
        """Output channels that it makes of `every` one of its node: all in parts with weights of their own, which may overlap."""
        return every if self.channelwise else self.fan * self.channels[1]

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

    def fanned_channelwise(self, count: int) -> ConvLayer:
        """All of its channels in `count` parts of one size, each with weights of its own; the last ones may overlap."""
        channels = BLOCK * -(-self.output_blocks // count)
        return replace(self, channels=(channels, channels), fan=count)

    @property
    def channelwise(self) -> bool:
        """Whether parts of the channels that take places of parts of the positions have weights of their own."""
        return self.fan > 1 and len(self.weights) > self.output_blocks

    def fan_block(self, part: int) -> int:
        """The first block of a part of the channels that takes places of parts of the positions."""
        first = part * self.output_blocks
        return min(first, len(self.weights) - self.output_blocks) if self.channelwise else first

    @property
    def made_blocks(self) -> int:
        """Blocks of output channels, of all parts that take places of parts of the positions."""
        return len(self.weights) if self.channelwise else self.fan * self.output_blocks

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
