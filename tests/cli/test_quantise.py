"""`sparsec quantise`, and `sparsec compile --precision int8`."""

import json
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
    np.savez("calib.npz", input=np.random.default_rng(0).standard_normal((6, 3, 16, 16)).astype(np.float32))


def test_quantise_writes_a_model_and_a_table(model: Path, capsys: Out) -> None:
    given = model.read_bytes()
    assert main(["quantise", str(model), "-o", "out/q.onnx", "--calib", "calib.npz", "--keep-float", "/stem/*"]) == 0
    out, err = capsys.readouterr()
    lines = {line.split()[0]: line for line in out.splitlines() if line}
    assert lines["/stem/conv/Conv"].endswith("kept float by '/stem/*'")
    assert "  int8  " in lines["/pointwise/Conv"] and "5 of 6 layers in int8" in out and "written to out/q.onnx" in out
    assert "quantise: calibrate" in err
    made = onnx.load("out/q.onnx")
    onnx.checker.check_model(made, full_check=True)
    assert {"QuantizeLinear", "DequantizeLinear"} <= {n.op_type for n in made.graph.node}
    assert model.read_bytes() == given


def test_quantise_as_json(model: Path, capsys: Out) -> None:
    options = ["--method", "percentile", "--percentile", "99.9", "--power-of-two", "--no-correct-bias", "--per-tensor"]
    options.append("--reduce-range")
    assert main(["quantise", str(model), "-o", "q.onnx", "--calib", "calib.npz", *options, "--json", "-q"]) == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert report["method"] == "percentile" and report["samples"] == 6 and report["sqnr"] > 15
    assert [x["status"] for x in report["layers"]] == ["int8"] * 6 and err == ""
    assert all(np.frexp(x["x_scale"])[0] == 0.5 and x["w_scale_low"] == x["w_scale_high"] for x in report["layers"])
    assert all(x["low"] < x["high"] and 0 <= x["saturated"] < 0.2 for x in report["values"])
    weights = [onnx.numpy_helper.to_array(t) for t in onnx.load("q.onnx").graph.initializer if t.name.endswith("_quantized")]
    assert {int(np.abs(w.astype(int)).max()) <= 64 for w in weights if w.dtype == np.int8} == {True}


def test_layers_stay_float_for_accuracy(model: Path, capsys: Out) -> None:
    labels = run_ort(onnx.load(model), {"input": np.load("calib.npz")["input"][:1]})["output"].argmax(axis=-1)
    np.save("one.npy", np.load("calib.npz")["input"][:1])
    np.save("labels.npy", labels)
    options = ["--calib", "one.npy", "--labels", "labels.npy", "--keep-float", "auto:accuracy:0"]
    assert main(["quantise", str(model), "-o", "q.onnx", *options, "-q"]) == 0
    assert ", accuracy loss 0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["quantise"], "error: quantising needs inputs to see what ranges values have: give --calib DATA"),
        (["quantise", "--calib", "none.npz"], "error: cannot read 'none.npz' as .npy or .npz"),
        (
            ["quantise", "--calib", "calib.npz", "--method", "best"],
            "error: --method 'best' is not known: expected minmax, percentile",
        ),
        (["quantise", "--calib", "calib.npz", "--percentile", "99"], "error: --percentile is for --method percentile"),
        (
            ["quantise", "--calib", "calib.npz", "--keep-float", "auto:x"],
            "error: --keep-float auto:DB takes a signal to noise ratio in dB",
        ),
        (
            ["quantise", "--calib", "calib.npz", "--labels", "calib.npz"],
            "error: --labels are what accuracy is measured by: give --keep",
        ),
        (["compile", "--precision", "int8"], "error: quantising needs inputs to see what ranges values have: give --calib DATA"),
        (["compile", "--power-of-two"], "error: --power-of-two says how to quantise: give --precision int8 and --calib DATA"),
        (["compile", "--reduce-range"], "error: --reduce-range says how to quantise: give --precision int8 and --calib DATA"),
        (
            ["compile", "--calib", "calib.npz"],
            "error: --calib is for pruning and quantising: give --pattern, --layer or --recipe",
        ),
    ],
)
def test_mistakes(arguments: list[str], message: str, model: Path, capsys: Out) -> None:
    assert main([arguments[0], str(model), "-q", "-o", "q.onnx", *arguments[1:]]) == 2
    assert message in capsys.readouterr().err
    assert not Path("q.onnx").exists()


@needs("cc")
def test_compile_prunes_quantises_keeps_the_model_and_verifies_against_it(model: Path, capsys: Out) -> None:
    options = ["--precision", "int8", "--calib", "calib.npz", "--pattern", "2:4", "--target", "generic"]
    assert main(["compile", str(model), *options, "-q"]) == 0
    out = capsys.readouterr().out
    assert "of 6 layers pruned" in out and "6 of 6 layers in int8" in out and "matches onnxruntime to" in out
    compiled = load("build/tiny")
    assert compiled.report.quantisation is not None and compiled.report.pruning
    assert compiled.report.model.path == "build/tiny/tiny.onnx"
    kept = onnx.load("build/tiny/tiny.onnx")
    x = {"input": np.random.default_rng(1).standard_normal((1, 3, 16, 16)).astype(np.float32)}
    expected = run_ort(kept, x)["output"]
    step = compiled.report.quantisation.values[-1].scale
    np.testing.assert_allclose(compiled.run(x)["output"], expected, atol=8 * step)


def test_permuted_blocks_of_bytes_are_used_and_explained(model: Path, capsys: Out) -> None:
    options = ["--precision", "int8", "--calib", "calib.npz", "--pattern", "block:8x8@50%", "--permute", "gyro"]
    assert main(["compile", str(model), *options, "--target", "generic", "-q"]) == 0
    assert "matches onnxruntime to" in capsys.readouterr().out
    assert main(["explain", "build/tiny/tiny.onnx", "--target", "x86_64+avx512f+vnni", "--json", "-q"]) == 0
    layers = {layer["node"]: layer for layer in json.loads(capsys.readouterr().out)["layers"]}
    pointwise = layers["/pointwise/Conv"]
    assert pointwise["pattern"] == "block:8x8" and 0.4 < pointwise["density"] < 0.6
    assert {c["kernel"] for c in pointwise["candidates"]} >= {"dense panels", "planar"}
    assert pointwise["sparse"] or "predicted" in pointwise["why"]
