"""`sparsec compile`, `explain` and `simulate` for systolic arrays."""

import json
from pathlib import Path

import numpy as np
import pytest

from sparsec.compiler.cli import main

Out = pytest.CaptureFixture[str]
SEVEN = ["dOS", "dWS", "dIS", "sOS", "sWS", "sIS", "csOS"]


@pytest.fixture(scope="module")
def program(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("systolic") / "tiny"
    pruned = ["--pattern", "block:8x1@75%/taps=each", "--target", "flexisaga:8x8"]
    assert main(["compile", str(model), "-o", str(folder), *pruned, "-q"]) == 0
    return folder


def test_compile_says_what_it_made(model: Path, tmp_path: Path, capsys: Out) -> None:
    assert main(["compile", str(model), "-o", str(tmp_path / "out"), "--target", "sat:8x4", "-q"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"tiny for sat:8x4: {tmp_path / 'out'}\n  6 layers on the array, ") and "by our model" in out
    assert main(["compile", str(model), "-o", str(tmp_path / "out"), "--target", "sat:8x4", "-q", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["target"] == "sat:8x4" and set(found["layers"][0]["cycles"]) == {"dOS", "dWS"}


def test_explain_compares_all_dataflows(program: Path, model: Path, capsys: Out) -> None:
    assert main(["explain", str(program)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[6:13] == SEVEN
    assert any("one for all: dOS" in line for line in lines) and any("the papers publish no formulas" in line for line in lines)
    assert main(["explain", str(program), "--json"]) == 0
    of_folder = json.loads(capsys.readouterr().out)
    pattern = ["--pattern", "block:8x1@75%/taps=each"]
    assert main(["explain", str(model), "--target", "flexisaga:8x8", *pattern, "-q", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["layers"] == of_folder["layers"]
    for layer in of_folder["layers"]:
        assert layer["cycles"][layer["dataflow"]] == min(layer["cycles"].values())


def test_simulate_checks_and_counts(program: Path, tmp_path: Path, capsys: Out) -> None:
    assert main(["simulate", str(program), "-q", "-o", str(tmp_path / "out.npz")]) == 0
    assert "by our model; outputs equal those of the interpreter" in capsys.readouterr().out
    assert np.load(tmp_path / "out.npz")["output"].shape == (1, 10)
    assert main(["simulate", str(program), "-q", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["cycles"] == sum(layer["cycles"] for layer in found["layers"])
    assert all(layer["cycles"] >= layer["roofline"] > 0 for layer in found["layers"])


def test_wrong_weights_are_noticed(program: Path, model: Path, tmp_path: Path, capsys: Out) -> None:
    folder = tmp_path / "out"
    assert main(["compile", str(model), "-o", str(folder), "--target", "flexisaga:8x8", "-q"]) == 0
    weights = folder / "000.weights"
    weights.write_bytes(np.ones(weights.stat().st_size // 4, np.float32).tobytes())
    assert main(["simulate", str(folder), "-q"]) == 5
    assert "the weights of '/stem/conv/Conv' in its file are not" in capsys.readouterr().err
    (folder / "000.stream").write_bytes((folder / "000.stream").read_bytes()[:-1])
    assert main(["simulate", str(folder), "-q"]) == 2
    assert "the micro-op stream is not valid at byte" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target", "flexisaga:8"], "'flexisaga:8' is not a systolic array"),
        (["--target", "flexisaga:8x8", "--threads", "2"], "--threads is for C libraries"),
        (["--target", "sat:8x8", "--weights", "inline"], "--weights is for C libraries"),
    ],
)
def test_options_that_arrays_do_not_have(model: Path, tmp_path: Path, options: list[str], message: str, capsys: Out) -> None:
    assert main(["compile", str(model), "-o", str(tmp_path / "out"), *options, "-q"]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_training_step(model: Path, program: Path, tmp_path: Path, capsys: Out) -> None:
    folder = str(tmp_path / "out")
    assert main(["compile", str(model), "-o", folder, "--target", "sat:8x8", "-q"]) == 0
    capsys.readouterr()
    assert main(["simulate", folder, "--training", "--batch", "4", "--keep", "2:8"]) == 0
    assert "cycles a step of 4 with 2:8 weights, " in capsys.readouterr().out
    assert main(["simulate", folder, "--training", "--batch", "4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    stages = found["stages"]
    assert found["cycles"] == sum(s["cycles"] + s["waiting"] for s in stages) < found["dense"] == sum(s["dense"] for s in stages)
    assert [s["stage"] for s in stages] == ["FF"] * 6 + ["WU", "BP"] * 5 + ["WU"]
    assert {s["dataflow"] for s in stages} & {"nmOS", "nmWS"}
    for arguments, message in (
        ([folder, "--keep", "block:8x8@50%"], "a training step multiplies by n:m weights"),
        ([folder, "--keep", "2:32"], "2:32 does not fit sat:8x8"),
        ([str(program)], "was compiled for flexisaga:8x8: training is for sat:RxC"),
    ):
        assert main(["simulate", *arguments, "--training"]) == 2
        assert message in capsys.readouterr().err


def test_bfloat16_is_refused(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--target", "flexisaga:8x8", "--precision", "bf16", "-o", str(tmp_path / "out"), "-q"]
    assert main(["compile", str(model), *options]) == 2
    assert "flexisaga:8x8 does not multiply bfloat16" in capsys.readouterr().err


def test_what_systolic_arrays_do_not_have_is_refused(model: Path, program: Path, tmp_path: Path, capsys: Out) -> None:
    assert main(["simulate", str(program), "--trace", str(tmp_path / "t.json"), "-q"]) == 2
    assert "--trace and --svg draw AI-Engine arrays" in capsys.readouterr().err
    np.savez(tmp_path / "calib.npz", input=np.random.default_rng(0).standard_normal((6, 3, 16, 16)).astype(np.float32))
    calib = ["--calib", str(tmp_path / "calib.npz"), "--target-density", "0.5", "--density-of", "time"]
    options = ["--target", "flexisaga:8x8", "--pattern", "2:4", *calib, "-o", str(tmp_path / "out"), "-q"]
    assert main(["compile", str(model), *options]) == 2
    assert "a budget of time is predicted for CPUs only: count macs or weights" in capsys.readouterr().err
