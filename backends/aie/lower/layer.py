"""Layers that the array computes: convolutions and products of bytes, read from the graph."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sparsec.backends.aie.lower.geometry import BLOCK, Window
from sparsec.backends.aie.lower.shifts import Shifts, shifts_of
from sparsec.compiler.dtypes import DType
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.ops.conv import Conv

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class ConvLayer:
    """A convolution of bytes. `weights` int8 [output blocks, 8, input blocks, 8, kernel rows, columns], zeros beyond the
    channels; for depthwise [blocks, 8, 1, 1, kernel rows, columns]."""

    node: str
    x: str
    y: str
    residual: str | None
    window: Window
    channels: tuple[int, int]
    depthwise: bool
    signed: tuple[bool, bool, bool]  # data, residual, result
    zero: int
    weights: Array
    shifts: Shifts

    def macs(self, graph: Graph) -> int:
        """Products of the dense layer."""
        _, _, rows, columns = graph.types[self.y].shape
        kernel = self.window.kernel[0] * self.window.kernel[1]
        return rows * columns * self.channels[1] * kernel * (1 if self.depthwise else self.channels[0])

    @property
    def all_blocks(self) -> int:
        """Blocks of weights, with those that are zero."""
        w = self.weights
        return int(w.shape[0] * w.shape[2] * w.shape[4] * w.shape[5])

    @cached_property
    def _filled(self) -> Array:
        """Which blocks of weights are not zero, bool [output blocks, input blocks, kernel rows, columns]."""
        found: Array = self.weights.any(axis=(1, 3))
        return found

    @cached_property
    def block_counts(self) -> tuple[int, ...]:
        """Nonzero blocks of weights, by block of output channels."""
        return tuple(int(n) for n in np.count_nonzero(self._filled, axis=(1, 2, 3)))

    def counts(self, parts: int) -> Array:
        """Nonzero blocks of weights, int [output blocks, parts of the input channels]."""
        filled = self._filled
        found: Array = filled.reshape(filled.shape[0], parts, -1).sum(axis=2)
        return found

    @property
    def output_blocks(self) -> int:
        """Blocks of output channels."""
        return -(-self.channels[1] // BLOCK)

    @property
    def input_blocks(self) -> int:
        """Blocks of input channels."""
        return -(-self.channels[0] // BLOCK)


def conv_layer(graph: Graph, node: Node) -> ConvLayer | str:
    """The node as a layer of the array; or why it is none, as a clause."""
    op = node.op
    if not isinstance(op, Conv):
        return f"{op.name} is not computed on the array"
    x, w = graph.types[node.inputs[0]], graph.types[node.inputs[1]]
    if x.dtype not in (DType.U8, DType.I8) or node.inputs[1] not in graph.constants:
        return "it does not multiply bytes by constant weights"
    if x.rank != 4 or x.shape[0] != 1:
        return f"its data {list(x.shape)} are not one image"
    if op.strides[0] != op.strides[1] or any(d != 1 for d in op.dilations):
        return f"strides {list(op.strides)} or dilations {list(op.dilations)} differ from one stride without dilation"
    depthwise = op.groups == x.shape[1] == w.shape[0] and op.groups > 1
    if op.groups != 1 and not depthwise:
        return f"its {op.groups} groups are neither one nor as many as channels"
    shifts = shifts_of(graph, node)
    if isinstance(shifts, str):
        return shifts
    residual = node.inputs[shifts.residual] if shifts.residual is not None else None
    signed = [v is not None and graph.types[v].dtype is DType.I8 for v in (node.inputs[0], residual, node.output)]
    kernel = (w.shape[2], w.shape[3])
    return ConvLayer(
        node.name,
        node.inputs[0],
        node.output,
        residual,
        Window(kernel, op.strides[0], (op.pads[0], op.pads[1])),
        (x.shape[1], w.shape[0]),
        depthwise,
        (signed[0], signed[1], signed[2]),
        op.zero,
        _blocked(graph.constants[node.inputs[1]], depthwise),
        shifts,
    )


def _blocked(w: Array, depthwise: bool) -> Array:
    oc, ic, kh, kw = w.shape
    inner = 1 if depthwise else BLOCK
    padded = np.zeros((-(-oc // BLOCK) * BLOCK, -(-ic // inner) * inner, kh, kw), np.int8)
    padded[:oc, :ic] = w
    return padded.reshape(-1, BLOCK, padded.shape[1] // inner, inner, kh, kw)
