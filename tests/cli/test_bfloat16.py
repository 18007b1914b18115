"""`--precision bf16` of compile, verify, explain and inspect."""

import json
from pathlib import Path

import pytest

from sparsec.compiler.cli import main
from sparsec.compiler.driver import load
from sparsec.compiler.verify_model import ROUNDED_TOLERANCE, default_tolerance

Out = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_compile_verifies_what_is_rounded(model: Path, capsys: Out) -> None:
    assert main(["compile", str(model), "-o", "out", "--target", "generic", "--precision", "bf16", "-q"]) == 0
    out = capsys.readouterr().out
    report = load("out").report
    multiplied = [layer for layer in report.layers if any(t.dtype == "bf16" for t in layer.inputs) and layer.macs]
    assert f"  {len(multiplied)} layers multiply bfloat16" in out and "matches onnxruntime to" in out and len(multiplied) > 4
    assert report.options.passes.endswith(",bfloat16")
    assert default_tolerance(report) == ROUNDED_TOLERANCE
    assert all(t.dtype == "f32" for t in (*report.inputs, *report.outputs))
    assert main(["verify", "out", "-q"]) == 0  # by the recorded options
    assert main(["verify", "out", "-q", "--tolerance", "1e-5"]) == 5
    assert main(["verify", str(model), "--target", "generic", "--precision", "bf16", "-q"]) == 0


def test_zeros_are_used_with_bfloat16_too(model: Path, capsys: Out) -> None:
    arguments = ["explain", str(model), "--target", "x86_64+avx512f+bf16", "--pattern", "block:16x4@25%", "--json", "-q"]
    assert main([*arguments, "--precision", "bf16"]) == 0
    narrow = json.loads(capsys.readouterr().out)
    assert main(arguments) == 0
    wide = json.loads(capsys.readouterr().out)
    assert [x["pattern"] for x in narrow["layers"]] == [x["pattern"] for x in wide["layers"]]
    assert any(x["sparse"] for x in narrow["layers"])
    assert narrow["totals"]["predicted"]["us"] < wide["totals"]["predicted"]["us"]


def test_inspect_shows_what_is_rounded(model: Path, capsys: Out) -> None:
    assert main(["inspect", str(model), "--target", "aarch64+neon+bf16", "--precision", "bf16", "--ir"]) == 0
    assert "wide=true" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["compile", "verify", "explain", "inspect", "bench"])
def test_targets_without_it_refuse_it(command: str, model: Path, capsys: Out) -> None:
    assert main([command, str(model), "--target", "x86_64+avx2+fma", "--precision", "bf16"]) == 2
    having = "x86_64+avx512f+bf16, aarch64+neon+bf16, generic"
    wanted = f"error: x86_64+avx2+fma has no products of bfloat16: give --precision fp32, or --target {having}"
    assert wanted in capsys.readouterr().err
    assert not Path("build").exists()


@pytest.mark.parametrize("command", ["verify", "explain", "inspect", "bench"])
def test_int8_models_are_made_from_data(command: str, model: Path, capsys: Out) -> None:
    assert main([command, str(model), "--precision", "int8"]) == 2
    assert "give the file that `sparsec quantise` writes, without --precision" in capsys.readouterr().err


def test_options_of_quantising_are_for_int8(model: Path, capsys: Out) -> None:
    arguments = ["compile", str(model), "--target", "generic", "--precision", "bf16"]
    assert main([*arguments, "--method", "mse"]) == 2
    assert "--method says how to quantise: give --precision int8 and --calib DATA" in capsys.readouterr().err
    assert main([*arguments, "--calib", "calib.npz"]) == 2
    assert "--calib is for pruning and quantising" in capsys.readouterr().err


def test_systolic_arrays_refuse_it(model: Path, capsys: Out) -> None:
    assert main(["compile", str(model), "--target", "flexisaga:8x8", "--precision", "bf16"]) == 2
    assert "is for C libraries and AI-Engine arrays: flexisaga:8x8 does not multiply bfloat16" in capsys.readouterr().err
