"""ONNX's own backend node tests through the default pipeline and the C backend, hundreds of cases a library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparsec.backends.cpu.target import CpuTarget
from sparsec.compiler.errors import SparsecError
from sparsec.compiler.graph import Graph
from sparsec.compiler.passing.runner import run_pipeline
from sparsec.passes.legalise import Legalise
from sparsec.passes.pipelines import DEFAULT
from tests.backends.cpu.compiled import compile_graph, merged, run_graph, split
from tests.onnx_corpus import cases, feeds_of, import_case, outputs_of

Array = np.ndarray[Any, Any]
BATCHES = 4
# case -> why the result differs from ONNX's
DIFFERENT = {
    "test_resize_downsample_scales_linear_align_corners": "ONNX takes the output extent before rounding, onnxruntime after",
    "test_resize_downsample_scales_cubic_align_corners": "ONNX takes the output extent before rounding, onnxruntime after",
    "test_attention_causal_boolmask_nan_robustness": "a line that is masked throughout gives NaN, as softmax does, not 0",
    "test_attention_23_boolmask_fullymasked_row_nan_robustness": "a line that is masked throughout gives NaN, not 0",
}


def optimised(batch: int) -> dict[str, tuple[Any, Graph]]:
    """A part of the cases that the importer takes (its own test lists the others), through the default pipeline."""
    target, found = CpuTarget.named("host"), {}
    for case in [c for group in cases().values() for c in group][batch::BATCHES]:
        try:
            graph = import_case(case)
        except SparsecError:
            continue
        found[case.name] = (case, run_pipeline(graph, (*DEFAULT, Legalise(target))))
    return found


@pytest.mark.parametrize("batch", range(BATCHES))
def test_compiled_cases_give_what_onnx_expects(batch: int, tmp_path: Path) -> None:
    part = optimised(batch)
    assert len(part) > 250
    made = compile_graph(merged({name: graph for name, (_, graph) in part.items()}), "host", tmp_path, passes="none")
    results = run_graph(made, tmp_path, split({name: _feeds(*both) for name, both in part.items()}))
    for name, (case, graph) in part.items():
        for port, want in zip(graph.outputs, outputs_of(case), strict=False):  # further outputs are ONNX's for training
            got = results[f"{name}/{port.name}"]
            assert (got.dtype, got.shape) == (want.dtype, want.shape), name
            if name not in DIFFERENT:
                _compare(name, got, want)


def _feeds(case: Any, graph: Graph) -> dict[str, Array]:
    return {k: a for k, a in feeds_of(case).items() if k in graph.inputs}


def _compare(name: str, got: Array, want: Array) -> None:
    if want.dtype.kind in "iub":
        np.testing.assert_array_equal(got, want, err_msg=name)
    else:
        atol = 1e-5 if want.dtype.itemsize > 2 else 1e-2
        np.testing.assert_allclose(got.astype(float), want.astype(float), rtol=1e-3, atol=atol, err_msg=name)
