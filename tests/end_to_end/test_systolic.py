"""From an ONNX file to a folder of streams for a systolic array, and the outputs from that folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import models
from sparsec.backends.systolic.folder import read_folder
from sparsec.compiler.errors import ModelError, UsageError
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.interpreter import interpret
from sparsec.compiler.systolic_driver import compile_systolic, plan_systolic, simulate_systolic


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.onnx"
    onnx.save(models.build("tiny_cnn"), path)
    return path


def test_a_pruned_model_runs_from_its_folder(file: Path, tmp_path: Path) -> None:
    target, pattern = "flexisaga:8x8", "block:8x1@75%/taps=each"
    emitted = compile_systolic(file, tmp_path / "out", target=target, recipe=pattern)
    assert emitted.machine.name == target and not list(tmp_path.glob(".out*"))
    assert {e.mapping.dataflow.value for e in emitted.layers} & {"sOS", "sWS"}
    dense = plan_systolic(file, target=target)
    assert sum(e.timed().total.cycles for e in emitted.layers) == emitted.network().cycles < dense.cycles
    feeds = models.inputs(models.build("tiny_cnn"))
    run = simulate_systolic(tmp_path / "out", feeds)
    for name, expected in interpret(emitted.network().graph, feeds).items():
        np.testing.assert_allclose(run.outputs[name], expected, rtol=1e-4, atol=1e-5)
    again = compile_systolic(file, tmp_path / "out", target=target)  # takes the place of the first one
    assert again.network().cycles == dense.cycles
    wanted = interpret(import_model(file), feeds)
    for name, value in simulate_systolic(tmp_path / "out", feeds).outputs.items():
        np.testing.assert_allclose(value, wanted[name], rtol=1e-4, atol=1e-5)


def test_what_cannot_be(file: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'flexisaga:8' is not a systolic array"):
        compile_systolic(file, tmp_path / "out", target="flexisaga:8")
    assert not (tmp_path / "out").exists()
    compile_systolic(file, tmp_path / "out", target="sat:4x4")
    with pytest.raises(UsageError, match="input 'input' is missing"):
        simulate_systolic(tmp_path / "out", {})
    with pytest.raises(UsageError, match=r"input 'input' is float32\[1\], expected f32"):
        simulate_systolic(tmp_path / "out", {"input": np.zeros(1, np.float32)})
    (tmp_path / "out" / "graph.txt").write_text("")
    with pytest.raises(ModelError):
        read_folder(tmp_path / "out").network()
