"""Where layers sit in an ONNX model: what they read, what corrects their results channel by channel, and the sum they go into."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from sparsec.compiler.exporter.nodes import reads
from sparsec.compiler.graph import Node
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.sparsity.weights import LayerWeights

Array = np.ndarray[Any, Any]
_PLAIN = ("Identity", "Transpose")  # between a layer and its weights


@dataclass(frozen=True)
class Bias:
    """What takes a shift of a layer's results: initializer `name`, to which `sign` times the shift is added.

    `node` is the ONNX node that gets a new bias operand where there is none yet (then `name` is its name to be).
    """

    name: str
    sign: float = 1.0
    node: str = ""


@dataclass(frozen=True)
class Site:
    """One use of a layer's weights.

    `source` and `result` are the ONNX names of what the node reads and gives, `own` [OC] the bias that it adds itself. `scale`
    and `shift` [OC] are the constants that follow it (result * scale + shift), up to `end`; where `end` goes into a sum, `total`
    is the sum and `other` its other operand. `rectified`: a Relu alone reads `total`, or `end` without one. `gives`: the model
    gives `end`, or the softmax of it, and nothing else reads it. `bias` is None where nothing after the node can take a shift.
    """

    node: Node
    source: str
    result: str
    own: Array
    scale: Array
    shift: Array
    end: str
    bias: Bias | None
    total: str = ""
    other: str = ""
    rectified: bool = False
    gives: bool = False


class SiteFinder:
    """Finds the sites of layers in the main graph of a model."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        """`proto` is not changed."""
        graph = proto.graph
        self._constants = {t.name: t for t in graph.initializer}
        constants = [n for n in graph.node if n.op_type == "Constant" and n.attribute[0].name == "value"]
        self._constants |= {n.output[0]: n.attribute[0].t for n in constants}
        self.producers = {o: n for n in graph.node for o in n.output if o}
        self._readers: dict[str, list[onnx.NodeProto | None]] = {}
        for node in graph.node:
            for name in dict.fromkeys(reads(node)):
                self._readers.setdefault(name, []).append(node)
        for value in graph.output:
            self._readers.setdefault(value.name, []).append(None)
        self._layers = [n for n in graph.node if n.op_type in ("Conv", "Gemm", "MatMul")]

    def sites(self, layer: LayerWeights, channels: int) -> tuple[Site, ...] | str:
        """All uses of a layer with `channels` outputs; in words, why they cannot be calibrated."""
        nodes = [n for n in self._layers if layer.value in self._chain(n.input[1])]
        if len(nodes) != len(layer.nodes):
            return f"{len(layer.nodes) - len(nodes)} of its {len(layer.nodes)} uses are fused, or inside a function or subgraph"
        found: list[Site] = []
        for node, inner in zip(nodes, layer.nodes, strict=True):
            own = self._own_shift(node, channels)
            if why := _unusual(node) or ("its bias is not a constant a channel" if own is None else ""):
                return why
            assert own is not None
            found.append(self._site(node, inner, own))
        return tuple(found)

    def upstream(self, value: str) -> set[str]:
        """The values that `value` is computed from, itself included."""
        found, stack = {value}, [value]
        while stack:
            node = self.producers.get(stack.pop())
            for name in reads(node) if node is not None else ():
                if name not in found:
                    found.add(name)
                    stack.append(name)
        return found

    def _chain(self, name: str) -> list[str]:
        """A value and those that it is a mere view of."""
        names = [name]
        while (node := self.producers.get(names[-1])) is not None and node.op_type in _PLAIN:
            names.append(node.input[0])
        return names

    def _array(self, name: str) -> Array | None:
        return np.asarray(numpy_helper.to_array(self._constants[name])) if name in self._constants else None

    def _owned(self, name: str) -> bool:
        """Whether an initializer is read once and may be changed."""
        return name in self._constants and len(self._readers[name]) == 1

    def _only_reader(self, value: str) -> onnx.NodeProto | None:
        readers = self._readers.get(value, [])
        return readers[0] if len(readers) == 1 else None

    def _site(self, node: onnx.NodeProto, inner: Node, own: Array) -> Site:
        channels = len(own)
        scale, shift, end = np.ones(channels), np.zeros(channels), node.output[0]
        axis = 1 if isinstance(inner.op, Conv) else -1
        rank = len(inner.op.strides) + 2 if isinstance(inner.op, Conv) else 2 if node.op_type == "Gemm" else 0
        bias = self._own_bias(node, channels)
        while (user := self._only_reader(end)) is not None:
            step = self._affine(user, end, axis, rank, channels)
            if step is None:
                break
            factor, offset, place = step
            if bias is None and place is not None and np.all(scale == 1):
                bias = place
            scale, shift, end = scale * factor, shift * factor + offset, user.output[0]
        if bias is None and node.op_type in ("Conv", "Gemm") and not _bias_of(node):
            bias = Bias(f"{node.output[0]}.bias", node=node.output[0])
        total = other = ""
        if user is not None and user.op_type == "Add" and user.input[0] != user.input[1]:
            other = next(name for name in user.input if name != end)
            total, other = (user.output[0], other) if other not in self._constants else ("", "")
        reader = self._only_reader(total or end)
        rectified = reader is not None and reader.op_type == "Relu"
        return Site(inner, node.input[0], node.output[0], own, scale, shift, end, bias, total, other, rectified, self._given(end))

    def _given(self, end: str) -> bool:
        readers = self._readers.get(end, [])
        softmax = [n for n in readers if n is not None]
        return bool(readers) and all(
            n.op_type in ("Softmax", "LogSoftmax") and self._readers.get(n.output[0]) == [None] for n in softmax
        )

    def _own_shift(self, node: onnx.NodeProto, channels: int) -> Array | None:
        """What the node's own bias adds, [OC]; None where that is not a constant a channel."""
        if not _bias_of(node):
            return np.zeros(channels)
        array = self._array(_bias_of(node))
        return None if array is None else _along(array, -1, 2, channels)

    def _own_bias(self, node: onnx.NodeProto, channels: int) -> Bias | None:
        """The node's own bias operand, where it is stored [channels] and nothing else reads it."""
        name = _bias_of(node)
        return Bias(name) if name and self._owned(name) and np.prod(self._constants[name].dims) == channels else None

    def _affine(
        self, node: onnx.NodeProto, value: str, axis: int, rank: int, channels: int
    ) -> tuple[Array, Array, Bias | None] | None:
        """Scale, shift, and what a shift can go into, where a node does nothing else to `value`."""
        if node.op_type == "Identity":
            return np.ones(channels), np.zeros(channels), None
        if node.op_type == "BatchNormalization" and value == node.input[0] and (axis == 1 or rank == 2):
            arrays = [self._array(name) for name in node.input[1:5]]
            if any(a is None for a in arrays) or len(node.output) > 1 or _attribute(node, "training_mode", 0):
                return None
            gamma, beta, mean, variance = (np.asarray(a, np.float64) for a in arrays)
            factor = gamma / np.sqrt(variance + _attribute(node, "epsilon", 1e-5))
            owned = self._owned(node.input[3])
            return factor, beta - mean * factor, Bias(node.input[3], sign=-1.0) if owned else None
        if node.op_type not in ("Add", "Sub", "Mul", "Div"):
            return None
        return self._elementwise(node, value, axis, rank, channels)

    def _elementwise(
        self, node: onnx.NodeProto, value: str, axis: int, rank: int, channels: int
    ) -> tuple[Array, Array, Bias | None] | None:
        """The same of an arithmetic node with a constant a channel."""
        other = node.input[1] if node.input[0] == value else node.input[0]
        array = self._array(other)
        if array is None or (node.op_type in ("Sub", "Div") and node.input[0] != value):
            return None
        along = _along(array, axis, rank, channels)
        if along is None:
            return None
        one, zero = np.ones(channels), np.zeros(channels)
        if node.op_type in ("Mul", "Div"):
            return (along if node.op_type == "Mul" else 1 / along), zero, None
        sign = 1.0 if node.op_type == "Add" else -1.0
        place = Bias(other, sign=sign) if array.size == channels and self._owned(other) else None
        return one, sign * along, place


def set_bias(proto: onnx.ModelProto, bias: Bias, shift: Array) -> None:
    """Add `shift` [OC] to the results of a layer through what can take it, in place."""
    if bias.node:
        node = next(n for n in proto.graph.node if bias.node in n.output)
        kept = [*node.input, *[""] * (2 - len(node.input))][:2]
        del node.input[:]
        node.input.extend([*kept, bias.name])
        weights = next((t for t in proto.graph.initializer if t.name == kept[1]), None)
        kind = weights.data_type if weights is not None else onnx.TensorProto.FLOAT
        zeros = np.zeros(len(shift), helper.tensor_dtype_to_np_dtype(kind))
        proto.graph.initializer.append(numpy_helper.from_array(zeros, bias.name))
    tensor = _tensor(proto, bias.name)
    old = numpy_helper.to_array(tensor)
    new = (old.astype(np.float64) + bias.sign * shift.reshape(old.shape)).astype(old.dtype)
    tensor.CopyFrom(numpy_helper.from_array(new, bias.name))


def _tensor(proto: onnx.ModelProto, name: str) -> onnx.TensorProto:
    stored: onnx.TensorProto | None = next((t for t in proto.graph.initializer if t.name == name), None)
    if stored is not None:
        return stored
    tensor: onnx.TensorProto = next(n for n in proto.graph.node if name in n.output).attribute[0].t
    return tensor


def _bias_of(node: onnx.NodeProto) -> str:
    """The name of a layer's bias operand, "" without one."""
    return node.input[2] if node.op_type != "MatMul" and len(node.input) > 2 else ""


def _attribute(node: onnx.NodeProto, name: str, default: float) -> float:
    found = next((a for a in node.attribute if a.name == name), None)
    return default if found is None else float(helper.get_attribute_value(found))


def _unusual(node: onnx.NodeProto) -> str:
    """Why a layer's result is not weights times input plus bias; "" when it is."""
    if node.op_type == "Gemm" and (_attribute(node, "alpha", 1) != 1 or _attribute(node, "transA", 0)):
        return "it is a Gemm that scales or transposes its input"
    if node.op_type == "Gemm" and len(node.input) > 2 and node.input[2] and _attribute(node, "beta", 1) != 1:
        return "it is a Gemm that scales its bias"
    return ""


def _along(array: Array, axis: int, rank: int, channels: int) -> Array | None:
    """A constant that differs at most along the channels, [channels] in float64; None for another.

    `axis` is that of the channels: 1 of `rank` dimensions, or the last one of any number.
    """
    if array.size == 1 and array.ndim <= max(rank, 1):
        return np.full(channels, float(array.reshape(())))
    after = rank - 2 if axis == 1 else 0  # dimensions behind the channels
    shape = array.shape[array.ndim - after - 1 :] if array.ndim > after else ()
    if array.size != channels or shape[:1] != (channels,):
        return None
    return np.asarray(array, np.float64).reshape(-1)
