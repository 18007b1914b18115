"""What the lowerings of convolutions ask of a node."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparsec.backends.cpu.kernels.panel_pack import expand_groups
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.layout import Blocked
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.types import TensorType

Array = np.ndarray[Any, Any]


def conv_op(node: Node) -> Conv:
    """The node's attributes."""
    assert isinstance(node.op, Conv)
    return node.op


def is_depthwise(graph: Graph, node: Node) -> bool:
    """Whether every channel has its own window and makes one output."""
    w = graph.types[node.inputs[1]]
    return conv_op(node).groups == w.shape[0] and w.shape[1] == 1 and w.shape[0] > 1


def wanted_halo(graph: Graph, node: Node) -> tuple[tuple[int, int], ...]:
    """Zero positions that the windows read around x: (batch, *spatial), exactly as many as are read."""
    op, x, w, y = conv_op(node), graph.types[node.inputs[0]], graph.types[node.inputs[1]], graph.types[node.output]
    halo = [(0, 0)]
    for i in range(len(op.strides)):
        last = (y.shape[2 + i] - 1) * op.strides[i] + (w.shape[2 + i] - 1) * op.dilations[i] - op.pads[i]
        halo.append((op.pads[i], max(0, last - x.shape[2 + i] + 1)))
    return tuple(halo)


def is_fast(graph: Graph, node: Node) -> bool:
    """Whether the vector kernels take the node: two-dimensional, float32, weights known."""
    x = graph.types[node.inputs[0]]
    weights_known = node.inputs[0] not in graph.constants and node.inputs[1] in graph.constants
    return x.dtype.value == "f32" and x.rank == 4 and weights_known


def full_operands(graph: Graph, node: Node, kinds: tuple[str, ...]) -> list[TensorType]:
    """Types of the epilogue's full operands in order, constants as the output is stored."""
    layout = graph.types[node.output].layout
    layout = layout.without_halo() if isinstance(layout, Blocked) else layout
    full = [v for v, k in zip(node.inputs[2:], kinds, strict=True) if k == "full"]
    return [graph.types[v].with_layout(layout) if v in graph.constants else graph.types[v] for v in full]


def dense_view(weights: Array, groups: int) -> Array:
    """[OC, IC / groups, *kernel] as [OC, taps, IC], with zeros between groups."""
    taps_inside = np.moveaxis(weights, 1, -1).reshape(weights.shape[0], -1, weights.shape[1])
    return taps_inside if groups == 1 else expand_groups(taps_inside, groups)
