"""The benchmark runs by itself, and its table and its JSON say the same."""

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.cpu_dense import GOALS
from models import names

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "cpu_dense.py"


def bench(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], cwd=cwd, capture_output=True, text=True)


def test_a_small_model(tmp_path: Path) -> None:
    effort = ["--rounds", "1", "--seconds", "0.01", "--samples", "2"]
    done = bench(tmp_path, "tiny_cnn", *effort, "--threads", "2", "--json", "out.json")
    assert done.returncode == 0, done.stderr
    data = json.loads((tmp_path / "out.json").read_text())
    lines = done.stdout.splitlines()
    assert lines[0] == data["header"] and "2 thread(s)" in lines[0]
    (found,) = data["results"]
    assert (found["model"], found["samples"], found["threads"]) == ("tiny_cnn", 2, 2)
    assert found["error"] <= 1e-4 and set(found["ratios"]) >= {"onnxruntime", "sparsec, 1 thread"}
    assert found["arena_bytes"] >= found["arena_bound_bytes"] > 0
    assert found["compile_peak_bytes"] > 1 << 20 and found["compile_wall_s"] > 0
    row = lines[-1]
    assert row.startswith("tiny_cnn  ") and f"{found['engines']['sparsec']['wall_ms']:.2f}" in row
    assert f"{found['error']:.1e}" in row and f"{found['ratios']['onnxruntime']:.3f}" in row


def test_mistakes(tmp_path: Path) -> None:
    done = bench(tmp_path, "nonesuch")
    assert done.returncode == 2 and "no model is called nonesuch" in done.stderr
    done = bench(tmp_path, "tiny_cnn", "--targets", "z80")
    assert done.returncode == 1 and "tiny_cnn for z80: status 2: error: target 'z80' is not known" in done.stdout


def test_every_goal_is_of_a_model() -> None:
    assert set(GOALS) <= set(names())
