"""What a training step updates beside the layers' weights: biases and scales of layers, and those of layer normalisations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsec.backends.systolic.network import Network
from sparsec.backends.systolic.training import dependents
from sparsec.compiler.dtypes import DType
from sparsec.compiler.graph import Node
from sparsec.compiler.ops.layer_norm import LayerNorm

Array = np.ndarray[Any, Any]
Place = tuple[str, int]  # a node and which of its operands


@dataclass(frozen=True)
class VectorState:
    """An operand that is trained, and its momentum, both float32 of the operand's shape."""

    value: Array
    momentum: Array


def first_vectors(network: Network) -> dict[Place, VectorState]:
    """Of the network, with no momenta.

    Every operand is one of its own, even where passes have merged equal constants. Operands of one element (limits of
    activations, say) and of nodes before the first product stay as they are, and so do the masks that products of two computed
    matrices add.
    """
    constants, found = network.graph.constants, dict[Place, VectorState]()
    for node, first in _places(network):
        for i, name in enumerate(node.inputs[first:], first):
            if name in constants and constants[name].size > 1 and constants[name].dtype == DType.F32.numpy:
                found[node.name, i] = VectorState(constants[name], np.zeros_like(constants[name]))
    return found


def _places(network: Network) -> Iterator[tuple[Node, int]]:
    """Nodes with such operands, and the first of them."""
    found = [c.layer for c in network.choices]
    layers, values = {layer.node.name for layer in found if layer.constant}, dependents(network.graph, found)
    for node in network.graph.nodes:
        if node.name in layers:
            yield node, 2
        elif isinstance(node.op, LayerNorm) and node.inputs[0] in values:
            yield node, 1
