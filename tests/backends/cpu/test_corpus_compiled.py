"""ONNX's own backend node tests through the default pipeline and the C backend, hundreds of cases a library."""

from __future__ import annotations

from functools import cache
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


@cache
def optimised() -> dict[str, tuple[Any, Graph]]:
    """Every case that the importer takes (its own test lists the others), through the default pipeline."""
    target, found = CpuTarget.named("host"), {}
    for case in (c for group in cases().values() for c in group):
        try:
            graph = import_case(case)
        except SparsecError:
            continue
        found[case.name] = (case, run_pipeline(graph, (*DEFAULT, Legalise(target))))
    return found


@cache
def unsupported() -> dict[str, str]:
    """Cases with a node that has no kernel: the node's operator and its operands."""
    target, found = CpuTarget.named("host"), {}
    for name, (_, graph) in optimised().items():
        for node in graph.nodes:
            if not target.legal(graph, node):
                found[name] = f"{node.op.name} of {', '.join(str(t) for t in graph.in_types(node) if t)}"
    return found


def test_every_case_has_kernels() -> None:
    assert len(optimised()) > 1200
    assert unsupported() == {}


@pytest.mark.parametrize("batch", range(BATCHES))
def test_compiled_cases_give_what_onnx_expects(batch: int, tmp_path: Path) -> None:
    part = list(optimised())[batch::BATCHES]
    made = compile_graph(merged({name: optimised()[name][1] for name in part}), "host", tmp_path, passes="none")
    feeds = {name: _feeds(*optimised()[name]) for name in part}
    results = run_graph(made, tmp_path, split(feeds))
    for name in part:
        case, graph = optimised()[name]
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
