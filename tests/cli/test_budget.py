"""`--target-density`, `--max-drop` and what goes with them, of `sparsec prune` and `sparsec compile`."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from sparsec.compiler.cli import main
from sparsec.compiler.report import read_report
from tests.machine import needs
from tests.reference import make_model, run_ort

Out = pytest.CaptureFixture[str]
N = 36


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def data(model: Path) -> Path:
    """Inputs, and as labels what the model says."""
    x = np.random.default_rng(0).standard_normal((N, 3, 16, 16)).astype(np.float32)
    proto = onnx.load(model)
    labels = [run_ort(proto, {"input": x[i : i + 1]})["output"].argmax() for i in range(N)]
    np.savez("calib.npz", input=x, labels=np.array(labels))
    return Path("calib.npz")


def prune(model: Path, *arguments: str) -> int:
    return main(["prune", str(model), "-o", "p.onnx", "--pattern", "unstructured@50%", "--calib", "calib.npz", "-q", *arguments])


def test_a_budget_is_shared_out_and_reported(model: Path, data: Path, capsys: Out) -> None:
    arguments = ["--target-density", "0.4", "--metric", "mse", "--evaluations"]
    assert prune(model, *arguments, "3", "--json") == 0
    found = json.loads(capsys.readouterr().out)["budget"]
    assert found["target"] == 0.4 and found["density"] <= 0.4 + 1e-5 and found["evaluations"] == 3 and found["metric"] == "mse"
    assert prune(model, *arguments, "1", "--density-of", "weights") == 0
    assert "% of their weights (target 40 %): mse loss" in capsys.readouterr().out
    assert prune(model, "--max-drop", "0.9", "--metric", "mse", "--evaluations", "6", "--json") == 0
    found = json.loads(capsys.readouterr().out)["budget"]
    assert found["loss"] <= 0.9 and found["density"] < 1 and found["check"]["loss"] <= 0.9
    assert len(found["check"]["samples"]) == N // 3 and found["check"]["dense"] is None


def test_accuracy_with_labels_and_a_function_say_the_same(model: Path, data: Path, capsys: Out) -> None:
    Path("mine.py").write_text("def right(outputs, labels):\n    return (outputs['output'].argmax(axis=1) == labels).mean()\n")
    np.savetxt("labels.csv", np.load(data)["labels"], fmt="%d", header="label", comments="")
    found = []
    for arguments in (
        ["--metric", "accuracy"],
        ["--metric", "accuracy", "--labels", "labels.csv"],
        ["--metric", "mine:right", "--labels", "labels"],
        ["--metric", "mine.py:right", "--labels", "labels.csv"],
    ):
        assert prune(model, "--target-density", "0.3", "--evaluations", "1", *arguments, "--json") == 0
        found.append(json.loads(capsys.readouterr().out)["budget"])
    assert [b["metric"] for b in found] == ["accuracy", "accuracy", "right", "right"]
    assert {b["dense"] for b in found} == {1.0} and len({b["loss"] for b in found}) == 1
    assert prune(model, "--max-drop", "0.5", "--metric", "accuracy", "--evaluations", "1") == 0
    out = capsys.readouterr().out
    assert "accuracy 1 dense, drop " in out and f"checked on {N // 3} samples held out from pruning and search" in out
    assert "at most 0.5 allowed" in out


def test_time_is_that_of_a_target(model: Path, data: Path, capsys: Out) -> None:
    arguments = ["--pattern", "2:4/rows=4", "--density-of", "time", "--evaluations", "1", "--target-density"]
    found = []
    for target, share in (("generic", "0.95"), ("x86_64+avx512f", "0.99")):
        assert prune(model, *arguments, share, "--target", target, "--json") == 0
        found.append(json.loads(capsys.readouterr().out)["budget"])
    for b in found:
        assert b["counted"] == "time" and b["density"] == pytest.approx(b["us"] / b["dense_us"])
        assert b["density"] <= b["target"] + 0.01  # what was shared out are predictions of single layers
    assert found[0]["dense_us"] > found[1]["dense_us"]
    assert prune(model, *arguments, "0.95", "--target", "generic") == 0
    assert "layers share a budget of time: predicted " in capsys.readouterr().out
    assert prune(model, *arguments, "0.95", "--target", "x86_64+avx2+fma") == 2
    assert "no layer that the recipe prunes is predicted to be faster for it" in capsys.readouterr().err


@needs("cc")
def test_compile_takes_the_same(model: Path, data: Path, capsys: Out) -> None:
    budget = ["--target-density", "0.95", "--density-of", "time", "--metric", "accuracy", "--evaluations", "2"]
    arguments = ["--pattern", "2:4/rows=4", "--calib", str(data), *budget]
    assert main(["compile", str(model), "-o", "lib", "--target", "generic", *arguments, "-q"]) == 0
    out = capsys.readouterr().out
    assert "layers share a budget of time: predicted " in out and "accuracy 1 dense, drop" in out and "matches onnxruntime" in out
    report = read_report(Path("lib"))
    assert report.budget is not None and report.budget.us == pytest.approx(report.predicted_us, rel=0.02)
    assert prune(model, *arguments, "--target", "generic", "--json") == 0
    assert json.loads(capsys.readouterr().out)["budget"] == report.budget.model_dump(mode="json")


@needs("cc")
def test_compile_binds_no_dimension_by_data(capsys: Out) -> None:
    arrays = {"w": np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="m")]
    onnx.save(make_model(nodes, {"x": (TensorProto.FLOAT, ["n", 8])}, ["y"], arrays, opset=17), "open.onnx")
    np.savez("calib.npz", x=np.ones((20, 8), np.float32))
    assert main(["compile", "open.onnx", "-o", "lib", "--layer", "m=2:4", "--calib", "calib.npz", "-q"]) == 3
    assert "dimension 0 of input 'x' is dynamic (n): bind it" in capsys.readouterr().err


BUDGET = ["--calib", "calib.npz", "--target-density", "0.5"]
DROP = ["--calib", "calib.npz", "--max-drop", "0.01"]
MISTAKES = [
    (["--target-density", "0.5"], "--target-density compares pruned models by their outputs: give --calib DATA"),
    (["--max-drop", "0.5"], "--max-drop compares pruned models by their outputs: give --calib DATA"),
    (["--metric", "mse"], "--metric says how a budget is shared out: give --target-density D or --max-drop X"),
    (["--labels", "calib.npz"], "--labels says how a budget is shared out"),
    (["--density-of", "time"], "--density-of says how a budget is shared out"),
    ([*BUDGET, *DROP[2:], "--metric", "kl"], "a target density and a largest drop ask for two budgets"),
    ([*BUDGET, "--metric", "top5"], "--metric 'top5' is not known: expected kl, mse, cosine, accuracy, or MODULE:FUNCTION"),
    ([*BUDGET, "--density-of", "flops"], "--density-of 'flops' is not known: expected macs, weights, time"),
    ([*BUDGET, "--labels", "labels"], "--labels are what accuracy is measured by: give --metric accuracy, or MODULE:FUNCTION"),
    ([*BUDGET, "--metric", "kl", "--labels", "labels"], "--labels are what accuracy is measured by"),
    (DROP, "--max-drop bounds what --metric loses: give --metric accuracy with --labels FILE, or kl, mse, cosine"),
    ([*DROP, "--metric", "accuracy", "--labels", "few.npy"], "labels 'few.npy': 2 entries for 36 calibration samples"),
    ([*DROP, "--metric", "accuracy", "--labels", "none.npy"], "labels 'none.npy' are neither a file nor an array"),
    ([*DROP, "--metric", "accuracy", "--labels", "large.npy"], "is 10, and output 'output' has 10 classes: expected 0 to 9"),
    ([*BUDGET, "--metric", "nowhere:f"], "--metric 'nowhere:f': cannot import 'nowhere': ModuleNotFoundError"),
    ([*BUDGET, "--metric", "nowhere.py:f"], "--metric 'nowhere.py:f': cannot import 'nowhere.py': FileNotFoundError"),
    ([*BUDGET, "--metric", "bad.py:f"], "cannot import 'bad.py': SyntaxError"),
    ([*BUDGET, "--metric", "json:nothing"], "--metric 'json:nothing': 'json' has no function 'nothing'"),
    ([*BUDGET, "--metric", ":f"], "--metric ':f' names no function: give MODULE:FUNCTION or FILE.py:FUNCTION"),
    ([*BUDGET, "--metric", "nan.py:f"], "the metric f gives nan for the outputs of the dense model"),
]


@pytest.mark.parametrize("command", ["prune", "compile"])
@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_mistakes(command: str, arguments: list[str], message: str, model: Path, data: Path, capsys: Out) -> None:
    np.save("few.npy", np.array([1, 2]))
    np.save("large.npy", np.full(N, 10))
    Path("bad.py").write_text("def f(:")
    Path("nan.py").write_text("def f(outputs, labels):\n    return float('nan')\n")
    assert main([command, str(model), "-o", "out", "--pattern", "2:4", *arguments, "-q"]) == 2
    assert message in capsys.readouterr().err
    assert not Path("out").exists()


def test_budgets_are_for_pruning_and_targets_for_time(model: Path, data: Path, capsys: Out) -> None:
    assert prune(model, "--target-density", "0.5", "--target", "generic") == 2
    assert "--target is the machine that time is predicted for: give --density-of time, too" in capsys.readouterr().err
    assert main(["compile", str(model), "-o", "lib", *BUDGET, "-q"]) == 2
    assert "give --pattern, --layer or --recipe" in capsys.readouterr().err
