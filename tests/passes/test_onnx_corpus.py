"""The default pipeline keeps the meaning of ONNX's own node tests, whatever of them is constant."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sparsec.compiler.errors import SparsecError
from sparsec.compiler.interpreter import interpret
from sparsec.compiler.passing.runner import run_pipeline
from sparsec.passes.pipelines import DEFAULT
from tests.onnx_corpus import cases, feeds_of, import_case


def _check(case: Any, constants: list[str]) -> bool:
    """Whether the case imports; then it must not change."""
    try:
        graph = import_case(case, constants)
    except SparsecError:
        return False  # tests/compiler/ops/test_onnx_corpus.py lists which may
    feeds = {name: array for name, array in feeds_of(case).items() if name in graph.inputs}
    before, after = interpret(graph, feeds), interpret(run_pipeline(graph, DEFAULT), feeds)
    for name, want in before.items():
        got = after[name]
        assert (got.dtype, got.shape) == (want.dtype, want.shape), (case.name, name)
        if want.dtype.kind in "iub":
            np.testing.assert_array_equal(got, want, err_msg=case.name)
        else:
            got, wide = got.astype(np.float64), want.astype(np.float64)
            scale = max(1.0, float(np.abs(wide[np.isfinite(wide)]).max(initial=0.0)))
            atol = (1e-5 if want.dtype.itemsize > 2 else 2e-2) * scale
            np.testing.assert_allclose(got, wide, rtol=1e-3, atol=atol, err_msg=case.name)
    return True


@pytest.mark.parametrize("constant", ["nothing", "all but the first input", "everything"])
def test_the_default_pipeline_keeps_the_results(constant: str) -> None:
    ran = 0
    for case in (c for found in cases().values() for c in found):
        names = list(feeds_of(case))
        ran += _check(case, {"nothing": [], "everything": names}.get(constant, names[1:]))
    assert ran > 1000
