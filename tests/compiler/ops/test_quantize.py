"""Quantised operators against onnxruntime: integers agree exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from sparsec.compiler.errors import UnsupportedError
from sparsec.compiler.importer.api import import_model
from tests.reference import check_node, make_model

F32, I8, U8 = np.float32, np.int8, np.uint8
X = np.random.default_rng(0).normal(0, 3, (2, 4, 5)).astype(F32)


def integers(dtype: Any, *shape: int) -> np.ndarray[Any, Any]:
    info = np.iinfo(dtype)
    return np.random.default_rng(sum(shape)).integers(info.min, info.max + 1, shape).astype(dtype)


@pytest.mark.parametrize("dtype", [I8, U8, np.int16, np.uint16])
def test_quantize_and_dequantize(dtype: Any) -> None:
    one = {"s": np.array(0.031, F32), "z": np.array(7, dtype)}
    each = {"s": np.array([0.01, 0.02, 0.5, 1.5], F32), "z": np.array([0, 3, 5, 100], dtype)}
    for weights in (one, each):
        check_node("QuantizeLinear", {"x": X}, weights, axis=1)
        check_node("DequantizeLinear", {"x": integers(dtype, 2, 4, 5)}, weights, axis=1)


def test_without_a_zero_point() -> None:
    check_node("QuantizeLinear", {"x": X}, {"s": np.array(0.02, F32)})
    check_node("QuantizeLinear", {"x": X}, {"s": np.array(0.02, F32)}, output_dtype=3)
    check_node("DequantizeLinear", {"x": integers(np.int32, 2, 4)}, {"s": np.array([0.1, 0.2, 0.3, 0.4], F32)}, axis=-1)


def test_halves_round_to_even_and_ends_saturate() -> None:
    x = np.array([-1e9, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 254.5, 255.5, 1e9, np.inf, -np.inf], F32)
    check_node("QuantizeLinear", {"x": x}, {"s": np.array(1, F32), "z": np.array(0, U8)})
    check_node("QuantizeLinear", {"x": x}, {"s": np.array(1, F32), "z": np.array(0, I8)})


_SOME = st.floats(2**-100, 4)  # a scale of less may not be a normal number, and onnxruntime makes it 0


@settings(max_examples=20)
@given(st.one_of(st.just(0.0), _SOME, _SOME.map(lambda x: -x)), st.one_of(st.just(0.0), _SOME))
def test_dynamic_quantize(low: float, extent: float) -> None:
    x = np.linspace(low, low + extent, 12, dtype=F32).reshape(3, 4)
    check_node("DynamicQuantizeLinear", {"x": x}, outputs=3)


def test_dynamic_quantize_of_zeros() -> None:
    check_node("DynamicQuantizeLinear", {"x": np.zeros((2, 3), F32)}, outputs=3)


@pytest.mark.parametrize("types", [(U8, U8), (U8, I8), (I8, I8)])
def test_integer_products(types: tuple[Any, Any]) -> None:
    a, b = integers(types[0], 3, 6), integers(types[1], 6, 5)
    zeros = {"az": np.array(3, types[0]), "bz": np.array(5, types[1])}
    check_node("MatMulInteger", {"a": a, "b": b})
    check_node("MatMulInteger", {"a": a}, {"b": b, **zeros})
    check_node("MatMulInteger", {"a": a}, {"b": b, "az": zeros["az"], "bz": integers(types[1], 5)})


def test_integer_convolution() -> None:
    x, weights = integers(U8, 1, 3, 6, 6), {"w": integers(U8, 4, 3, 3, 3)}
    check_node("ConvInteger", {"x": x}, weights, pads=[1, 1, 1, 1], strides=[2, 2])
    zeros = {"xz": np.array(9, U8), "wz": np.array(4, U8)}
    check_node("ConvInteger", {"x": x}, {**weights, **zeros}, pads=[1, 0, 1, 0])


@pytest.mark.parametrize("per_channel", [False, True])
def test_quantised_layers(per_channel: bool) -> None:
    scale = np.array([0.01, 0.02, 0.005, 0.03], F32) if per_channel else np.array(0.01, F32)
    zero = np.zeros(4, I8) if per_channel else np.array(0, I8)
    ends = {"ys": np.array(2.5, F32), "yz": np.array(110, U8)}
    x = {"x": integers(U8, 1, 3, 5, 5)}
    weights = {"xs": np.array(0.05, F32), "xz": np.array(120, U8), "w": integers(I8, 4, 3, 3, 3), "ws": scale, "wz": zero, **ends}
    check_node("QLinearConv", x, weights, pads=[1, 1, 1, 1])
    check_node("QLinearConv", x, {**weights, "bias": integers(np.int16, 4).astype(np.int32)})
    matrix = {**weights, "w": integers(I8, 6, 4)}
    check_node("QLinearMatMul", {"x": integers(U8, 3, 6)}, matrix)


@pytest.mark.parametrize(
    ("op", "x", "weights", "attributes", "message"),
    [
        ("QuantizeLinear", X, {"s": np.ones(3, F32)}, {}, "neither one element nor one for each index of axis 1"),
        ("QuantizeLinear", X, {"s": np.ones((2, 2, 5), F32)}, {"block_size": 2}, "block_size"),
        ("QuantizeLinear", X, {"s": np.array(1, F32), "z": np.array(1, np.int32)}, {}, "quantising to i32 is not supported"),
        ("QuantizeLinear", X.astype(np.int32), {"s": np.array(1, F32)}, {}, "must be floating point"),
    ],
)
def test_refusals(op: str, x: Any, weights: dict[str, Any], attributes: dict[str, Any], message: str) -> None:
    node = helper.make_node(op, ["x", *weights], ["y"], name="node", **attributes)
    with pytest.raises(UnsupportedError, match=f"'node'.*{message}"):
        import_model(make_model([node], {"x": x}, ["y"], weights))
