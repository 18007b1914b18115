"""LayerNorm's import rules and numpy meaning against onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from sparsec.compiler.errors import ModelError, UnsupportedError
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.ops.layer_norm import LayerNorm
from tests.reference import check_model, check_node, make_model


def data(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@settings(max_examples=12)
@given(shape=st.lists(st.integers(1, 7), min_size=1, max_size=4), seed=st.integers(0, 9), draw=st.data())
def test_layer_normalization(shape: list[int], seed: int, draw: st.DataObject) -> None:
    axis = draw.draw(st.integers(-len(shape), len(shape) - 1))
    inner = shape[axis:]
    weights = {"scale": data(*inner, seed=seed + 1)}
    if draw.draw(st.booleans()):
        weights["bias"] = data(*inner, seed=seed + 2)
    graph = check_node(
        "LayerNormalization", {"x": 3 * data(*shape, seed=seed) + 1}, weights, axis=axis, epsilon=1e-3, tolerance=1e-4
    )
    assert [n.op for n in graph] == [LayerNorm(axis % len(shape), pytest.approx(1e-3))]


@pytest.mark.parametrize("op_type, opset", [("RMSNormalization", 23), ("SimplifiedLayerNormalization", 21)])
def test_rms(op_type: str, opset: int) -> None:
    graph = check_node(op_type, {"x": data(2, 3, 8)}, {"scale": data(8, seed=1)}, axis=-1, epsilon=1e-2, opset=opset)
    assert graph.nodes[0].op == LayerNorm(2, pytest.approx(1e-2), rms=True)


def test_skip_layer_normalization() -> None:
    feeds = {"x": data(2, 3, 8), "skip": data(2, 3, 8, seed=1)}
    weights = {"gamma": data(8, seed=2), "beta": data(8, seed=3), "bias": data(8, seed=4)}
    outputs = ["y", "", "", "sum"]
    check_node("SkipLayerNormalization", feeds, weights, outputs=outputs, domain="com.microsoft", epsilon=1e-3, tolerance=1e-4)
    without_bias = {"gamma": weights["gamma"]}
    check_node("SkipLayerNormalization", feeds, without_bias, domain="com.microsoft", tolerance=1e-4)
    check_node("SkipSimplifiedLayerNormalization", feeds, without_bias, outputs=outputs, domain="com.microsoft", tolerance=1e-4)


def test_the_statistics_cannot_be_read() -> None:
    nodes = [
        helper.make_node("LayerNormalization", ["x", "s"], ["y", "mean"], name="norm"),
        helper.make_node("Relu", ["mean"], ["z"]),
    ]
    weights = {"s": np.ones(4, np.float32)}
    check_model(make_model(nodes[:1], {"x": data(2, 4)}, ["y"], weights), {"x": data(2, 4)})
    with pytest.raises(UnsupportedError, match=r"output 1 \('mean'\) of node 'norm' \(LayerNormalization\) is not supported"):
        import_model(make_model(nodes, {"x": data(2, 4)}, ["y", "z"], weights))


def test_parameters_must_fit() -> None:
    node = helper.make_node("LayerNormalization", ["x", "s"], ["y"], name="norm")
    with pytest.raises(ModelError, match=r"node 'norm' .*scale or bias f32\[5\] does not fit the normalised dimensions \[4\]"):
        import_model(make_model([node], {"x": data(2, 4)}, ["y"], {"s": np.ones(5, np.float32)}))
