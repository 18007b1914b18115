"""Small networks with seeded weights, and a look at what quantising made of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

from tests.reference import make_model

Array = np.ndarray[Any, Any]
N = helper.make_node


def weights(seed: int = 0, **shapes: tuple[int, ...]) -> dict[str, Array]:
    """Normal float32 weights by name, scaled by their fan-in."""
    rng = np.random.default_rng(seed)
    return {k: (rng.standard_normal(s) / np.sqrt(max(np.prod(s[1:]), 1))).astype(np.float32) for k, s in shapes.items()}


def model_of(
    nodes: Sequence[onnx.NodeProto], x: Sequence[int | str], outputs: Sequence[str], w: dict[str, Array], **more: Any
) -> onnx.ModelProto:
    """A model of one float32 input x."""
    model = make_model(nodes, {"x": (onnx.TensorProto.FLOAT, x)}, outputs, w, **more)
    return onnx.shape_inference.infer_shapes(model)  # types of outputs, which the checker wants


def samples(shape: Sequence[int], count: int = 8, seed: int = 1) -> list[Array]:
    """Normal inputs."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(np.float32) for _ in range(count)]


def residual(opset: int = 21) -> onnx.ModelProto:
    """A stem with normalisation, a max pool, a residual block with a projection, a mean and a classifier."""
    w = weights(stem=(8, 3, 3, 3), a=(8, 8, 3, 3), b=(8, 8, 3, 3), c=(8, 8, 1, 1), fc=(5, 8), d=(5,), s=(8,), m=(8,))
    w["v"] = np.abs(w["m"]) + np.float32(0.5)
    nodes = [
        N("Conv", ["x", "stem"], ["y0"], "stem", pads=[1, 1, 1, 1]),
        N("BatchNormalization", ["y0", "s", "m", "m", "v"], ["y1"], "norm"),
        N("Relu", ["y1"], ["y2"]),
        N("MaxPool", ["y2"], ["y3"], kernel_shape=[2, 2], strides=[2, 2]),
        N("Conv", ["y3", "a"], ["z0"], "a", pads=[1, 1, 1, 1]),
        N("Relu", ["z0"], ["z1"]),
        N("Conv", ["z1", "b"], ["z2"], "b", pads=[1, 1, 1, 1]),
        N("Conv", ["y3", "c"], ["z3"], "c"),
        N("Add", ["z2", "z3"], ["z4"]),
        N("Relu", ["z4"], ["z5"]),
        N("GlobalAveragePool", ["z5"], ["p"]),
        N("Flatten", ["p"], ["f"]),
        N("Gemm", ["f", "fc", "d"], ["out"], "fc", transB=1),
    ]
    return model_of(nodes, ["n", 3, 8, 8], ["out"], w, opset=opset)


def bytes_of(model: onnx.ModelProto) -> set[str]:
    """The values that are quantised."""
    return {n.input[0] for n in model.graph.node if n.op_type == "QuantizeLinear"}


def parameters(model: onnx.ModelProto) -> dict[str, tuple[float, int]]:
    """Scale and zero point of every value that is quantised."""
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    found = [n for n in model.graph.node if n.op_type == "QuantizeLinear"]
    return {n.input[0]: (float(arrays[n.input[1]]), int(arrays[n.input[2]])) for n in found}
