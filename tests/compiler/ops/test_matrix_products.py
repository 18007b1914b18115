"""MatMul and Gemm in all their forms against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from sparsec.compiler.errors import ModelError, UnsupportedError
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.ops.matmul import MatMul
from tests.reference import assert_close, check_node, interpret, make_model

F32 = np.float32
RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(F32)


@settings(max_examples=30)
@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)),
    st.sampled_from([((), ()), ((2,), (2,)), ((3, 1), (2,)), ((), (2, 3)), ((2,), ()), ((1, 2), (3, 1))]),
    st.booleans(),
)
def test_matmul(sizes: tuple[int, int, int], batch: tuple[tuple[int, ...], tuple[int, ...]], constant: bool) -> None:
    m, k, n = sizes
    a, b = normal(*batch[0], m, k), normal(*batch[1], k, n)
    graph = check_node("MatMul", {"a": a}, {"b": b}) if constant else check_node("MatMul", {"a": a, "b": b})
    shape = np.matmul(a, b).shape
    assert graph.nodes[0].op.macs(graph.in_types(graph.nodes[0])) == np.prod(shape, dtype=int) * k


@pytest.mark.parametrize(("a", "b"), [((4,), (4,)), ((4,), (4, 3)), ((2, 4), (4,)), ((4,), (2, 4, 3)), ((2, 3, 4), (4,))])
def test_vectors(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    check_node("MatMul", {"a": normal(*a), "b": normal(*b)})


@pytest.mark.parametrize("dtype", [np.int32, np.uint64, np.float64])
def test_other_types(dtype: Any) -> None:
    check_node("MatMul", {"a": np.arange(6, dtype=dtype).reshape(2, 3), "b": np.arange(12, dtype=dtype).reshape(3, 4)})


@settings(max_examples=30)
@given(
    st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(1, 7)),
    st.booleans(),
    st.booleans(),
    st.sampled_from([1.0, 0.5, 0.0]),
    st.sampled_from([1.0, 0.25, 0.0]),
    st.sampled_from(["mn", "n", "1n", "m1", "", "11", None]),
)
def test_gemm(sizes: tuple[int, int, int], ta: bool, tb: bool, alpha: float, beta: float, bias: str | None) -> None:
    m, k, n = sizes
    extents = {"m": m, "n": n, "1": 1}
    feeds = {"a": normal(*((k, m) if ta else (m, k))), "b": normal(*((n, k) if tb else (k, n)))}
    if bias is not None:
        feeds["c"] = normal(*(extents[e] for e in bias))
    graph = check_node("Gemm", feeds, transA=int(ta), transB=int(tb), alpha=alpha, beta=beta)
    assert [type(n.op) for n in graph.nodes] == [MatMul]


def test_gemm_of_integers() -> None:
    """onnxruntime has none: the reference is numpy."""
    feeds = {name: RNG.integers(-9, 9, (3, 3)).astype(np.int32) for name in "abc"}
    node = helper.make_node("Gemm", list("abc"), ["y"], name="gemm", alpha=2.0, beta=-1.0)
    got = interpret(import_model(make_model([node], feeds, ["y"])), feeds)
    assert_close(got, {"y": 2 * (feeds["a"] @ feeds["b"]) - feeds["c"]})
    node = helper.make_node("Gemm", list("abc"), ["y"], name="gemm", alpha=0.5)
    with pytest.raises(UnsupportedError, match=r"'gemm'.*scales integers by 0.5"):
        import_model(make_model([node], feeds, ["y"]))


def test_fused_products_of_onnxruntime() -> None:
    a, b = normal(2, 3, 4), normal(2, 5, 4)
    check_node("FusedMatMul", {"a": a, "b": b}, domain="com.microsoft", transB=1, alpha=0.5)
    feeds = {"a": normal(3, 4), "b": normal(4, 5), "c": normal(5)}
    check_node("FusedGemm", feeds, domain="com.microsoft", activation="LeakyRelu", activation_alpha=0.2)
    check_node("FusedGemm", feeds, domain="com.microsoft", activation="Relu", alpha=0.5)


def test_refusals() -> None:
    def import_node(op: str, shapes: list[tuple[int, ...]], **attributes: Any) -> None:
        feeds = {f"i{i}": normal(*s) for i, s in enumerate(shapes)}
        domain = "com.microsoft" if op.startswith("Fused") else ""
        node = helper.make_node(op, list(feeds), ["y"], name="node", domain=domain, **attributes)
        import_model(make_model([node], feeds, ["y"], domains={domain: 1} if domain else None))

    with pytest.raises(ModelError, match=r"'node'.*reduces over 4 of .* but 3 of"):
        import_node("MatMul", [(2, 4), (3, 5)])
    with pytest.raises(ModelError, match=r"\[2, 5\], \[3, 5\] do not broadcast"):
        import_node("Gemm", [(2, 4), (4, 5), (3, 5)])
    with pytest.raises(UnsupportedError, match="transBatchA"):
        import_node("FusedMatMul", [(2, 2, 4), (2, 4, 5)], transBatchA=1)
    with pytest.raises(UnsupportedError, match=r"activation is 'Swish', expected one of"):
        import_node("FusedGemm", [(2, 4), (4, 5), (5,)], activation="Swish")
