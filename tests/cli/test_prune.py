"""`sparsec prune`, and pruning by `sparsec compile`."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from sparsec.compiler.cli import main
from sparsec.compiler.driver import load
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.sparsity import DENSE
from tests.machine import needs
from tests.reference import run_ort

Out = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_prune_writes_a_model_and_a_table(model: Path, capsys: Out) -> None:
    given = model.read_bytes()
    assert main(["prune", str(model), "-o", "out/pruned.onnx", "--pattern", "2:4", "--layer", "/pointwise/*=block:8x8@50%"]) == 0
    out, err = capsys.readouterr()
    lines = {line.split()[0]: line for line in out.splitlines() if line}
    assert lines["/stem/conv/Conv"].endswith("the first convolution")
    assert "  2:4  " in lines["/block/first/conv/Conv"] and "  50.0 %  " in lines["/block/first/conv/Conv"]
    assert "block:8x8@50%" in lines["/pointwise/Conv"]
    assert "3 pruned" in lines["total"] and "written to out/pruned.onnx" in out
    assert "prune: import" in err and "warning" not in err
    onnx.checker.check_model("out/pruned.onnx")
    assert model.read_bytes() == given


def test_n_of_m_blocks_are_recorded_and_compiled(model: Path, capsys: Out) -> None:
    assert main(["prune", str(model), "-o", "p.onnx", "--pattern", "block:4x4/2:4", "-q"]) == 0
    assert "block:4x4/2:4" in capsys.readouterr().out
    graph = import_model(Path("p.onnx"))
    patterns = {t.sparsity.spec for v, t in graph.types.items() if v in graph.constants and t.sparsity != DENSE}
    assert patterns == {"block:4x4/2:4"}
    assert main(["explain", "p.onnx", "--json", "-q"]) == 0
    layers = json.loads(capsys.readouterr().out)["layers"]
    assert any(layer.get("pattern") == "block:4x4/2:4" for layer in layers)
    assert main(["compile", str(model), "-o", "out", "--pattern", "block:4x4/2:4", "-q"]) == 0
    feeds = {"input": np.random.default_rng(0).standard_normal((1, 3, 16, 16)).astype(np.float32)}
    want = run_ort(onnx.load("p.onnx"), feeds)["output"]
    np.testing.assert_allclose(load(Path("out")).run(feeds)["output"], want, rtol=1e-4, atol=1e-5)


def test_prune_as_json(model: Path, capsys: Out) -> None:
    arguments = ["--pattern", "block:4x4@50%", "--criterion", "variance", "--preserve-norm", "--spare", "none", "--json", "-q"]
    assert main(["prune", str(model), "-o", "p.onnx", *arguments]) == 0
    out, err = capsys.readouterr()
    layers = json.loads(out)["layers"]
    assert [x["status"] for x in layers] == ["dense", "pruned", "pruned", "dense", "pruned", "pruned"] and err == ""
    assert layers[0]["remarks"] == ["3 input channels, and block:4x4 takes 4 together"]


def test_nothing_left_to_prune_is_said(model: Path, capsys: Out) -> None:
    assert main(["prune", str(model), "-o", "a.onnx", "--pattern", "unstructured@80%", "-q"]) == 0
    assert main(["prune", "a.onnx", "-o", "b.onnx", "--pattern", "unstructured@50%", "-q"]) == 0
    out, err = capsys.readouterr()
    assert "already 80.0 % zeros, unstructured@50% asks for 50 %: left as it is" in out
    assert err == "warning: nothing was pruned: the remarks say why of every layer\n"
    assert Path("a.onnx").read_bytes() == Path("b.onnx").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "error: nothing to prune: give --pattern, --layer or --recipe"),
        (["--pattern", "2by4"], 2, "error: pattern '2by4' is not known"),
        (["--pattern", "2:4", "--layer", "nope=1:4"], 2, "error: the rule for 'nope' matches no layer with weights"),
        (["--layer", "/block/*=2:4", "--layer", "*conv*=1:4"], 2, "error: rules disagree about layer '/block/first/conv/Conv'"),
        (["--recipe", "none.toml"], 2, "error: cannot read recipe 'none.toml'"),
        (["--pattern", "2:4", "--spare", "last"], 2, "error: spare.0: input should be 'first', 'depthwise' or 'classifier'"),
        (["--pattern", "2:4", "--criterion", "variance"], 2, "error: the criterion variance compares blocks"),
        (["--pattern", "2:4", "-o", "/dev/null/x/p.onnx"], 2, "error: cannot write '/dev/null/x/p.onnx'"),
    ],
)
def test_mistakes(arguments: list[str], status: int, message: str, model: Path, capsys: Out) -> None:
    assert main(["prune", str(model), "-q", "-o", "p.onnx", *arguments]) == status
    assert message in capsys.readouterr().err
    assert not Path("p.onnx").exists()


def test_a_lie_in_the_metadata_is_a_bad_model(model: Path, capsys: Out) -> None:
    lying = onnx.load(model)
    onnx.helper.set_model_props(lying, {"sparsec.sparsity": '{"pointwise.weight": "2:4/nnz=192"}'})
    onnx.save(lying, "lying.onnx")
    assert main(["inspect", "lying.onnx"]) == 3
    assert "says that weights 'pointwise.weight' are 2:4, but output 0 keeps 4 of" in capsys.readouterr().err


@needs("cc")
def test_compile_prunes_first_keeps_the_model_and_verifies_against_it(model: Path, capsys: Out) -> None:
    Path("recipe.toml").write_text('pattern = "1:4"\n\n[[layer]]\nmatch = "/pointwise/*"\npattern = "dense"\n')
    assert main(["compile", str(model), "--recipe", "recipe.toml", "--target", "generic", "-q"]) == 0
    out = capsys.readouterr().out
    assert "2 of 6 layers pruned" in out and "matches onnxruntime to" in out
    compiled = load("build/tiny")
    report = compiled.report
    assert [x.status for x in report.pruning] == ["spared", "pruned", "pruned", "spared", "dense", "spared"]
    assert report.model.path == "build/tiny/tiny.onnx"
    x = {"input": np.random.default_rng(0).standard_normal((1, 3, 16, 16)).astype(np.float32)}
    expected = run_ort(onnx.load(report.model.path), x)["output"]
    np.testing.assert_allclose(compiled.run(x)["output"], expected, atol=1e-5)
    assert not np.allclose(run_ort(onnx.load(model), x)["output"], expected, atol=1e-3)
    sparse = {t.sparsity for layer in report.layers for t in layer.inputs if t.sparsity}
    assert sparse == {"1:4/nnz=576"}
    assert main(["verify", "build/tiny", "-q"]) == 0
