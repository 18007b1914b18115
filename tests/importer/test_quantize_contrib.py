"""onnxruntime's quantised operators: its own numbers, but for a unit in the last place where a quotient is a tie."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper

from sparsec.compiler.errors import ModelError, UnsupportedError
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.interpreter import interpret
from tests.reference import make_model, run_ort

MS = "com.microsoft"
SCALES = {n: np.array(s, np.float32) for n, s in {"sa": 0.031, "sb": 0.017, "sy": 0.043}.items()}


def data(dtype: Any, *shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    info = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(info.min, info.max, shape, dtype, endpoint=True)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize(
    ("op", "inputs", "attributes"),
    [
        ("QLinearAdd", "a sa za b sb zb sy zy", {}),
        ("QLinearMul", "a sa za b sb zb sy zy", {}),
        ("QLinearSigmoid", "a sa za sy zy", {}),
        ("QLinearLeakyRelu", "a sa za sy zy", {"alpha": 0.2}),
        ("QLinearGlobalAveragePool", "a sa za sy zy", {}),
        ("QLinearConcat", "sy zy a sa za b sb zb", {"axis": 1}),
    ],
)
def test_values(op: str, inputs: str, attributes: dict[str, Any], dtype: Any) -> None:
    names = inputs.split()
    feeds = {n: data(dtype, 2, 3, 4, 5, seed=i) for i, n in enumerate("ab") if n in names}
    zeros = {n: np.array(z, dtype) for n, z in {"za": 3, "zb": 100, "zy": 7}.items()}
    weights = {n: v for n, v in {**SCALES, **zeros}.items() if n in names}
    node = helper.make_node(op, names, ["y"], name="q", domain=MS, **attributes)
    model = make_model([node], feeds, ["y"], weights, domains={MS: 1})
    got, want = interpret(import_model(model), feeds)["y"], run_ort(model, feeds)["y"]
    assert got.dtype == want.dtype and got.shape == want.shape
    assert np.abs(got.astype(int) - want.astype(int)).max() <= 1 and (got == want).mean() > 0.95


@pytest.mark.parametrize("trans_b", [0, 1])
def test_gemm(trans_b: int) -> None:
    feeds = {"a": data(np.uint8, 5, 12)}
    weights: dict[str, np.ndarray[Any, Any]] = {**SCALES, "za": np.array(9, np.uint8), "zy": np.array(90, np.uint8)}
    weights |= {"b": data(np.int8, *((6, 12) if trans_b else (12, 6))), "zb": np.zeros(6, np.int8)}
    weights |= {"sb": np.linspace(0.001, 0.003, 6, dtype=np.float32), "c": np.arange(-300, 300, 100, dtype=np.int32)}
    names = ["a", "sa", "za", "b", "sb", "zb", "c", "sy", "zy"]
    node = helper.make_node("QGemm", names, ["y"], name="q", domain=MS, transB=trans_b)
    model = make_model([node], feeds, ["y"], weights, domains={MS: 1})
    got, want = interpret(import_model(model), feeds)["y"], run_ort(model, feeds)["y"]
    assert got.dtype == want.dtype and np.abs(got.astype(int) - want.astype(int)).max() <= 1


def test_refused() -> None:
    feeds = {"a": data(np.uint8, 1, 3, 4, 5)}
    weights: dict[str, np.ndarray[Any, Any]] = {**SCALES, "za": np.array(0, np.uint8), "s2": np.ones(2, np.float32)}
    node = helper.make_node("QLinearSigmoid", ["a", "sa", "za", "s2", "za"], ["y"], name="q", domain=MS)
    with pytest.raises(UnsupportedError, match=r"node 'q' .*has more than one element: one for all is supported"):
        import_model(make_model([node], feeds, ["y"], weights, domains={MS: 1}))
    node = helper.make_node("QLinearConcat", ["sy", "za", "a", "sa"], ["y"], name="q", domain=MS)
    with pytest.raises(ModelError, match=r"node 'q' .*it has 4 inputs"):
        import_model(make_model([node], feeds, ["y"], weights, domains={MS: 1}))
