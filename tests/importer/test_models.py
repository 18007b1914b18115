"""Whole models: the imported graph, interpreted, gives onnxruntime's numbers."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

import models
from sparsec.compiler.errors import ModelError
from sparsec.compiler.importer.api import import_model
from tests.reference import check_model, make_model

SMALL = ("tiny_cnn", "tiny_nhwc", "tiny_transformer", "squeezenet", "mobilenet_v2", "shufflenet")
TRAINED: dict[str, dict[str, int]] = {
    "basic_pitch": {"unk__749": 1},
    "ddddocr": {},
    "ddddocr_ocr": {"image_width": 64},
    "magika": {"unk__214": 1},
}
# Imports a file in a process of its own and prints the CPU seconds and MiB that this took beyond starting Python.
RUNNER = """
import resource, sys, time
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.ops.registry import load_all
load_all()
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before, start = peak(), time.process_time()
import_model(sys.argv[1])
print(time.process_time() - start, peak() - before)
"""


@pytest.mark.parametrize("name", SMALL)
def test_small_models(name: str) -> None:
    model = models.build(name)
    check_model(model, models.inputs(model, seed=3), tolerance=5e-5)


@pytest.mark.parametrize("form", ["torchscript", "dynamo"])
def test_bert_with_dynamic_dimensions(form: str) -> None:
    """Binding leaves no shape arithmetic: every constant that is left is a weight, an index table or a scalar."""
    options: dict[str, Any] = {"layers": 1, "form": form}
    model = models.build("bert_base", dynamic_batch=True, dynamic_seq=True, **options)
    with pytest.raises(ModelError, match="dimension 0 of input 'input_ids' is dynamic"):
        import_model(model)
    symbols = [d.dim_param for d in model.graph.input[0].type.tensor_type.shape.dim]
    feeds = models.inputs(model, seed=1)
    graph = check_model(model, feeds, dims=dict(zip(symbols, (1, 16), strict=True)), tolerance=5e-5)
    assert all(graph.types[o.value].dtype.is_float for o in graph.outputs)
    assert not [n.name for n in graph if all(v in graph.constants for v in n.inputs) and graph.types[n.output].elements < 4096]


@pytest.mark.parametrize("name", TRAINED)
def test_trained_models(name: str) -> None:
    try:
        model = models.packaged(name)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    check_model(model, models.inputs(model, seed=1), dims=TRAINED[name], tolerance=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name, seconds, mebibytes", [("resnet50", 2, 500), ("bert_base", 6, 1400)])
def test_import_is_quick_and_lean(name: str, seconds: float, mebibytes: float, tmp_path: Path) -> None:
    """CPU seconds, and memory beyond the interpreter's: a file's bytes, its message and its arrays, two at a time."""
    path = tmp_path / "model.onnx"
    path.write_bytes(models.build(name).SerializeToString())
    done = subprocess.run([sys.executable, "-c", RUNNER, str(path)], capture_output=True, text=True, check=True)
    took, grew = map(float, done.stdout.split())
    assert took < seconds and grew < mebibytes


def test_a_big_graph_imports_in_linear_time() -> None:
    """Ten thousand nodes in seconds: nothing in import is quadratic."""
    n = 10_000
    nodes = [helper.make_node("Relu", [f"v{i}"], [f"v{i + 1}"], name=f"n{i}") for i in range(n)]
    model = make_model(nodes, {"v0": np.zeros((2, 3), np.float32)}, [f"v{n}"])
    start = time.thread_time()
    assert len(import_model(model).nodes) == n
    assert time.thread_time() - start < 10
