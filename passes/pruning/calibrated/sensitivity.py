"""How much a network's outputs depend on each channel inside it, from the weights alone.

With the inputs of every layer taken as uncorrelated, the variance that a disturbance of channel c brings to a layer's result o is
the sum of the squares of w[o, c, :]; going backward from the outputs, that gives every channel its share. Activations and pooling
pass a disturbance on as it is: only how channels of one layer compare is used.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from sparsec.compiler.exporter.nodes import reads, sort_nodes

Array = np.ndarray[Any, Any]
_PASSING = frozenset(
    ["Relu", "LeakyRelu", "PRelu", "Clip", "Sigmoid", "HardSigmoid", "Tanh", "HardSwish", "Elu", "Selu", "Gelu", "Softplus"]
    + ["Identity", "Dropout", "Cast", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Flatten"]
)


class Sensitivity:
    """Squared sensitivities a channel of values of a model: the second dimension of convolutions, the last of products."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        """`proto` is only read, here."""
        self._arrays = {t.name: t for t in proto.graph.initializer}
        self._found: dict[str, Array | None] = {v.name: np.ones(1) for v in proto.graph.output}
        for node in reversed(sort_nodes(proto.graph.node)):
            self._backward(node)

    def of(self, value: str, channels: int) -> Array:
        """[channels], of mean 1; all 1 where what follows is not known."""
        found = _along(self._found.get(value), channels)
        return np.ones(channels) if found is None or not found.any() else found / found.mean()

    def _backward(self, node: onnx.NodeProto) -> None:
        out = self._found.get(node.output[0])
        used = any(o in self._found for o in node.output)
        data = [name for name in reads(node) if name not in self._arrays]
        for name in dict.fromkeys(data):
            part = self._input(node, name, out) if used else np.zeros(1)
            have = self._found.get(name, np.zeros(1))
            self._found[name] = _sum(have, part)

    def _input(self, node: onnx.NodeProto, name: str, out: Array | None) -> Array | None:
        """What one node adds to the sensitivity of an operand; None when that is not known."""
        if out is None or list(node.input).count(name) != 1:
            return None
        if node.op_type in _PASSING and name == node.input[0]:
            return out
        if node.op_type in ("Add", "Sub"):
            return out
        if node.op_type == "BatchNormalization" and name == node.input[0]:
            gamma, variance = self._array(node.input[1]), self._array(node.input[4])
            epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
            along = None if gamma is None or variance is None else _along(out, len(gamma))
            return None if along is None or gamma is None or variance is None else along * gamma**2 / (variance + epsilon)
        if node.op_type in ("Conv", "Gemm", "MatMul") and name == node.input[0]:
            return self._layer(node, out)
        return None

    def _layer(self, node: onnx.NodeProto, out: Array) -> Array | None:
        w = self._array(node.input[1])
        flags = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if w is None or (node.op_type != "Conv" and w.ndim != 2) or flags.get("transA"):
            return None
        if node.op_type != "Conv" and not flags.get("transB"):
            w = w.T
        along = _along(out, w.shape[0])
        if along is None:
            return None
        squares = np.square(w.reshape(*w.shape[:2], -1)).sum(axis=2) * along[:, None]
        return np.asarray(squares.reshape(int(flags.get("group", 1)), -1, w.shape[1]).sum(axis=1).reshape(-1))

    def _array(self, name: str) -> Array | None:
        return numpy_helper.to_array(self._arrays[name]).astype(np.float64) if name in self._arrays else None


def _along(found: Array | None, channels: int) -> Array | None:
    """A sensitivity for `channels` channels: one that Flatten has split up is summed, a single number is that of all."""
    if found is None or (found.size > 1 and found.size % channels):
        return None
    return np.broadcast_to(found, (channels,)) if found.size == 1 else found.reshape(channels, -1).sum(axis=1)


def _sum(a: Array | None, b: Array | None) -> Array | None:
    return None if a is None or b is None or 1 < a.size != b.size > 1 else a + b
