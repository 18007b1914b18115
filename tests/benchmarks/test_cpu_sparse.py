"""What pruning left is counted right, and the benchmark runs by itself."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import models
from benchmarks.cpu_sparse import main
from benchmarks.sparse_side import mac_ratio, sparse_layers, weigh
from sparsec.backends.cpu.describe import describe_layers
from sparsec.backends.cpu.target import CpuTarget
from sparsec.compiler.driver import build
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.report import Layer
from sparsec.passes.pruning.model import prune
from sparsec.passes.pruning.recipe import make_recipe
from tests.benchmarks.test_peers import stub_engine
from tests.reference import make_model

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "cpu_sparse.py"
RNG = np.random.default_rng(5)


def test_mac_ratio() -> None:
    layers = [
        Layer(node="conv", origin=("/conv", "/relu"), op="Conv", macs=1000),
        Layer(node="view", origin=("/conv",), op="Reshape"),
        Layer(node="fc", origin=("/fc",), op="MatMul", macs=300),
        Layer(node="two", origin=("/query", "/key"), op="MatMul", macs=200),
        Layer(node="pool", origin=("/pool",), op="Pool", macs=100),
    ]
    counts = {"/conv": (25, 100), "/fc": (70, 70), "/query": (10, 40), "/key": (20, 20)}
    assert mac_ratio(layers, counts) == pytest.approx(1600 / (250 + 300 + 200 * 30 / 60 + 100))
    assert mac_ratio(layers, {}) == mac_ratio([], {}) == 1


def test_weights_are_weighed(tmp_path: Path) -> None:
    """A convolution with 4 taps pruned to half of its 8x8 blocks, and a classifier that is spared."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv", kernel_shape=[2, 2]),
        helper.make_node("Flatten", ["c"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "v"], ["y"], name="fc"),
    ]
    weights = {"w": RNG.standard_normal((32, 16, 2, 2)), "v": RNG.standard_normal((32 * 9, 10))}
    x = np.zeros((1, 16, 4, 4), np.float32)
    model = make_model(nodes, {"x": x}, ["y"], {k: v.astype(np.float32) for k, v in weights.items()})
    pruned = prune(model, make_recipe({"pattern": "block:8x8@50%", "spare": ["classifier"]}))
    pruned.save(tmp_path / "pruned.onnx")
    assert [layer.status for layer in pruned.report.layers] == ["pruned", "spared"]
    assert [layer.node for layer in sparse_layers(pruned.report)] == ["conv"]
    made = build(import_model(tmp_path / "pruned.onnx"), CpuTarget.named("generic", 1))
    layers = describe_layers(made.graph, made.schedule, made.program)
    found = weigh(tmp_path / "pruned.onnx", pruned.report, layers, {"x": x})
    conv, fc = 9 * 4 * 16 * 32, 32 * 9 * 10
    assert (found.density, found.mac_ratio) == (0.5, pytest.approx((conv + fc) / (conv / 2 + fc)))
    assert found.dense_bytes == 4 * 32 * 16 * 4
    assert found.packed_bytes == found.dense_bytes / 2 + 5 + 4, "half of the 8 blocks, where 4 rows begin, 4 columns"
    assert found.library_bytes == sum(layer.packed_bytes for layer in layers if "conv" in layer.origin) > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonesuch:2:4"], "no model is called nonesuch"),
        (["tiny_cnn:2:4:8"], "pattern '2:4:8' is not known"),
        (["--spare", "first"], "--spare goes with MODEL:PATTERN"),
        (["tiny_cnn:2:4", "--peer", "deepsparse=absent"], "deepsparse: absent: No such file"),
    ],
)
def test_mistakes(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.slow
def test_rows_of_a_model_and_of_a_file(tmp_path: Path) -> None:
    onnx.save(models.build("tiny_transformer"), tmp_path / "mine.onnx")
    rows = ["tiny_cnn:block:8x8@50%", "tiny_cnn:dense", "tiny_cnn:block:64x64@50%", "mine.onnx:2:4/rows=32"]
    peers = ["--peer", f"onnxruntime={sys.executable}", "--peer", f"deepsparse={stub_engine(tmp_path).python}"]
    effort = ["--rounds", "1", "--seconds", "0.01", "--samples", "2"]
    command = [sys.executable, str(SCRIPT), *rows, *peers, *effort, "--work", "work", "--json", "out.json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1, "a row could not be pruned"
    data = json.loads((tmp_path / "out.json").read_text())
    lines = done.stdout.splitlines()
    assert lines[0] == data["header"] and lines[0].endswith("deepsparse 1.8.0")
    blocks, dense, mine, failed = data["results"]
    assert (failed["pattern"], "takes 64 together" in failed["failure"]) == ("block:64x64@50%", True)
    assert [r["model"] for r in data["results"]] == ["tiny_cnn", "tiny_cnn", "mine", "tiny_cnn"]
    peers_of_all = {"onnxruntime", "onnxruntime apart", "deepsparse"}
    assert set(blocks["speedups"]) == set(mine["speedups"]) == peers_of_all | {"sparsec, dense"}
    assert set(dense["speedups"]) == peers_of_all
    for found in (blocks, mine):
        assert found["ok"] and found["error"] <= 1e-4 and found["samples"] == 2
        assert found["density"] == pytest.approx(0.5, abs=0.02) and 1.5 < found["mac_ratio"] < 2
        assert found["prune_wall_s"] > 0 and found["library_bytes_ratio"] > 0 and found["goal"] is None
    assert (mine["packed_bytes_goal"], mine["packed_bytes_met"]) == (0.53, True)
    assert (dense["mac_ratio"], dense["density"], dense["prune_wall_s"]) == (1, None, None)
    (row,) = (line for line in lines if line.startswith("tiny_cnn") and "  block:8x8@50%  " in line)
    assert f"{blocks['engines']['sparsec']['cpu_ms']:.2f}" in row and f"{blocks['packed_bytes_ratio']:.3f}" in row
    assert {p.name for p in (tmp_path / "work").glob("*.onnx")} >= {"tiny_cnn.onnx", "mine_2_4_rows_32.onnx"}
