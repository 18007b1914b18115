"""QDQ models: small networks whose tensors are quantised as quantisers for onnxruntime do it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray[Any, Any]


class QdqBuilder:
    """An ONNX graph under construction: every value has a quantised form, and nodes read what is dequantised from it."""

    def __init__(self, seed: int, *, data: Any = np.uint8, sparse: float = 0.0) -> None:
        self.rng, self.data, self.sparse = np.random.default_rng(seed), data, sparse
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []
        self.scales: dict[str, float] = {}

    def constant(self, name: str, array: Any) -> str:
        """An initializer."""
        self.tensors.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """A node of the same name as its output."""
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def quantised(self, value: str, scale: float, zero: int) -> str:
        """The value through QuantizeLinear and DequantizeLinear with a scale and a zero point (of uint8: int8 has 128 less)."""
        zero = zero - 128 if self.data is np.int8 else zero
        parameters = [self.constant(f"{value}.s", np.float32(scale)), self.constant(f"{value}.z", self.data(zero))]
        self.node("QuantizeLinear", [value, *parameters], f"{value}.q")
        result = self.node("DequantizeLinear", [f"{value}.q", *parameters], f"{value}.dq")
        self.scales[result] = float(np.float32(scale))
        return result

    def weights(self, name: str, shape: tuple[int, ...], axis: int, x: str) -> tuple[str, str]:
        """Dequantised int8 weights with a scale for each output along `axis`, and a bias in the products' scale."""
        w = self.rng.integers(-127, 128, shape).astype(np.int8)
        if self.sparse:
            keep = self.rng.random([-(-shape[0] // 8), -(-shape[1] // 8)]) >= self.sparse
            mask = np.repeat(np.repeat(keep, 8, 0), 8, 1)[: shape[0], : shape[1]]
            w = w * mask.reshape(*mask.shape, *[1] * (len(shape) - 2)).astype(np.int8)
        products = w.size // shape[axis]
        scale = (self.rng.uniform(0.5, 1.5, shape[axis]) / 127 / np.sqrt(products)).astype(np.float32) * np.float32(2)
        s = self.constant(f"{name}.ws", scale)
        dq = self.node("DequantizeLinear", [self.constant(f"{name}.w", w), s], f"{name}.wdq", axis=axis)
        both = (np.float32(self.scales[x]) * scale).astype(np.float32)
        b = self.constant(f"{name}.b", self.rng.integers(-3000, 3000, shape[axis]).astype(np.int32))
        bias = self.node("DequantizeLinear", [b, self.constant(f"{name}.bs", both)], f"{name}.bdq", axis=0)
        return dq, bias

    def conv(self, x: str, name: str, shape: tuple[int, ...], **attributes: Any) -> str:
        """A convolution of a dequantised value, float32."""
        return self.node("Conv", [x, *self.weights(name, shape, 0, x)], name, pads=[shape[2] // 2] * 4, **attributes)

    def model(self, inputs: dict[str, tuple[int, ...]], outputs: list[str]) -> onnx.ModelProto:
        """The finished model."""
        graph = helper.make_graph(
            self.nodes,
            "quantised",
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs],
            self.tensors,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def residual_network(seed: int = 0, *, data: Any = np.uint8, sparse: float = 0.0) -> onnx.ModelProto:
    """Convolutions with and without a residual, a maximum pool, a depthwise window, a mean and a product."""
    b = QdqBuilder(seed, data=data, sparse=sparse)
    x = b.quantised("x", 0.03, 121)
    first = b.quantised(b.node("Relu", [b.conv(x, "first", (16, 3, 3, 3), strides=[2, 2])], "r0"), 0.02, 0)
    pooled = b.node("MaxPool", [first], "pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    pool = b.quantised(pooled, 0.02, 0)
    inner = b.quantised(b.node("Relu", [b.conv(pool, "inner", (32, 16, 3, 3))], "r1"), 0.02, 0)
    wide = b.conv(inner, "wide", (16, 32, 1, 1))
    summed = b.quantised(b.node("Relu", [b.node("Add", [wide, pool], "sum")], "r2"), 0.03, 0)
    deep = b.quantised(b.node("Clip", [b.conv(summed, "deep", (16, 1, 3, 3), group=16), *_limits(b)], "r3"), 6 / 255, 0)
    last = b.quantised(b.conv(deep, "last", (40, 16, 1, 1)), 0.02, 133)
    mean = b.quantised(b.node("GlobalAveragePool", [last], "mean"), 0.01, 128)
    flat = b.node("Flatten", [mean], "flat")
    b.scales[flat] = b.scales[mean]
    w, bias = b.weights("product", (10, 40), 0, flat)
    return b.model({"x": (1, 3, 31, 29)}, [b.node("Gemm", [flat, w, bias], "y", transB=1)])


def _limits(b: QdqBuilder) -> list[str]:
    return [b.constant("low", np.float32(0)), b.constant("high", np.float32(6))]


def shifts_of(scale: Array) -> Array | None:
    """k, int64, of scales 2^-k in their shape; None where one is no power of two."""
    mantissa, exponent = np.frexp(scale)
    return 1 - exponent.astype(np.int64) if np.all(mantissa == 0.5) else None
