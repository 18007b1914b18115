"""`--permute` and `--calib` of `sparsec prune` and `sparsec compile`, and `sparsec explain --channels`."""

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest

from sparsec.compiler.cli import main
from sparsec.compiler.driver import load
from tests.machine import needs
from tests.reference import run_ort

Out = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def data() -> Path:
    np.savez("calib.npz", input=np.random.default_rng(0).normal(size=(40, 3, 16, 16)).astype(np.float32))
    return Path("calib.npz")


def test_orders_are_searched_for_and_shown(model: Path, capsys: Out) -> None:
    assert main(["prune", str(model), "-o", "p.onnx", "--pattern", "2:4", "--permute", "gyro", "--seed", "3"]) == 0
    out, err = capsys.readouterr()
    lines = [line for line in out.splitlines() if line]
    assert lines[0].split() == ["channels", "of", "count", "weights", "keeps", "more", "remarks"]
    assert any(line.startswith("/block/first/conv/Conv") and " %" in line for line in lines)
    assert "fixed: graph output 'output' has it" in out
    assert "channels ordered by gyro with seed 3 in " in out
    assert "prune: order the channels of /block/first/conv/Conv" in err
    onnx.checker.check_model("p.onnx")


def test_what_a_trial_loses_in_both_orders_is_shown(model: Path, data: Path, capsys: Out) -> None:
    given = ["prune", str(model), "-o", "p.onnx", "--pattern", "block:8x8@50%", "--permute", "gyro", "--calib", str(data)]
    assert main(given) == 0
    out, err = capsys.readouterr()
    assert re.search(r"channels ordered by gyro with seed 0 in [^;]*; a trial loses \S+ so, and \S+ in the old order", out)
    assert "prune: try order 2 of 2" in err
    assert main([*given, "--json", "-q"]) == 0
    found = json.loads(capsys.readouterr().out)["permutation"]
    assert found["used"] is (found["loss"] <= found["loss_in_place"])


def test_orders_as_json(model: Path, capsys: Out) -> None:
    assert main(["prune", str(model), "-o", "p.onnx", "--pattern", "1:4", "--permute", "swap", "--json", "-q"]) == 0
    found = json.loads(capsys.readouterr().out)["permutation"]
    assert found["method"] == "swap" and found["seed"] == 0
    assert all(c["after"] >= c["before"] for c in found["classes"] if c["before"] is not None)


def test_calibrated_pruning_is_closer_to_the_model(model: Path, data: Path, capsys: Out) -> None:
    common = ["prune", str(model), "--pattern", "1:4", "-q"]
    assert main([*common, "-o", "plain.onnx"]) == 0
    assert (
        main([*common, "-o", "fit.onnx", "--calib", str(data), "--importance", "obs", "--repair", "least-squares", "--refit"])
        == 0
    )
    capsys.readouterr()
    feeds = {"input": np.load(data)["input"][:1]}
    want, plain, fit = (next(iter(run_ort(onnx.load(m), feeds).values())) for m in (model, "plain.onnx", "fit.onnx"))
    assert np.abs(fit - want).max() < 0.5 * np.abs(plain - want).max()


@needs("cc")
def test_compile_takes_both(model: Path, data: Path, capsys: Out) -> None:
    given = ["--pattern", "block:8x8@50%", "--permute", "gyro", "--calib", str(data)]
    assert main(["compile", str(model), "-o", "lib", *given, "-q"]) == 0
    assert "matches onnxruntime" in capsys.readouterr().out
    compiled = load("lib")
    feeds = {"input": np.load(data)["input"][:1]}
    want = next(iter(run_ort(onnx.load(compiled.report.model.path), feeds).values()))
    np.testing.assert_allclose(next(iter(compiled.run(feeds).values())), want, rtol=1e-4, atol=1e-4)


def test_channels_that_share_an_order_are_explained(model: Path, capsys: Out) -> None:
    assert main(["explain", str(model), "--channels"]) == 0
    out = capsys.readouterr().out
    assert "fixed: graph input 'input' has it" in out
    assert "classes of channels can be put into another order" in out
    assert main(["explain", str(model), "--channels", "--json"]) == 0
    classes = json.loads(capsys.readouterr().out)
    assert {c["name"]: c["fixed"] for c in classes}["/fc/Gemm"] == "graph output 'output' has it"


def test_layers_that_stay_sparse_hold_channels(model: Path, capsys: Out) -> None:
    assert main(["prune", str(model), "-o", "p.onnx", "--layer", "/block/second/*=block:8x8@50%", "-q"]) == 0
    capsys.readouterr()
    held = "'/block/second/conv/Conv' stays as it is, and is block:8x8 in this order of its inputs only"
    assert main(["explain", "p.onnx", "--channels", "--pattern", "block:8x8@50%"]) == 0
    assert f"fixed: {held}" in " ".join(capsys.readouterr().out.split())
    assert main(["prune", "p.onnx", "-o", "q.onnx", "--pattern", "block:8x8@50%", "--permute", "gyro", "--json", "-q"]) == 0
    assert held in {c["fixed"] for c in json.loads(capsys.readouterr().out)["permutation"]["classes"]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prune", "--pattern", "2:4", "--permute", "best"], "permute"),
        (["prune", "--pattern", "2:4", "--repair", "none"], "--repair says how calibration data is used: give --calib DATA"),
        (["prune", "--pattern", "2:4", "--calib", "none.npz"], "none.npz"),
        (["compile", "--permute", "gyro"], "--permute is for pruning: give --pattern, --layer or --recipe, too"),
        (["prune", "--pattern", "block:8x8@50%", "--permute", "gyro", "--criterion", "variance"], "permute with l1 or l2"),
    ],
)
def test_what_cannot_be_is_said(model: Path, capsys: Out, arguments: list[str], message: str) -> None:
    command, *options = arguments
    assert main([command, str(model), "-o", "out", *options, "-q"]) == 2
    assert message in capsys.readouterr().err
    assert not Path("out").exists()
