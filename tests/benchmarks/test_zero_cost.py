"""The zero-cost benchmark runs by itself, and tells a wrong twin from a right one."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from benchmarks.side_by_side import build_model, inputs_for
from benchmarks.zero_cost import COPY, ORIGINAL, REORDERED, Result, double_error, reorder
from sparsec.compiler.errors import InternalError

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "zero_cost.py"


def bench(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], cwd=cwd, capture_output=True, text=True)


def test_a_small_model(tmp_path: Path) -> None:
    done = bench(tmp_path, "tiny_cnn", "--rounds", "1", "--seconds", "0.01", "--json", "out.json")
    assert done.returncode == 0, done.stderr
    (found,) = json.loads((tmp_path / "out.json").read_text())["results"]
    assert (found["model"], found["ok"], found["same_operations"], found["same_source"]) == ("tiny_cnn", True, True, True)
    assert found["classes"] > 0 and found["constants"] > 0 and 0 < found["error"] <= 1e-5 and found["double_error"] is None
    assert set(found["ms"]) == {ORIGINAL, COPY, REORDERED} and set(found["ratios"]) == {COPY, REORDERED}
    assert f"{found['ratios'][REORDERED]:.3f}" in done.stdout.splitlines()[-1]


def test_mistakes(tmp_path: Path) -> None:
    done = bench(tmp_path, "nonesuch")
    assert done.returncode == 2 and "no model is called nonesuch" in done.stderr


def test_double_precision_tells_rounding_from_a_wrong_order(tmp_path: Path) -> None:
    path = build_model("tiny_cnn", tmp_path)
    twin = reorder(path, tmp_path / "twin.onnx", seed=1)
    feeds = inputs_for(path, 1)[0]
    assert double_error(path, twin.path, feeds) < 1e-12
    model = onnx.load(twin.path)
    tensor = next(t for t in model.graph.initializer if len(t.dims) == 4 and t.dims[1] > 1)
    array = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array[:, ::-1]), tensor.name))
    onnx.save(model, twin.path)
    with pytest.raises(InternalError, match="when channels are permuted"):
        double_error(path, twin.path, feeds)


@pytest.mark.parametrize(
    ("operations", "source", "error", "double", "ok"),
    [
        (True, True, 9e-6, None, True),
        (True, True, 3e-5, 1e-14, True),
        (True, True, 3e-5, 1e-6, False),
        (False, True, 0.0, None, False),
        (True, False, 0.0, None, False),
    ],
)
def test_what_counts_as_the_same(operations: bool, source: bool, error: float, double: float | None, ok: bool) -> None:
    assert Result("m", 1, 1, 1, operations, source, error, double, {}).ok == ok
