"""`sparsec compile`, `explain` and `simulate` for systolic arrays."""

import io
import json
import re
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest

import sparsec.backends.systolic.traffic as parameters_of
from sparsec.backends.systolic.training_engine import ArrayEngine
from sparsec.compiler.cli import main

Out = pytest.CaptureFixture[str]
MEMORY = Path(parameters_of.__file__).with_name("memory.toml")
SEVEN = ["dOS", "dWS", "dIS", "sOS", "sWS", "sIS", "csOS"]


@pytest.fixture(scope="module")
def program(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("systolic") / "tiny"
    pruned = ["--pattern", "block:8x1@75%/taps=each", "--target", "flexisaga:8x8"]
    assert main(["compile", str(model), "-o", str(folder), *pruned, "-q"]) == 0
    return folder


@pytest.fixture(scope="module")
def sat(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder for sat:8x8, and what `compile` said of it."""
    folder, said = tmp_path_factory.mktemp("sat") / "out", io.StringIO()
    with redirect_stdout(said):
        assert main(["compile", str(model), "-o", str(folder), "--target", "sat:8x8", "-q"]) == 0
    return folder, said.getvalue()


def test_compile_says_what_it_made(sat: tuple[Path, str], model: Path, tmp_path: Path, capsys: Out) -> None:
    folder, said = sat
    assert said.startswith(f"tiny for sat:8x8: {folder}\n  6 layers on the array, ") and "by our model" in said
    assert "10 nodes on the host, epilogues included, in 5 libraries" in said
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


def test_loads(model: Path, program: Path, tmp_path: Path, capsys: Out) -> None:
    folder = str(tmp_path / "out")
    options = ["--target", "flexisaga:8x8", "--pattern", "block:8x1@75%/taps=each", "--loads", "exposed", "-q"]
    assert main(["compile", str(model), "-o", folder, *options]) == 0
    assert "by our model with exposed loads" in capsys.readouterr().out
    assert main(["explain", str(model), *options, "--json"]) == 0
    of_model = json.loads(capsys.readouterr().out)
    assert main(["explain", folder, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == of_model and found["memory"]["double"] is False
    for layer in found["layers"]:
        with_loads = {d: t["cycles"] for d, t in layer["traffic"].items()}
        assert set(with_loads) == set(SEVEN) and with_loads[layer["dataflow"]] == min(with_loads.values())
    assert main(["explain", folder]) == 0
    out = capsys.readouterr().out
    assert "with what waiting for memory adds (exposed loads)" in out and "\nthe chosen ones " in out
    assert main(["simulate", folder, "-q", "--json"]) == 0
    exposed = json.loads(capsys.readouterr().out)
    assert exposed["with loads"] == found["cost"] and exposed["cycles"] == found["cycles"]
    mine = tmp_path / "mine.toml"
    mine.write_text(MEMORY.read_text().replace("bytes_per_cycle = 16", "bytes_per_cycle = 1e9"))
    assert main(["simulate", folder, "-q", "--loads", "double-buffered", "--memory", str(mine)]) == 0
    out = capsys.readouterr().out
    assert "with loads " in out and "SRAM bytes" in out
    assert main(["explain", str(program), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["memory"] is None  # not asked for


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["explain", "--loads", "exposed"], "--loads and --memory are for systolic arrays: leave them out for host"),
        (["explain", "--target", "sat:8x8", "--memory", "m.toml"], "--memory says what traffic is counted with: give --loads"),
        (["compile", "--target", "aie2:npu1", "--loads", "exposed"], "leave them out for aie2:npu1"),
        (["explain", "--target", "sat:8x8", "--loads", "exposed", "--memory", "m.toml"], "cannot be read from m.toml"),
    ],
)
def test_loads_that_cannot_be(model: Path, command: list[str], message: str, capsys: Out) -> None:
    assert main([command[0], str(model), *command[1:], "-q"]) == 2
    assert message in capsys.readouterr().err


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


def test_a_training_step(sat: tuple[Path, str], program: Path, capsys: Out) -> None:
    folder = str(sat[0])
    assert main(["simulate", folder, "--training", "--batch", "4", "--keep", "2:8", "-q"]) == 0
    out = capsys.readouterr().out
    assert (
        "cycles a step of 4 with 2:8 weights, " in out
        and "in as many cycles: 6 layers and 6 biases and scales updated, to " in out
    )
    assert main(["simulate", folder, "--training", "--batch", "4", "--json", "-q"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (
        found["values"]["layers"] == found["values"]["vectors"] == 6
        and 0 <= found["values"]["difference"] < 1e-5
        and found["values"]["loss"] > 0
    )
    assert main(["simulate", folder, "--training", "--batch", "100000", "--json", "-q"]) == 0
    assert "more than 16 G: choose a smaller --batch" in json.loads(capsys.readouterr().out)["values"]["not computed"]
    stages = found["stages"]
    assert found["cycles"] == sum(s["cycles"] + s["waiting"] for s in stages) < found["dense"] == sum(s["dense"] for s in stages)
    assert [s["stage"] for s in stages] == ["FF"] * 6 + ["WU", "BP"] * 5 + ["WU"]
    assert {s["dataflow"] for s in stages} & {"nmOS", "nmWS"}
    for arguments, message in (
        ([folder, "--keep", "block:8x8@50%"], "a training step multiplies by n:m weights"),
        ([folder, "--keep", "2:32"], "2:32 does not fit sat:8x8"),
        ([str(program)], "was compiled for flexisaga:8x8: training is for sat:RxC"),
        ([folder, "--loads", "exposed"], "leave them out with --training"),
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


def test_a_step_that_is_not_numpys_is_noticed(sat: tuple[Path, str], capsys: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    """An element of every weight's gradient that is lost, and one that is no number."""
    product = ArrayEngine.product
    for wrong, message in (
        (0.0, r"the step differs from numpy's by [0-9.e-]+ of the largest"),
        (np.nan, "differs from numpy's by inf"),
    ):

        def broken(self: ArrayEngine, layer: str, stage: str, w: np.ndarray, x: np.ndarray, wrong: float = wrong) -> np.ndarray:
            y = product(self, layer, stage, w, x)
            return np.where((np.arange(y.size).reshape(y.shape) == 0) & (stage == "WU"), np.float32(wrong), y)

        monkeypatch.setattr(ArrayEngine, "product", broken)
        assert main(["simulate", str(sat[0]), "--training", "--batch", "2", "-q"]) == 5
        assert re.search(message, capsys.readouterr().err)
