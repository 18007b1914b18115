"""Elementwise operators against onnxruntime, over their types and attributes; broadcasting by Hypothesis."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import mutually_broadcastable_shapes

from sparsec.compiler.errors import ModelError, UnsupportedError
from sparsec.compiler.ops.map import Map
from tests.reference import check_node

F32, F64, F16 = np.float32, np.float64, np.float16
X = np.array([[-7.5, -3.0, -1.0, -0.6, -0.5, -0.0], [0.25, 0.5, 0.9, 1.5, 2.5, 8.0]], F32)
UNIT = np.linspace(-0.95, 0.95, 12, dtype=F32).reshape(2, 6)
POSITIVE = np.abs(X) + F32(0.1)

UNARY: list[tuple[str, np.ndarray[Any, Any]]] = [
    *((op, X) for op in ("Abs", "Neg", "Sign", "Exp", "Floor", "Ceil", "Round", "Sin", "Cos", "Atan", "Sinh", "Cosh", "Asinh")),
    *((op, X) for op in ("Erf", "Relu", "Sigmoid", "Tanh", "Softplus", "Softsign", "HardSwish", "Mish", "IsNaN", "IsInf")),
    *((op, POSITIVE) for op in ("Sqrt", "Log", "Reciprocal")),
    *((op, UNIT) for op in ("Tan", "Asin", "Acos", "Atanh")),
    ("Acosh", POSITIVE + F32(1)),
    *((op, X.astype(F64)) for op in ("Abs", "Floor", "Relu", "Tanh", "Sqrt", "Sign")),
    *((op, X.astype(np.int32)) for op in ("Abs", "Neg", "Sign", "Relu")),
    *((op, X.astype(np.int64)) for op in ("Abs", "Neg", "Sign")),
    ("BitwiseNot", X.astype(np.int32)),
    ("Not", X > 0),
    ("IsNaN", np.array([np.nan, 1, np.inf], F32)),
    ("IsInf", np.array([np.nan, 1, np.inf, -np.inf], F32)),
]


@pytest.mark.parametrize(("op", "x"), UNARY, ids=lambda v: v if isinstance(v, str) else str(v.dtype))
def test_unary(op: str, x: np.ndarray[Any, Any]) -> None:
    graph = check_node(op, {"x": x}, opset=22)
    assert [type(n.op) for n in graph.nodes] == [Map]


PARAMETRISED: list[tuple[str, dict[str, Any]]] = [
    ("LeakyRelu", {}),
    ("LeakyRelu", {"alpha": 0.3}),
    ("Elu", {"alpha": 0.7}),
    ("Selu", {}),
    ("Selu", {"alpha": 1.5, "gamma": 2.0}),
    ("Celu", {"alpha": 1.0}),
    ("Celu", {"alpha": 2.5}),
    ("ThresholdedRelu", {"alpha": 0.5}),
    ("HardSigmoid", {"alpha": 0.3, "beta": 0.4}),
    ("Shrink", {"lambd": 0.7, "bias": 0.2}),
    ("Gelu", {"approximate": "none"}),
    ("Gelu", {"approximate": "tanh"}),
    ("IsInf", {"detect_negative": 0}),
    ("IsInf", {"detect_positive": 0}),
    ("IsInf", {"detect_positive": 0, "detect_negative": 0}),
    *(("Cast", {"to": code}) for code in (1, 3, 6, 7, 9, 10, 11)),
]


@pytest.mark.parametrize(("op", "attributes"), PARAMETRISED, ids=str)
def test_parametrised(op: str, attributes: dict[str, Any]) -> None:
    x = np.append(X, [np.inf, -np.inf]).astype(F32) if op == "IsInf" else X
    tolerance = 1e-3 if attributes.get("to") == 10 else 1e-5
    check_node(op, {"x": x}, opset=20, tolerance=tolerance, **attributes)


@pytest.mark.parametrize("to", [2, 4, 5, 6, 7, 9, 12])
def test_casts_from_integers_wrap_as_c_does(to: int) -> None:
    check_node("Cast", {"x": np.array([-300, -1, 0, 1, 255, 256, 70000], np.int64)}, to=to)


MICROSOFT: list[tuple[str, int, dict[str, Any]]] = [
    ("Gelu", 1, {}),
    ("QuickGelu", 1, {}),
    ("QuickGelu", 1, {"alpha": 1.0}),
    ("BiasGelu", 2, {}),
    ("FastGelu", 1, {}),
    ("FastGelu", 2, {}),
]


@pytest.mark.parametrize(("op", "operands", "attributes"), MICROSOFT, ids=str)
def test_microsoft_activations(op: str, operands: int, attributes: dict[str, Any]) -> None:
    check_node(op, {"x": X, "b": X[0]} if operands == 2 else {"x": X}, domain="com.microsoft", **attributes)


BINARY = (
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Max",
    "Min",
    "Sum",
    "Mean",
    "Less",
    "LessOrEqual",
    "Greater",
    "GreaterOrEqual",
    "Equal",
    "PRelu",
)


@settings(max_examples=40)
@given(st.sampled_from(BINARY), mutually_broadcastable_shapes(num_shapes=2, max_dims=4, max_side=5), st.integers(0, 99))
def test_broadcasting(op: str, shapes: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (rng.integers(-3, 4, s).astype(F32) + (0.5 if op == "Div" else 0) for s in shapes.input_shapes)
    if op == "PRelu" and shapes.result_shape != a.shape:
        a = np.broadcast_to(a, shapes.result_shape).copy()  # the slope broadcasts to the data, not the data to it
    check_node(op, {"a": np.asarray(a, F32), "b": np.asarray(b, F32)})


@settings(max_examples=15)
@given(
    mutually_broadcastable_shapes(num_shapes=3, max_dims=3, max_side=4), st.sampled_from(["Sum", "Mean", "Max", "Min", "Where"])
)
def test_three_operands(shapes: Any, op: str) -> None:
    rng = np.random.default_rng(0)
    a, b, c = (np.asarray(rng.standard_normal(s), F32) for s in shapes.input_shapes)
    check_node(op, {"a": np.asarray(a > 0) if op == "Where" else a, "b": b, "c": c})


INTEGERS = {"a": np.array([-7, 7, -8, 9, 1], np.int32), "b": np.array([3, -3, 2, 4, -1], np.int32)}


@pytest.mark.parametrize(
    "op", ["Add", "Sub", "Mul", "Div", "Mod", "Max", "Min", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Less", "Equal"]
)
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_integers(op: str, dtype: Any) -> None:
    check_node(op, {k: v.astype(dtype) for k, v in INTEGERS.items()})


def test_fmod_takes_the_sign_of_the_dividend() -> None:
    check_node("Mod", INTEGERS, fmod=1)
    check_node("Mod", {k: v.astype(F32) + F32(0.25) for k, v in INTEGERS.items()}, fmod=1)


@pytest.mark.parametrize("direction", ["LEFT", "RIGHT"])
def test_bit_shift(direction: str) -> None:
    check_node("BitShift", {"a": np.array([1, 16, 255], np.uint8), "b": np.array([1, 3, 7], np.uint8)}, direction=direction)


@pytest.mark.parametrize("op", ["And", "Or", "Xor", "Equal"])
def test_booleans(op: str) -> None:
    check_node(op, {"a": np.array([[True], [False]]), "b": np.array([True, False])})


@pytest.mark.parametrize("exponent", [1.0, 2.0, 3.0, 0.5, -1.0, -0.5, 1.7])
def test_pow_by_a_constant_is_strength_reduced(exponent: float) -> None:
    graph = check_node("Pow", {"x": POSITIVE}, {"e": np.array(exponent, F32)})
    assert ("pow" in str(graph.nodes[0].op.program if isinstance(graph.nodes[0].op, Map) else "pow")) == (exponent == 1.7)


@pytest.mark.parametrize(
    ("base", "exponent"), [(F32, F32), (F32, np.int64), (F64, np.int32), (np.int64, np.int64), (np.int32, F32)]
)
def test_pow_of_mixed_types(base: Any, exponent: Any) -> None:
    check_node("Pow", {"x": np.array([1, 2, 3, 4], base), "e": np.array([3, 2, 1, 0], exponent)})


CLIPS: list[tuple[dict[str, Any], list[str]]] = [
    ({"lo": F32(-0.5), "hi": F32(1)}, ["x", "lo", "hi"]),
    ({"hi": F32(1)}, ["x", "", "hi"]),
    ({"lo": F32(0)}, ["x", "lo"]),
    ({}, ["x"]),
    ({"lo": F32(2), "hi": F32(1)}, ["x", "lo", "hi"]),
]


@pytest.mark.parametrize(("bounds", "inputs"), CLIPS, ids=str)
def test_clip(bounds: dict[str, Any], inputs: list[str]) -> None:
    arrays = {k: np.asarray(v) for k, v in bounds.items()}
    check_node("Clip", {"x": X}, arrays, inputs=inputs)
    check_node("Clip", {"x": X, **arrays}, inputs=inputs)  # bounds computed at run time
    check_node("Clip", {"x": (X * 2).astype(np.int64)}, {k: v.astype(np.int64) for k, v in arrays.items()}, inputs=inputs)


def test_clip_with_attributes() -> None:
    check_node("Clip", {"x": X}, opset=7, min=-0.5, max=2.0)
    check_node("Clip", {"x": X}, opset=6 + 1, max=2.0)


def test_dropout_passes_through_and_its_mask_is_all_true() -> None:
    assert not check_node("Dropout", {"x": X}, outputs=["y"]).nodes
    check_node("Dropout", {"x": X}, outputs=["y", "mask"])


def test_cast_like() -> None:
    check_node("CastLike", {"x": X, "like": np.zeros(1, np.int32)})


@pytest.mark.parametrize(
    ("op", "feeds", "attributes", "message"),
    [
        ("Celu", {"x": X}, {"alpha": -1.0}, "alpha is -1.0, and must be positive"),
        ("Gelu", {"x": X}, {"approximate": "cubic"}, "expected none or tanh"),
        ("Cast", {"x": X}, {"to": 8}, "casts to ONNX element type 8"),
        ("Shrink", {"x": X.astype(np.int32)}, {"lambd": 0.5}, "no integers"),
        ("Add", {"a": X, "b": X.astype(np.int32)}, {}, "same element type"),
        ("BitShift", {"a": np.array([1], np.uint8), "b": np.array([1], np.uint8)}, {"direction": "UP"}, "LEFT or RIGHT"),
    ],
)
def test_refusals(op: str, feeds: dict[str, Any], attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedError, match=message) as caught:
        check_node(op, feeds, opset=20, **attributes)
    assert "node 'node'" in str(caught.value)


@pytest.mark.parametrize(
    ("op", "feeds", "message"),
    [
        ("BitwiseAnd", {"a": X, "b": X}, "bitand is defined on integers, not on f32"),
        ("Neg", {"a": X > 0}, "neg is not defined on booleans"),
        ("Sub", {"a": X > 0, "b": X > 0}, "sub is not defined on booleans"),
        ("Exp", {"a": X.astype(np.int32)}, "exp is defined on floating-point numbers, not on i32"),
    ],
)
def test_types_that_a_function_is_not_defined_on(op: str, feeds: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=f"'node'.*{message}"):
        check_node(op, feeds)
