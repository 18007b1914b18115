"""Weights with zeros: packed exactly, chosen when rows are empty often enough, and equal to the dense computation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from sparsec.backends.cpu.kernels.panel_pack import occupied_rows, pack, sparse_runs
from sparsec.compiler.driver import compile as compile_model
from tests.machine import needs

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


def zeroed(rng: np.random.Generator, shape: tuple[int, int, int], rows: int, keep: float) -> Floats:
    """Random weights [OC, taps, IC] in which groups of `rows` outputs share the inputs that they read."""
    w = rng.standard_normal(shape).astype(np.float32)
    mask = rng.random((-(-shape[0] // rows), *shape[1:])) < keep
    return w * np.repeat(mask, rows, axis=0)[: shape[0]]


@given(st.integers(1, 40), st.integers(1, 4), st.integers(1, 21), st.sampled_from([4, 8, 16]), st.integers(0, 2**32 - 1))
def test_packing_keeps_every_weight(oc: int, taps: int, ic: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    w = zeroed(rng, (oc, taps, ic), width, 0.4)
    runs = sparse_runs(w, width, 4)
    rows = pack(w, runs, width, 1).reshape(-1, width)
    back = np.zeros((len(runs.begin) - 1, width, taps, ic), np.float32)
    for p in range(len(runs.begin) - 1):
        for i in range(runs.begin[p], runs.begin[p + 1]):
            back[p, :, runs.tap[i], runs.channel[i]] = rows[i]
    np.testing.assert_array_equal(back.reshape(-1, taps, ic)[:oc], w)
    assert len(rows) == np.count_nonzero(occupied_rows(w, width))


def pruned_model(seed: int) -> tuple[onnx.ModelProto, dict[str, Floats]]:
    """Convolutions (pointwise, 3x3, strided, grouped, ragged channels) and a matrix product, all with most inputs left out."""
    rng = np.random.default_rng(seed)
    layers = [(64, 64, 1, 1, 1), (96, 48, 3, 1, 1), (40, 24, 3, 2, 1), (64, 32, 3, 1, 2), (33, 65, 1, 1, 1)]
    nodes, weights, inputs, feeds = [], [], [], {}
    for i, (oc, ic, k, stride, groups) in enumerate(layers):
        w = zeroed(rng, (oc, k * k, ic // groups), 32, 0.3).reshape(oc, k, k, ic // groups)
        weights.append(numpy_helper.from_array(np.ascontiguousarray(w.transpose(0, 3, 1, 2)), f"w{i}"))
        weights.append(numpy_helper.from_array(rng.standard_normal(oc).astype(np.float32), f"b{i}"))
        conv = {"strides": [stride] * 2, "pads": [k // 2] * 4, "group": groups}
        nodes += [helper.make_node("Conv", [f"x{i}", f"w{i}", f"b{i}"], [f"c{i}"], name=f"conv{i}", **conv)]
        nodes += [helper.make_node("Relu", [f"c{i}"], [f"y{i}"])]
        feeds[f"x{i}"] = rng.standard_normal((1, ic, 13, 15)).astype(np.float32)
    whole = zeroed(rng, (96, 1, 80), 32, 0.3).reshape(96, 80, 1, 1) * rng.standard_normal((96, 80, 3, 3)).astype(np.float32)
    weights.append(numpy_helper.from_array(whole, "wc"))
    nodes.append(helper.make_node("Conv", ["xc", "wc"], ["yc"], name="channels", pads=[1] * 4))
    feeds["xc"] = rng.standard_normal((1, 80, 28, 27)).astype(np.float32)
    w = np.ascontiguousarray(zeroed(rng, (70, 1, 100), 16, 0.3)[:, 0].T)
    weights.append(numpy_helper.from_array(w, "wm"))
    nodes.append(helper.make_node("MatMul", ["xm", "wm"], ["ym"], name="product"))
    feeds["xm"] = rng.standard_normal((2, 19, 100)).astype(np.float32)
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, v.shape) for n, v in feeds.items()]
    outputs = [helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, None) for i in [*range(len(layers)), "c", "m"]]
    graph = helper.make_graph(nodes, "pruned", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), feeds


@needs("gcc")
@pytest.mark.parametrize("target", ["host", "x86_64+avx2+fma", "generic"])
def test_pruned_layers_compute_the_same(target: str, tmp_path: Path) -> None:
    model, feeds = pruned_model(7)
    compiled = compile_model(model, tmp_path / "out", target=target)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    wanted = session.run(None, feeds)
    for name, want in zip((o.name for o in session.get_outputs()), wanted, strict=True):
        np.testing.assert_allclose(compiled.run(feeds)[name], want, rtol=1e-4, atol=1e-4 * np.abs(want).max())
    found = {layer.node: layer for layer in compiled.report.layers}
    assert all(found[name].sparse for name in ("conv0", "product", "channels"))
