"""The benchmark of the cost model runs by itself, and judges choices by what was measured."""

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.cost_model import Verdict, report

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "cost_model.py"


def bench(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], cwd=cwd, capture_output=True, text=True)


def test_a_small_model(tmp_path: Path) -> None:
    done = bench(tmp_path, "tiny_cnn:2:4/rows=16", "--rounds", "1", "--target", "generic", "--json", "out.json")
    assert done.returncode == 0, done.stderr
    data = json.loads((tmp_path / "out.json").read_text())
    assert done.stdout.splitlines()[0] == data["header"]
    (found,) = data["results"]
    layers = {layer["layer"]: layer for layer in found["layers"]}
    assert {"/block/first/conv/Conv", "/pointwise/Conv"} <= set(layers) and "/depthwise/conv/Conv" not in layers
    assert {"dense panels", "sparse panels"} <= set(layers["/block/first/conv/Conv"]["us"])
    assert found["good"] == sum(layer["good"] for layer in layers.values())
    assert f"{found['good']} of {len(layers)} layers within 10 % of the best measured kernel" in done.stdout


def test_verdicts_in_words() -> None:
    near = Verdict("a", "2:4", "x", "y", {"x": 10.5, "y": 10.0}, {"x": 1.0, "y": 2.0})
    far = Verdict("b", "2:4", "x", "y", {"x": 15.0, "y": 10.0}, {"x": 1.0, "y": 2.0})
    assert near.good and not far.good
    lines = report("net", [near, far]).splitlines()
    assert lines[0] == (
        "net: 1 of 2 layers within 10 % of the best measured kernel (50 %, goal 90 % missed); "
        "together they take 1.275 times the best"
    )
    assert [line.split()[0] for line in lines[1:]] == ["layer", "b"] and lines[2].endswith("1.50")
    assert report("net", [near]).endswith("(100 %, goal 90 % met); together they take 1.050 times the best")
    assert report("net", []) == "net: no layer has a choice"


def test_mistakes(tmp_path: Path) -> None:
    done = bench(tmp_path, "nonesuch:2:4")
    assert done.returncode == 2 and "no model is called nonesuch" in done.stderr
    done = bench(tmp_path, "tiny_cnn:2by4")
    assert done.returncode == 1 and "tiny_cnn:2by4: pattern '2by4' is not known" in done.stdout
