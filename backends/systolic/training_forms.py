"""A layer's values as matrices of its products, there and back: what its forward pass reads, and what its gradients add up to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from sparsec.backends.systolic.layers import Layer
from sparsec.backends.systolic.windows import Geometry
from sparsec.compiler.graph import Graph
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.matmul import MatMul

Array = np.ndarray[Any, Any]


class Form(Protocol):
    """Of batches: what a layer reads and makes, of every image, along a new first axis."""

    def columns(self, data: Array) -> Array:
        """What the products multiply, [products, K, P]."""

    def spread(self, columns: Array) -> Array:
        """Its transpose: the gradient of the data, of that of the columns."""

    def result(self, sums: Array) -> Array:
        """Sums [products, M, P] as the layer's results."""

    def sums(self, result: Array) -> Array:
        """The inverse."""


@dataclass(frozen=True)
class ConvForm:
    """Of a convolution of `images` [images, groups * channels, height, width]; `geometry` is that of a group."""

    images: int
    groups: int
    geometry: Geometry

    def columns(self, data: Array) -> Array:
        return np.stack([self.geometry.columns(part) for part in self._grouped(data)])

    def spread(self, columns: Array) -> Array:
        high, wide = self.geometry.out
        batch = columns.shape[2] // (high * wide)
        parts = [self.geometry.added(c, batch) for c in columns]
        whole = np.stack(parts, axis=1)
        return whole.reshape(-1, self.images, self.groups * self.geometry.channels, *whole.shape[-2:])

    def result(self, sums: Array) -> Array:
        groups, m, _ = sums.shape
        apart = sums.reshape(groups, m, -1, *self.geometry.out)
        return np.moveaxis(apart, 2, 0).reshape(-1, self.images, groups * m, *self.geometry.out)

    def sums(self, result: Array) -> Array:
        apart = result.reshape(-1, self.groups, result.shape[2] // self.groups, *self.geometry.out)
        return np.moveaxis(apart, 0, 2).reshape(self.groups, result.shape[2] // self.groups, -1)

    def _grouped(self, data: Array) -> list[Array]:
        g = self.geometry
        apart = data.reshape(-1, self.groups, g.channels, g.height, g.width)
        return [apart[:, i] for i in range(self.groups)]


@dataclass(frozen=True)
class MatMulForm:
    """Of a product whose left operand has the shape `data`, transposed in its last two axes if `turned`."""

    products: int
    data: tuple[int, ...]
    out: tuple[int, ...]
    turned: bool

    def columns(self, data: Array) -> Array:
        apart = data.reshape(len(data), self.products, -1, *self.data[-2:])
        rows = np.swapaxes(apart, -1, -2) if self.turned else apart
        k = rows.shape[-1]
        return rows.reshape(len(data), self.products, -1, k).transpose(1, 3, 0, 2).reshape(self.products, k, -1)

    def spread(self, columns: Array) -> Array:
        rows, k = (self.data[-1], self.data[-2]) if self.turned else self.data[-2:]
        batch = columns.size // int(np.prod(self.data))
        apart = columns.reshape(self.products, k, batch, -1).transpose(2, 0, 3, 1).reshape(batch, self.products, -1, rows, k)
        back = np.swapaxes(apart, -1, -2) if self.turned else apart
        return back.reshape(batch, *self.data)

    def result(self, sums: Array) -> Array:
        batch = sums.size // int(np.prod(self.out))
        return sums.reshape(self.products, sums.shape[1], batch, -1).transpose(2, 0, 3, 1).reshape(batch, *self.out)

    def sums(self, result: Array) -> Array:
        m = self.out[-1]
        apart = result.reshape(len(result), self.products, -1, m).transpose(1, 3, 0, 2)
        return apart.reshape(self.products, m, -1)


def form_of(graph: Graph, layer: Layer) -> Form:
    """The form of a layer."""
    op, shape = layer.node.op, graph.types[layer.data].shape
    if isinstance(op, Conv):
        kernel = graph.types[layer.weights].shape[2:]
        geometry = Geometry(
            shape[1] // op.groups,
            shape[2],
            shape[3],
            (kernel[0], kernel[1]),
            (op.strides[0], op.strides[1]),
            (op.dilations[0], op.dilations[1]),
            (op.pads[0], op.pads[1], op.pads[2], op.pads[3]),
        )
        return ConvForm(shape[0], op.groups, geometry)
    assert isinstance(op, MatMul)
    return MatMulForm(len(layer.gemms), shape, graph.types[layer.node.output].shape, op.trans_a)
