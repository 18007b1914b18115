"""Reductions of values as the layers around them store them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from sparsec.backends.cpu.isa import Isa
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.interpreter import interpret
from tests.backends.cpu.compiled import compile_graph, run_graph
from tests.backends.cpu.harness import RUNNABLE, by_name
from tests.machine import needs


@needs("gcc")
@pytest.mark.parametrize("isa", RUNNABLE, ids=by_name)
@pytest.mark.parametrize("channels", [32, 21])
def test_extremes_of_everything_are_taken_as_it_is_stored(isa: Isa, channels: int, tmp_path: Path) -> None:
    """Of a value in channel blocks with a halo, where no lane of the last block is another channel's."""
    rng = np.random.default_rng(0)
    tensors = {"w": rng.normal(size=(channels, 8, 1, 1)) - 2, "v": rng.normal(size=(8, channels, 3, 3))}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["y"], name="y"),
        helper.make_node("ReduceMax", ["y"], ["high"], name="high", keepdims=0),
        helper.make_node("ReduceMin", ["y"], ["low"], name="low", keepdims=1),
        helper.make_node("Conv", ["y", "v"], ["z"], name="z", pads=[1, 1, 1, 1]),
    ]
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (2, 8, 9, 7))
    outputs = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in ("high", "low", "z")]
    weights = [onnx.numpy_helper.from_array(a.astype(np.float32), n) for n, a in tensors.items()]
    model = helper.make_model(helper.make_graph(nodes, "g", [x], outputs, weights), opset_imports=[helper.make_opsetid("", 17)])
    graph, feeds = import_model(model), {"x": rng.uniform(1, 2, (2, 8, 9, 7)).astype(np.float32)}
    made = compile_graph(graph, isa.name, tmp_path)
    got, want = run_graph(made, tmp_path, feeds), interpret(graph, feeds)
    for name in ("high", "low", "z"):  # all numbers are below 0: a halo of zeros is no maximum
        np.testing.assert_allclose(got[name], want[name], rtol=1e-4, atol=1e-2 if name == "z" else 1e-4)
    assert want["high"] < 0
    copied = [n for n in made.graph.nodes if n.op.name == "Relayout" and "y" in n.inputs[0]]
    assert isa.lanes == 1 or channels == 21 or not copied
