"""Quantised models as files: what import and the passes make of them are the integers that quantisation chose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from sparsec.compiler.dtypes import DType
from sparsec.compiler.exporter.nodes import NodeEditor
from sparsec.compiler.graph import Graph
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.interpreter import interpret
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.passing.runner import run_pipeline
from sparsec.compiler.text.printer import print_graph
from sparsec.passes.pipelines import DEFAULT
from sparsec.passes.pruning.model import prune
from sparsec.passes.quantisation.fold_batchnorm import fold_batchnorm
from sparsec.passes.quantisation.layers import Layer, find_layers
from sparsec.passes.quantisation.model import quantise
from sparsec.passes.quantisation.settings import Settings
from sparsec.passes.quantisation.weights import quantise_bias, quantise_weights
from tests.quantisation.networks import residual, samples
from tests.reference import run_ort

Array = np.ndarray[Any, Any]
X = samples((2, 3, 8, 8))
HOW = [
    Settings(threads=1, correct_bias=False),
    Settings(threads=1, correct_bias=False, reduce_range=True),
    Settings(threads=1, correct_bias=False, power_of_two=True, per_channel=False),
]


def optimised(path: Path) -> Graph:
    return run_pipeline(import_model(path, dims={"n": 2}), DEFAULT)


def float_layers(model: onnx.ModelProto) -> dict[str, Layer]:
    editor = NodeEditor(model)
    fold_batchnorm(editor)
    return {x.name: x for x in find_layers(editor) if isinstance(x, Layer)}


@pytest.mark.parametrize("how", HOW, ids=["default", "reduced", "powers"])
@pytest.mark.parametrize("pattern", ["", "2:4"])
def test_import_finds_the_integers_that_were_chosen(how: Settings, pattern: str, tmp_path: Path) -> None:
    model = prune(residual(), pattern, dims={"n": 1}).proto if pattern else residual()
    found = quantise(model, X, how)
    found.save(tmp_path / "q.onnx")
    graph, layers = optimised(tmp_path / "q.onnx"), float_layers(model)
    reports = {x.node: x for x in found.report.layers}
    products = {o: n for n in graph.nodes if isinstance(n.op, Conv | MatMul) for o in n.origin if o in layers}
    assert set(products) == set(layers)
    for name, node in products.items():
        layer, report = layers[name], reports[name]
        assert report.x_scale is not None
        scales = {"per_channel": how.per_channel, "power_of_two": how.power_of_two, "reduce_range": how.reduce_range}
        chosen = quantise_weights(layer.weights, layer.axis, bias=layer.bias, x_scale=report.x_scale, **scales)
        w = graph.constants[node.inputs[1]]
        assert graph.types[node.inputs[0]].dtype is DType.U8 and w.dtype == np.int8 and node.op.zero == report.x_zero_point
        same = chosen.data if w.shape == chosen.data.shape else chosen.data.T
        np.testing.assert_array_equal(w, same)
        assert np.abs(w.astype(int)).max() <= (64 if how.reduce_range else 127)
        if layer.bias is not None:
            bias = quantise_bias(layer.bias, report.x_scale, chosen.scale)[0]
            given = [a.reshape(-1) for v in node.inputs[2:] if (a := graph.constants.get(v)) is not None and a.dtype == np.int32]
            assert len(given) == 1
            np.testing.assert_array_equal(given[0], bias)


def test_saving_again_changes_nothing(tmp_path: Path) -> None:
    quantise(residual(), X, HOW[0]).save(tmp_path / "q.onnx")
    first = optimised(tmp_path / "q.onnx")
    onnx.save(onnx.load(tmp_path / "q.onnx"), tmp_path / "again.onnx", save_as_external_data=True, size_threshold=0)
    assert print_graph(optimised(tmp_path / "again.onnx")) == print_graph(first)
    x = {"x": samples((2, 3, 8, 8), 1, seed=9)[0]}
    got, want = interpret(first, x)["out"], run_ort(onnx.load(tmp_path / "q.onnx"), x)["out"]
    np.testing.assert_allclose(got, want, atol=0.05 * np.abs(want).max())
