"""The layers of an ONNX model that multiply data by constant weights, as quantisation sees them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from sparsec.compiler.exporter.nodes import NodeEditor, attribute

Array = np.ndarray[Any, Any]
PRODUCTS = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class Layer:
    """A layer whose weights can be bytes.

    `weights` are as the node reads them, output channels along `axis`; `bias` [OC] float32 or None is its own bias, or that of
    the Add behind a MatMul (`add`, "" where there is none). `result` is the value with the bias in.
    """

    name: str
    node: onnx.NodeProto
    x: str
    weights: Array
    axis: int
    bias: Array | None
    result: str
    add: onnx.NodeProto | None = None

    @property
    def channels(self) -> int:
        """OC."""
        return int(self.weights.shape[self.axis])


@dataclass(frozen=True)
class Refusal:
    """A layer that stays float, and why."""

    name: str
    why: str


def find_layers(editor: NodeEditor) -> list[Layer | Refusal]:
    """Every Conv, Gemm and MatMul with constant weights, in the model's order; products of two activations are not layers."""
    found: list[Layer | Refusal] = []
    for node in editor.nodes:
        if node.op_type not in PRODUCTS or node.domain not in ("", "ai.onnx"):
            continue
        name = node.name or node.output[0]
        weights = weights_of(editor, node.input[1])
        if weights is None:
            if node.op_type != "MatMul":
                found.append(Refusal(name, f"its weights {node.input[1]!r} are not constant"))
            continue
        made = _layer(editor, node, name, weights)
        found.append(Refusal(name, made) if isinstance(made, str) else made)
    return found


def weights_of(editor: NodeEditor, value: str) -> Array | None:
    """A constant, seen through Transpose and Identity nodes."""
    node = editor.producers.get(value)
    if node is None or node.op_type not in ("Transpose", "Identity"):
        return editor.array(value)
    inner = weights_of(editor, node.input[0])
    if inner is None or node.op_type == "Identity":
        return inner
    return np.ascontiguousarray(np.transpose(inner, attribute(node, "perm", None)))


def _layer(editor: NodeEditor, node: onnx.NodeProto, name: str, weights: Array) -> Layer | str:
    """The layer, or in words why it stays float."""
    if weights.dtype != np.float32:
        return f"its weights are {weights.dtype}, not float32"
    if not np.isfinite(weights).all():
        return "its weights hold NaN or infinity"
    if node.input[0] in editor.tensors:
        return "its data are constant"
    if node.op_type == "MatMul":
        return _matmul(editor, node, name, weights) if weights.ndim == 2 else f"its weights have {weights.ndim} dimensions, not 2"
    axis = 0
    if node.op_type == "Gemm":
        if attribute(node, "transA", 0):
            return "it is a Gemm that transposes its data"
        axis = 0 if attribute(node, "transB", 0) else 1
        weights = (weights * np.float32(attribute(node, "alpha", 1.0))).astype(np.float32)
    bias = None
    if len(node.input) > 2 and node.input[2]:
        bias = _bias(editor.array(node.input[2]), weights.shape[axis])
        if bias is None:
            return f"its bias {node.input[2]!r} is not a constant for each output channel"
        bias = (bias * np.float32(attribute(node, "beta", 1.0) if node.op_type == "Gemm" else 1)).astype(np.float32)
    return Layer(name, node, node.input[0], weights, axis, bias, node.output[0])


def _matmul(editor: NodeEditor, node: onnx.NodeProto, name: str, weights: Array) -> Layer:
    reader = editor.only_reader(node.output[0])
    if reader is not None and reader.op_type == "Add" and reader.input[0] != reader.input[1]:
        other = next(v for v in reader.input if v != node.output[0])
        array = editor.array(other)
        bias = _bias(array, weights.shape[1]) if array is not None and array.ndim == 1 else None
        if bias is not None:
            return Layer(name, node, node.input[0], weights, 1, bias, reader.output[0], reader)
    return Layer(name, node, node.input[0], weights, 1, None, node.output[0])


def _bias(array: Array | None, channels: int) -> Array | None:
    """A constant for each channel, [channels]; None for another."""
    if array is None or array.dtype != np.float32 or not np.isfinite(array).all():
        return None
    if array.size not in (1, channels) or array.shape[-1:] not in ((), (1,), (channels,)):
        return None
    return np.broadcast_to(array.reshape(-1), (channels,)).astype(np.float32)
