"""Writes ONNX graphs node by node in the naming style of torch's TorchScript exporter.

A node in module scope ``/encoder/layer.0`` is called ``/encoder/layer.0/MatMul`` (then ``MatMul_1``, ...) and its value
``/encoder/layer.0/MatMul_output_0``; constants are ``Constant`` nodes; weights keep their state dict names, except
those that the exporter transposed or folded, which it calls ``onnx::MatMul_123``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import helper, numpy_helper

from models._weights import Weights

Dims = Sequence[int | str]


class Writer:
    """Builds one model; methods return value names."""

    def __init__(self, name: str, *, seed: int, opset: int, ir_version: int = 8) -> None:
        """Start an empty graph called ``name``."""
        self.weights = Weights(seed)
        self.model = helper.make_model(
            helper.make_graph([], name, [], []),
            producer_name="sparsec-models",
            opset_imports=[helper.make_opsetid("", opset)],
            ir_version=ir_version,
        )
        self.opset = opset
        self._graph = self.model.graph
        self._counts: Counter[str] = Counter()

    def input(self, name: str, shape: Dims, dtype: int = onnx.TensorProto.FLOAT) -> str:
        """Declare a graph input."""
        self._graph.input.append(helper.make_tensor_value_info(name, dtype, list(shape)))
        return name

    def output(self, name: str, shape: Dims, dtype: int = onnx.TensorProto.FLOAT) -> str:
        """Declare a graph output; write its node with ``out=name``."""
        self._graph.output.append(helper.make_tensor_value_info(name, dtype, list(shape)))
        return name

    def op(self, scope: str, op_type: str, *inputs: str, out: str | None = None, **attrs: Any) -> str:
        """Write a node with one output in module scope ``scope``."""
        name = self._unique(f"{scope}/{op_type}")
        result = out or f"{name}_output_0"
        self._graph.node.append(helper.make_node(op_type, list(inputs), [result], name=name, **attrs))
        return result

    def constant(self, scope: str, value: ArrayLike, dtype: Any = np.int64) -> str:
        """Write a ``Constant`` node."""
        name = self._unique(f"{scope}/Constant")
        result = f"{name}_output_0"
        tensor = numpy_helper.from_array(np.array(value, dtype=dtype))
        self._graph.node.append(helper.make_node("Constant", [], [result], name=name, value=tensor))
        return result

    def param(self, name: str, value: NDArray[Any]) -> str:
        """Store an initializer."""
        store(self._graph.initializer.add(), name, value)
        return name

    def folded(self, op_type: str, value: NDArray[Any]) -> str:
        """Store an initializer that the exporter computed, under the anonymous name it would get."""
        return self.param(self._unique(f"onnx::{op_type}", always=True), value)

    def reshape(self, scope: str, x: str, target: str) -> str:
        """Write a ``Reshape``, which exporters give ``allowzero=0`` from opset 14 on."""
        attrs: dict[str, Any] = {"allowzero": 0} if self.opset >= 14 else {}
        return self.op(scope, "Reshape", x, target, **attrs)

    def conv(
        self,
        scope: str,
        x: str,
        shape: Sequence[int],
        *,
        pads: Sequence[int] = (0, 0, 0, 0),
        stride: int = 1,
        group: int = 1,
        bias: bool = True,
        gain: float = 1.0,
    ) -> str:
        """Write a 2-D convolution (weight OIHW) under its state dict names."""
        names = [self.param(dotted(scope, "weight"), self.weights.conv(dotted(scope, "weight"), shape, gain))]
        if bias:
            names.append(self.param(dotted(scope, "bias"), self.weights.normal(dotted(scope, "bias"), shape[:1], 0.05)))
        attrs: dict[str, Any] = {"dilations": [1, 1], "group": group, "kernel_shape": list(shape[2:]), "pads": list(pads)}
        return self.op(scope, "Conv", x, *names, **attrs, strides=[stride, stride])

    def batch_norm(self, scope: str, x: str, channels: int, *, epsilon: float = 1e-5, scale: float = 1.0) -> str:
        """Write an inference batch normalisation under its state dict names."""
        leaves = ("weight", "bias", "running_mean", "running_var")
        values = self.weights.batch_norm(dotted(scope, "bn"), channels, scale)
        names = [self.param(dotted(scope, leaf), value) for leaf, value in zip(leaves, values, strict=True)]
        return self.op(scope, "BatchNormalization", x, *names, epsilon=epsilon, momentum=0.9)

    def gemm(self, scope: str, x: str, shape: tuple[int, int], *, out: str | None = None, gain: float = 1.0) -> str:
        """Write a fully connected layer on a matrix; ``shape`` is (out, in)."""
        weight = self.param(dotted(scope, "weight"), self.weights.conv(dotted(scope, "weight"), shape, gain))
        bias = self.param(dotted(scope, "bias"), self.weights.normal(dotted(scope, "bias"), shape[:1], 0.05))
        return self.op(scope, "Gemm", x, weight, bias, out=out, alpha=1.0, beta=1.0, transB=1)

    def _unique(self, stem: str, *, always: bool = False) -> str:
        count = self._counts[stem]
        self._counts[stem] += 1
        return f"{stem}_{count}" if count or always else stem


def store(tensor: onnx.TensorProto, name: str, value: NDArray[Any]) -> None:
    """Write a value into a tensor message in place (large weights are worth not copying through another message)."""
    tensor.Clear()
    tensor.name = name
    tensor.data_type = helper.np_dtype_to_tensor_dtype(value.dtype)
    tensor.dims.extend(value.shape)
    tensor.raw_data = value.tobytes()


def batch_dim(batch: int, dynamic_batch: bool, symbol: str = "batch") -> int | str:
    """Give the batch dimension of inputs and outputs: a number, or a symbol when it is dynamic."""
    return symbol if dynamic_batch else batch


def dotted(scope: str, leaf: str) -> str:
    """Give the state dict name of a module scope's tensor: ``/features/features.0`` -> ``features.0.weight``.

    Scopes repeat the container's path in every component (``/layer1/layer1.0/conv1``); the names do not.
    """
    path = ""
    for part in scope.strip("/").split("/"):
        path = part if not path or part.startswith(f"{path}.") else f"{path}.{part}"
    return f"{path}.{leaf}"
