"""Reductions, arg reductions, softmax and normalisations against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes
from onnx import helper

from sparsec.compiler.errors import ModelError, UnsupportedError
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.interpreter import interpret
from sparsec.compiler.ops.group_norm import GroupNorm
from tests.reference import assert_close, check_node, make_model

F32 = np.float32
KINDS = ("Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSum", "LogSumExp")


def normal(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(F32)


@settings(max_examples=60)
@given(st.sampled_from(KINDS), array_shapes(min_dims=1, max_dims=4, max_side=5), st.booleans(), st.data())
def test_reduce(kind: str, shape: tuple[int, ...], keep: bool, data: st.DataObject) -> None:
    axes = data.draw(st.lists(st.integers(-len(shape), len(shape) - 1), unique_by=lambda a: a % len(shape)))
    x = np.abs(normal(*shape)) + F32(0.1) if kind == "LogSum" else normal(*shape)
    weights = {"axes": np.array(axes, np.int64)} if axes else {}
    check_node(f"Reduce{kind}", {"x": x}, weights, keepdims=int(keep))


@pytest.mark.parametrize("kind", KINDS)
def test_no_axes_may_mean_no_reduction(kind: str) -> None:
    x = np.abs(normal(2, 3)) + F32(0.1)
    graph = check_node(f"Reduce{kind}", {"x": x}, {"axes": np.zeros(0, np.int64)}, noop_with_empty_axes=1)
    assert all(n.op.name != "Reduce" for n in graph.nodes)


@pytest.mark.parametrize("kind", KINDS)
def test_axes_were_attributes(kind: str) -> None:
    check_node(f"Reduce{kind}", {"x": np.abs(normal(2, 3, 4)) + F32(0.1)}, opset=11, axes=[-1, 0], keepdims=0)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("kind", ["Sum", "Max", "Min", "Prod", "Mean"])
def test_integers(kind: str, dtype: Any) -> None:
    x = np.random.default_rng(0).integers(-5, 6, (3, 4)).astype(dtype)
    check_node(f"Reduce{kind}", {"x": x}, {"axes": np.array([1])})


def test_log_sum_exp_is_stable() -> None:
    x = np.array([[1000.0, 1000.5], [-1000.0, -999.0], [-np.inf, 3.0], [-np.inf, -np.inf]], F32)
    check_node("ReduceLogSumExp", {"x": x}, {"axes": np.array([1])}, keepdims=0)


def test_over_no_elements() -> None:
    node = [helper.make_node(f"Reduce{k}", ["x", "a"], [k], name=k) for k in ("Sum", "Prod", "Max", "Min")]
    x, weights = np.zeros((2, 0), F32), {"a": np.array([1])}
    got = interpret(import_model(make_model(node, {"x": x}, ["Sum", "Prod", "Max", "Min"], weights)), {"x": x})
    assert {k: v.tolist() for k, v in got.items()} == {
        "Sum": [[0.0]] * 2, "Prod": [[1.0]] * 2, "Max": [[-np.inf]] * 2, "Min": [[np.inf]] * 2
    }  # fmt: skip


@pytest.mark.parametrize("spatial", [(5,), (3, 4), (2, 3, 4)])
@pytest.mark.parametrize(
    ("op", "attributes"), [("GlobalAveragePool", {}), ("GlobalMaxPool", {}), ("GlobalLpPool", {}), ("GlobalLpPool", {"p": 3})]
)
def test_global_pools(op: str, attributes: dict[str, Any], spatial: tuple[int, ...]) -> None:
    check_node(op, {"x": normal(2, 3, *spatial)}, **attributes)


@pytest.mark.parametrize("last", [0, 1])
@pytest.mark.parametrize("keep", [0, 1])
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("op", ["ArgMax", "ArgMin"])
def test_arg(op: str, axis: int, keep: int, last: int) -> None:
    x = np.random.default_rng(0).integers(0, 3, (4, 5, 3)).astype(F32)  # with ties
    check_node(op, {"x": x}, axis=axis, keepdims=keep, select_last_index=last)


@settings(max_examples=25)
@given(
    st.sampled_from(["Softmax", "LogSoftmax", "Hardmax"]),
    array_shapes(max_dims=4, max_side=5),
    st.sampled_from([11, 13, 21]),
    st.data(),
)
def test_softmax(op: str, shape: tuple[int, ...], opset: int, data: st.DataObject) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    check_node(op, {"x": 5 * normal(*shape)}, opset=opset, axis=axis)


def test_softmax_of_huge_values() -> None:
    check_node("Softmax", {"x": np.array([[1e4, 1e4, 0], [-np.inf, 0, 1], [-1e30, 1, 2]], F32)})


@pytest.mark.parametrize("opset", [7, 8, 9, 14, 15])
def test_batch_norm(opset: int) -> None:
    weights = {k: np.abs(normal(3)) + F32(i) for i, k in enumerate(("scale", "bias", "mean", "var"))}
    check_node("BatchNormalization", {"x": normal(2, 3, 4, 5)}, weights, opset=opset, epsilon=1e-3)


@pytest.mark.parametrize("shape", [(2, 6, 5), (1, 6, 3, 4), (2, 6, 2, 3, 2)])
def test_instance_and_group_norm(shape: tuple[int, ...]) -> None:
    weights = {"scale": normal(6), "bias": normal(6) + F32(1)}
    check_node("InstanceNormalization", {"x": 3 + 2 * normal(*shape)}, weights, epsilon=1e-2)
    for groups in (1, 2, 3, 6):
        graph = check_node("GroupNormalization", {"x": normal(*shape)}, weights, num_groups=groups)
        assert [type(n.op) for n in graph.nodes] == [GroupNorm]
    old = {k: v[:2] for k, v in weights.items()}
    check_node("GroupNormalization", {"x": normal(*shape)}, old, opset=18, num_groups=2)


@pytest.mark.parametrize("size", [1, 3, 5, 99])  # onnxruntime has odd ones only; ONNX's own cases have the others
def test_lrn(size: int) -> None:
    check_node("LRN", {"x": 3 * normal(2, 7, 3, 2)}, size=size, alpha=0.02, beta=0.6, bias=1.5)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_lp_normalization(p: int, axis: int) -> None:
    x = normal(3, 4, 2)
    x[0], x[:, 1] = 0, 0
    check_node("LpNormalization", {"x": x}, p=p, axis=axis)


@pytest.mark.parametrize("attributes", [{}, {"axes": [1, 2]}, {"axes": [-1]}])
def test_mean_variance_normalization(attributes: dict[str, Any]) -> None:
    check_node("MeanVarianceNormalization", {"x": normal(2, 3, 4, 5)}, opset=13, **attributes)


def test_half_precision_statistics_are_computed_in_single() -> None:
    """A sum of squares that overflows float16: compared with the float32 result."""
    x = (100 * normal(1, 4, 30)).astype(np.float16)
    ones, zeros = np.ones(4, np.float16), np.zeros(4, np.float16)
    (got,) = GroupNorm(2, 1e-5).evaluate([x, ones, zeros])
    (want,) = GroupNorm(2, 1e-5).evaluate([x.astype(F32), ones.astype(F32), zeros.astype(F32)])
    assert got.dtype == np.float16
    assert_close({"y": got.astype(F32)}, {"y": want}, 1e-3)


@pytest.mark.parametrize(
    ("op", "shape", "weights", "attributes", "message"),
    [
        ("ReduceSum", (2, 3), {"axes": np.array([2])}, {}, "not within rank 2"),
        ("Softmax", (2, 3), {}, {"axis": 5}, "axis 5"),
        ("BatchNormalization", (2, 3), {k: np.ones(4, F32) for k in "abcd"}, {}, r"scale is f32\[4\], expected \[3\]"),
        ("GroupNormalization", (2, 3, 4), {k: np.ones(3, F32) for k in "ab"}, {"num_groups": 2}, "2 groups does not fit"),
        ("LpNormalization", (2, 3), {}, {"p": 3}, "only 1 and 2"),
        ("ArgMax", (2, 0), {}, {"axis": 1}, "not defined"),
    ],
)
def test_refusals(op: str, shape: tuple[int, ...], weights: dict[str, Any], attributes: dict[str, Any], message: str) -> None:
    node = helper.make_node(op, ["x", *weights], ["y"], name="node", **attributes)
    with pytest.raises((ModelError, UnsupportedError), match=f"'node'.*{message}"):
        import_model(make_model([node], {"x": np.ones(shape, F32)}, ["y"], weights))


def test_a_reduction_over_computed_axes_is_refused() -> None:
    node = helper.make_node("ReduceSum", ["x", "axes"], ["y"], name="node")
    with pytest.raises(UnsupportedError, match=r"'node'.*axes.*must be constant"):
        import_model(make_model([node], {"x": np.ones(3, F32), "axes": np.zeros(1, np.int64)}, ["y"]))
