"""Widen and Decompose: the same values in float32 and in simpler operators, and nothing touched that needs neither."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from sparsec.compiler.dtypes import DType
from sparsec.compiler.graph import Graph
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.interpreter import interpret
from sparsec.compiler.passing.runner import run_pipeline
from sparsec.passes.decompose import Decompose
from sparsec.passes.widen import Widen
from tests.backends.cpu.op_cases import i64, normal, one
from tests.reference import assert_close, make_model

Shape = tuple[int, ...]
ATTENTIONS = [
    ((2, 5, 24), (2, 7, 12), (2, 7, 10), (5, 7)),  # grouped queries, heads inside
    ((2, 4, 5, 6), (2, 2, 7, 6), (2, 2, 7, 3), None),
    ((2, 4, 5, 6), (2, 4, 7, 6), (2, 4, 7, 3), (2, 1, 5, 7)),
]


def parameters(n: int, dtype: Any) -> dict[str, np.ndarray[Any, Any]]:
    return {"scale": normal(n, dtype=dtype), "bias": normal(n, dtype=dtype)}


def ops(graph: Graph) -> set[str]:
    return {n.op.name for n in graph.nodes}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_decompose(dtype: Any) -> None:
    x = {"x": normal(2, 6, 5, dtype=dtype)}
    statistics = {"mean": normal(6, dtype=dtype), "var": np.abs(normal(6, dtype=dtype)) + 1}
    cases = [
        one("batch_norm", "BatchNormalization", x | parameters(6, dtype) | statistics),
        one("softmax", "Softmax", x, axis=1),
        one("log_softmax", "LogSoftmax", x, axis=-1),
        one("layer_norm", "LayerNormalization", x | parameters(5, dtype)),
        one("layer_norm_bare", "LayerNormalization", x | {"scale": normal(6, 5, dtype=dtype)}, axis=1),
        one("group_norm", "GroupNormalization", x | parameters(6, dtype), num_groups=3),
    ]
    for case in cases:
        before = import_model(case.model)
        after = run_pipeline(before, [Decompose()])
        if dtype == np.float64 or case.name == "batch_norm":
            assert ops(after) <= {"Map", "Reduce", "Reshape"}, case.name
        else:
            assert after is before
        tolerance = 1e-12 if dtype == np.float64 else 1e-5
        assert_close(interpret(after, case.feeds), interpret(before, case.feeds), tolerance)


@pytest.mark.parametrize(("q", "k", "v", "mask"), ATTENTIONS)
def test_decompose_attention(q: Shape, k: Shape, v: Shape, mask: Shape | None) -> None:
    wide = {n: normal(*s, dtype=np.float64) for n, s in {"q": q, "k": k, "v": v, "mask": mask}.items() if s is not None}
    attributes = {"q_num_heads": 4, "kv_num_heads": 2} if len(q) == 3 else {}
    case = one("attention", "Attention", wide, **attributes)
    imported = case.model
    imported.opset_import[0].version = 23
    before = import_model(imported)
    after = run_pipeline(before, [Decompose()])
    assert "Attention" in ops(before) and ops(after) <= {"Map", "Reduce", "Reshape", "Transpose", "MatMul"}
    assert_close(interpret(after, case.feeds), interpret(before, case.feeds), 1e-12)


def test_widen_rounds_results_once() -> None:
    x = normal(2, 6, 5, 5, dtype=np.float16)
    case = one("conv", "Conv", {"x": x}, {"w": normal(4, 6, 3, 3, dtype=np.float16)})
    before = import_model(case.model)
    after = run_pipeline(before, [Widen()])
    assert [n.op.name for n in after.nodes] == ["Map", "Conv", "Map"]
    conv = next(n for n in after.nodes if n.op.name == "Conv")
    assert all(t.dtype is DType.F32 for t in (*after.in_types(conv), *after.out_types(conv)) if t)
    got = interpret(after, case.feeds)["y0"]
    wide = one("wide", "Conv", {"x": x.astype(np.float32)}, {"w": np.asarray(before.constants["w"], np.float32)})
    want = interpret(import_model(wide.model), wide.feeds)["y0"]
    np.testing.assert_array_equal(got, want.astype(np.float16))


def test_widen_leaves_moves_alone() -> None:
    graph = import_model(one("slice", "Slice", {"x": normal(4, 5, dtype=np.float16)}, {"s": i64(1), "e": i64(3)}).model)
    assert run_pipeline(graph, [Widen()]) is graph


def test_widen_rounds_what_leaves_and_what_the_model_asks_for() -> None:
    """Between two convolutions nothing is rounded; a cast from float32 is, and so are the outputs."""
    x, y = normal(1, 4, 5, 5, dtype=np.float16), normal(1, 4, 5, 5)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="a"),
        helper.make_node("Cast", ["y"], ["c"], name="c", to=int(TensorProto.FLOAT16)),
        helper.make_node("Add", ["a", "c"], ["s"], name="s"),
        helper.make_node("Relu", ["s"], ["r"], name="r"),
        helper.make_node("Conv", ["r", "w"], ["z"], name="z"),
    ]
    w = normal(4, 4, 1, 1, dtype=np.float16)
    before = import_model(make_model(nodes, {"x": x, "y": y}, ["z", "s"], {"w": w}))
    after = run_pipeline(before, [Widen()])
    small = {v for v, t in after.types.items() if t.dtype is DType.F16}
    assert small == {"x", "z", "s"} and ops(after) == {"Conv", "Map"}

    def product(a: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.asarray(np.einsum("oc,nchw->nohw", w[:, :, 0, 0].astype(np.float32), a))

    total = product(x.astype(np.float32)) + y.astype(np.float16).astype(np.float32)
    got = interpret(after, {"x": x, "y": y})
    want = {"z": product(np.maximum(total, 0)), "s": total}
    assert all(got[n].dtype == np.float16 for n in want)
    assert_close({n: a.astype(np.float32) for n, a in got.items()}, want, 1e-3)
