"""Every operator through the whole compiler to C, compared with onnxruntime. Many cases make one library."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparsec.backends.cpu.isa import isa_named, runs_here
from sparsec.compiler.graph import Graph
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.interpreter import interpret
from sparsec.compiler.verify_model import relative_error
from tests.backends.cpu.compiled import SANITIZE, compile_graph, merged, run_graph, run_sanitized, split
from tests.backends.cpu.op_cases import Case, all_cases
from tests.backends.cpu.random_graphs import random_case
from tests.reference import run_ort

Array = np.ndarray[Any, Any]
# cases that onnxruntime refuses, or computes differently, for the reason given
INTERPRETED = {
    "lrn_even": "it takes odd sizes only",
    "resize_linear_all": "it interpolates images only",
}
TARGETS = ["host", "x86_64+avx2+fma", "generic"]


@cache
def graphs() -> dict[str, Graph]:
    """The cases, imported."""
    return {name: import_model(case.model) for name, case in all_cases().items()}


@cache
def references() -> dict[str, Array]:
    """Output of the merged graph -> array, by onnxruntime, or by the interpreter where onnxruntime has no such kernel."""
    return split({name: reference(case, graphs()[name]) for name, case in all_cases().items()})


def reference(case: Case, graph: Graph) -> dict[str, Array]:
    """Outputs of one case."""
    if case.name in INTERPRETED:
        return interpret(graph, case.feeds)
    try:
        return run_ort(case.model, case.feeds)
    except Exception as exc:  # onnxruntime's exceptions share no base class
        assert "NOT_IMPLEMENTED" in str(exc) or "Could not find an implementation" in str(exc), (case.name, exc)
        return interpret(graph, case.feeds)


def differences(got: dict[str, Array], want: dict[str, Array], tolerance: float = 1e-5) -> dict[str, float]:
    """Outputs that are wrong, with their errors."""
    assert set(got) == set(want)
    wrong = {}
    for name, expected in want.items():
        assert (got[name].dtype, got[name].shape) == (expected.dtype, expected.shape), name
        error = relative_error(got[name], expected)
        bound = 0.0 if expected.dtype.kind in "iub" else 2e-3 if expected.dtype.itemsize == 2 else tolerance
        if error > bound:
            wrong[name] = error
    return wrong


def feeds() -> dict[str, Array]:
    """Inputs of the merged graph."""
    return split({name: dict(case.feeds) for name, case in all_cases().items()})


@pytest.mark.parametrize("target", TARGETS)
def test_cases(target: str, tmp_path: Path) -> None:
    if target != "host" and not runs_here(isa_named(target)):
        pytest.skip(f"this CPU lacks {target}")
    made = compile_graph(merged(graphs()), target, tmp_path, threads=1 if target == "host" else 2)
    assert differences(run_graph(made, tmp_path, feeds()), references()) == {}


@pytest.mark.parametrize("target", ["host", "generic"])
def test_random_graphs(target: str, tmp_path: Path) -> None:
    found = {case.name: case for case in map(random_case, range(15, 45))}
    made = compile_graph(merged({n: import_model(c.model) for n, c in found.items()}), target, tmp_path, threads=2)
    want = split({name: run_ort(case.model, case.feeds, optimise=False) for name, case in found.items()})
    results = run_graph(made, tmp_path, split({name: dict(case.feeds) for name, case in found.items()}))
    assert differences(results, want, tolerance=2e-5) == {}


def test_cases_under_sanitizers(tmp_path: Path) -> None:
    made = compile_graph(merged(graphs()), "host", tmp_path, flags=("-O0", *SANITIZE))
    assert differences(run_sanitized(made, tmp_path, feeds()), references()) == {}
