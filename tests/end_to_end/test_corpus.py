"""The graphs of tests/corpus, as exporters wrote them: the same numbers as onnxruntime, imported and compiled."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from sparsec.compiler.graph import Graph
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.interpreter import interpret
from sparsec.compiler.verify_model import relative_error
from tests.backends.cpu.compiled import compile_graph, merged, run_graph, split
from tests.reference import run_ort

Array = np.ndarray[Any, Any]
FOLDER = Path(__file__).parents[1] / "corpus"
NAMES = sorted(p.stem for p in FOLDER.glob("*.onnx"))
TOLERANCE = 1e-5


@cache
def model(name: str) -> onnx.ModelProto:
    """The exported graph."""
    return onnx.load(FOLDER / f"{name}.onnx")


@cache
def graph(name: str) -> Graph:
    """It, imported for a batch of two."""
    return import_model(model(name), dims={"batch": 2} if symbolic(name) else {})


def symbolic(name: str) -> bool:
    """Whether the batch is a symbol."""
    return any(d.dim_param for v in model(name).graph.input for d in v.type.tensor_type.shape.dim)


def feeds(name: str, seed: int) -> dict[str, Array]:
    """Normally distributed numbers, token ids, and masks whose first element is set."""
    rng = np.random.default_rng(seed)
    made: dict[str, Array] = {}
    for value in graph(name).inputs:
        t = graph(name).types[value]
        if t.dtype.is_float:
            made[value] = rng.standard_normal(t.shape).astype(np.float32)
        else:
            made[value] = rng.integers(0, 20 if value == "in0" else 2, t.shape)
            made[value][..., 0] = 1
    return made


def wrong(got: dict[str, Array], want: dict[str, Array]) -> dict[str, float]:
    """Outputs that differ, with their errors; integers must be the same."""
    assert set(got) == set(want)
    for name, expected in want.items():
        assert (got[name].dtype, got[name].shape) == (expected.dtype, expected.shape), name
    errors = {name: relative_error(got[name], expected) for name, expected in want.items()}
    return {n: e for n, e in errors.items() if e > (0.0 if want[n].dtype.kind in "iub" else TOLERANCE)}


def test_every_file_is_described() -> None:
    text = (FOLDER / "README.md").read_text()
    assert [line.split()[1] for line in text.splitlines() if ".onnx |" in line] == [f"{n}.onnx" for n in NAMES]


@pytest.mark.parametrize("name", NAMES)
def test_import(name: str) -> None:
    inputs = feeds(name, 0)
    want = run_ort(model(name), inputs)
    assert not wrong(interpret(graph(name), inputs), want)
    again = run_ort(model(name), feeds(name, 1))
    assert any(not np.array_equal(again[k], want[k]) for k in want), "the outputs do not depend on the inputs"


@pytest.mark.parametrize("target", ["host", "generic"])
def test_compiled(target: str, tmp_path: Path) -> None:
    made = compile_graph(merged({name: graph(name) for name in NAMES}), target, tmp_path, threads=2)
    for seed in range(2):
        inputs = {name: feeds(name, seed) for name in NAMES}
        want = split({name: run_ort(model(name), inputs[name]) for name in NAMES})
        assert not wrong(run_graph(made, tmp_path, split(inputs)), want)
