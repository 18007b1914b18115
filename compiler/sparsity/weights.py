"""The weights of a graph's linear layers, seen as filters [OC, taps, IC]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from math import prod

import numpy as np

from sparsec.compiler.dtypes import DType
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.ops.transpose import Transpose
from sparsec.compiler.sparsity.base import Array


class View(Enum):
    """How a layer reads its weights."""

    CONV = "OC,IC,taps"
    KN = "IC,OC"
    NK = "OC,IC"

    def filters(self, w: Array) -> Array:
        """The weights as [OC, taps, IC] (a copy where the order in memory differs)."""
        if self is View.CONV:
            return np.ascontiguousarray(np.moveaxis(w.reshape(*w.shape[:2], -1), 1, 2))
        return np.ascontiguousarray(w.T if self is View.KN else w)[:, None, :]

    def restore(self, filters: Array, shape: Sequence[int]) -> Array:
        """The inverse: weights of `shape`, row-major."""
        if self is View.CONV:
            return np.ascontiguousarray(np.moveaxis(filters, 1, 2)).reshape(tuple(shape))
        return np.ascontiguousarray(filters[:, 0].T if self is View.KN else filters[:, 0])


@dataclass(frozen=True)
class LayerWeights:
    """A constant that Conv or MatMul nodes multiply by, and how it is seen.

    `channels` are those that an output reads (IC of a group). `reason` says why its zeros mean nothing to the kernels (another
    node reads it, or not all read it alike); else "".
    """

    value: str
    view: View
    nodes: tuple[Node, ...]
    channels: int
    reason: str = ""

    @property
    def groups(self) -> int:
        """Groups of the convolution (1 for a product)."""
        op = self.nodes[0].op
        return op.groups if isinstance(op, Conv) else 1

    @property
    def depthwise(self) -> bool:
        """Whether it is a convolution with one input channel a group."""
        return self.groups > 1 and self.channels == 1


def filter_shape(view: View, shape: Sequence[int]) -> tuple[int, int, int]:
    """(OC, taps, IC) of weights of `shape`."""
    if view is View.CONV:
        return shape[0], prod(shape[2:]), shape[1]
    return (shape[1], 1, shape[0]) if view is View.KN else (shape[0], 1, shape[1])


def layer_weights(graph: Graph) -> list[LayerWeights]:
    """The constant weights of all Conv and MatMul nodes in the order of the graph, each constant once.

    A Transpose between constant and MatMul is seen through, as exporters leave them there.
    """
    found: dict[str, list[tuple[View, Node, Node]]] = {}
    for node in graph.nodes:
        if isinstance(node.op, Conv | MatMul):
            value, view, reader = _source(graph, node)
            if value in graph.constants and _weights(graph.types[value].dtype) and graph.types[value].elements:
                found.setdefault(value, []).append((view, node, reader))
    return [_layer(graph, value, uses) for value, uses in found.items()]


def _weights(dtype: DType) -> bool:
    """Whether constants of a type are weights of a layer: real numbers, or what products of bytes multiply by."""
    return dtype.is_float or dtype is DType.I8


def _source(graph: Graph, node: Node) -> tuple[str, View, Node]:
    """The value that holds a layer's weights, how it is seen, and the node that reads it."""
    value, reader = node.inputs[1], node
    if not isinstance(node.op, MatMul):
        return value, View.CONV, reader
    flipped = node.op.trans_b
    while (producer := graph.producers.get(value)) is not None and isinstance(producer.op, Transpose):
        if producer.op.perm != (1, 0):
            break
        value, reader, flipped = producer.inputs[0], producer, not flipped
    return value, View.NK if flipped else View.KN, reader


def _layer(graph: Graph, value: str, uses: Sequence[tuple[View, Node, Node]]) -> LayerWeights:
    view = uses[0][0]
    nodes = tuple(n for _, n, _ in uses)
    others = [n for n in graph.users[value] if all(n is not reader for _, _, reader in uses)]
    shape = graph.types[value].shape
    reason = ""
    if others:
        reason = f"{others[0].op.name} node {others[0].name!r} reads the same weights"
    elif value in graph.output_values:
        reason = "its weights leave the graph"
    elif len({(v, n.op.groups if isinstance(n.op, Conv) else 1) for v, n, _ in uses}) > 1:
        reason = "layers that share its weights read them in different ways"
    elif view is not View.CONV and len(shape) != 2:
        reason = f"its weights have rank {len(shape)}: products with a batch of matrices are dense"
    elif any(n.inputs[0] == n.inputs[1] or n.inputs[0] == value for n in nodes):
        reason = "its data and its weights are one value"
    return LayerWeights(value, view, nodes, filter_shape(view, shape)[2] if len(shape) > 1 else 0, reason)
