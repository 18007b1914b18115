"""The commands on a small model: what they print, what they write, and how they end."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import models
from sparsec.compiler.cli import main
from sparsec.compiler.graph import Graph
from sparsec.compiler.passing.base import PASSES, Notes, Pass
from sparsec.compiler.report import Report
from tests.machine import needs

Out = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@dataclass(frozen=True)
class Spoil(Pass):
    """A defect on purpose: the bias of one convolution is off."""

    name = "spoil"
    summary = "adds 1 to the bias of the convolution in the middle"

    def rewrite(self, graph: Graph, notes: Notes) -> Graph:
        node = next(n for n in graph.nodes if n.name == "/block/second/conv/Conv")
        bias = node.inputs[2]
        constants = {**graph.constants, bias: graph.constants[bias] + np.float32(1)}
        return Graph(graph.name, graph.inputs, graph.outputs, graph.nodes, graph.types, constants)


def test_compile_writes_everything_and_says_so(model: Path, tmp_path: Path, capsys: Out) -> None:
    assert main(["compile", str(model), "--print-pass-times", "--dump-ir", "changed"]) == 0
    folder = tmp_path / "build" / "tiny"
    names = {
        "tiny.c",
        "tiny.h",
        "tiny_weights.S",
        "tiny_weights.bin",
        "libtiny.so",
        "Makefile",
        "CMakeLists.txt",
        "tiny.pc",
        "tiny.d",
    }
    assert names | {"report.json", "graph.txt", "ir"} == {p.name for p in folder.iterdir()}
    assert (folder / "ir" / "00-import.txt").exists()
    out, err = capsys.readouterr()
    assert "build/tiny" in out and "matches onnxruntime to" in out
    assert "fuse_epilogue" in out and "cc " in out
    assert "compile: import" in err and "\x1b" not in out + err


def test_compile_as_json_prints_the_report(model: Path, capsys: Out) -> None:
    assert main(["compile", str(model), "-o", "out", "--json", "-q", "--target", "generic", "--no-verify"]) == 0
    out, err = capsys.readouterr()
    report = Report.model_validate_json(out)
    assert (report.options.target, err) == ("generic", "")
    assert report == Report.model_validate_json(Path("out/report.json").read_text())
    assert {p.phase for p in report.phases} >= {"import", "passes", "schedule", "lower", "emit", "cc"}
    assert [p.name for p in report.passes][:2] == ["widen", "dequantise"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["nowhere.onnx"], 2, "error: cannot read 'nowhere.onnx'"),
        (["MODEL", "--target", "z80"], 2, "error: target 'z80' is not known"),
        (["MODEL", "--passes", "fold,wings"], 2, "error: there is no pass 'wings'"),
        (["MODEL", "--dump-ir", "wings"], 2, "error: --dump-ir is 'wings', expected one of all, changed, widen, dequantise"),
        (["MODEL", "--cc", "no-such-compiler"], 6, "error: no C compiler"),
        (["MODEL", "--max-arena", "1K"], 7, "error: the arena takes"),
        (["MODEL", "--limits", "nodes=1"], 7, "error: "),
    ],
)
def test_what_fails_leaves_nothing(
    model: Path, arguments: list[str], status: int, message: str, capsys: Out, tmp_path: Path
) -> None:
    assert main(["compile", *(str(model) if a == "MODEL" else a for a in arguments), "-q"]) == status
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(message) and err.count("\n") == 1
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_a_truncated_file_is_a_bad_model(model: Path, tmp_path: Path, capsys: Out) -> None:
    (tmp_path / "half.onnx").write_bytes(model.read_bytes()[:5000])
    assert main(["compile", "half.onnx", "-q"]) == 3
    assert capsys.readouterr().err.startswith("error: 'half.onnx'")


def test_run_takes_files_and_writes_files(model: Path, compiled: Path, capsys: Out) -> None:
    feeds = models.inputs(onnx.load(model), seed=3)
    np.savez("in.npz", **feeds)  # type: ignore[arg-type]
    assert main(["run", str(compiled), "-i", "in.npz", "-o", "out.npz", "-q"]) == 0
    assert "float32[1, 10]" in capsys.readouterr().out
    import onnxruntime

    session = onnxruntime.InferenceSession(model.read_bytes(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, feeds)
    with np.load("out.npz") as found:
        np.testing.assert_allclose(found["output"], expected, rtol=1e-4, atol=1e-5)
    assert main(["run", str(compiled), "--seed", "1", "--json", "-q"]) == 0
    assert [o["name"] for o in json.loads(capsys.readouterr().out)["outputs"]] == ["output"]


def test_a_folder_does_without_its_model_unless_that_is_compared(model: Path, tmp_path: Path, capsys: Out) -> None:
    (tmp_path / "copy.onnx").write_bytes(model.read_bytes())
    assert main(["compile", "copy.onnx", "-o", "out", "--no-verify", "-q", "--target", "generic"]) == 0
    (tmp_path / "copy.onnx").unlink()
    assert main(["run", "out", "-q"]) == 0
    assert main(["bench", "out", "--rounds", "1", "-q"]) == 0
    capsys.readouterr()
    for command in (["verify", "out"], ["bench", "out", "--vs", "onnxruntime", "--rounds", "1"]):
        assert main([*command, "-q"]) == 2
        assert "the model that out was compiled from is not there (copy.onnx)" in capsys.readouterr().err


def test_a_compiled_folder_takes_no_compile_options(compiled: Path, capsys: Out) -> None:
    assert main(["run", str(compiled), "--threads", "2", "-q"]) == 2
    assert "is compiled already: give the .onnx file" in capsys.readouterr().err
    assert main(["inspect", str(compiled), "--imported"]) == 2
    assert "does not hold the graph as imported" in capsys.readouterr().err


def test_a_folder_that_is_not_compiled_is_a_bad_model(tmp_path: Path, capsys: Out) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["run", "empty", "-q"]) == 3
    assert "holds no readable report.json" in capsys.readouterr().err


def test_verify_agrees(compiled: Path, capsys: Out) -> None:
    assert main(["verify", str(compiled), "--samples", "2", "--json", "-q"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] and [c["sample"] for c in found["checks"]] == [0, 1] and found["first_wrong_layer"] is None


def test_a_defect_is_found_and_its_layer_named(model: Path, capsys: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PASSES, "spoil", Spoil)
    options = [str(model), "--passes", "default,spoil", "-q"]
    assert main(["compile", *options]) == 5
    assert "output 'output' differs from onnxruntime's" in capsys.readouterr().err
    assert main(["verify", *options, "--per-node", "--samples", "1"]) == 5
    out, err = capsys.readouterr()
    assert "WRONG" in out
    assert err.startswith("error: the first wrong layer is '/block/second/conv/Conv' (Conv, kernel spc_f32_")
    assert (
        "'/block/Add', '/block/Relu'" in err
        and "its operands '/block/first/Relu_output_0', '/stem/Relu_output_0' are right" in err
    )


def test_bench_times_both_and_every_layer(compiled: Path, capsys: Out) -> None:
    assert main(["bench", str(compiled), "--vs", "onnxruntime", "--layers", "--rounds", "1", "-q", "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert set(found["engines"]) == {"sparsec", "onnxruntime"} and found["ratios"]["onnxruntime"] > 0
    layers = {layer["layer"]: layer for layer in found["layers"]}
    assert layers["/block/first/conv/Conv"]["us"] > 0 and "/Flatten" not in layers
    assert sum(layer["share"] for layer in layers.values()) == pytest.approx(1.0)
    assert main(["bench", str(compiled), "--rounds", "1", "-q"]) == 0
    assert "wall ms" in capsys.readouterr().out


def test_inspect_shows_the_same_of_a_model_and_of_its_folder(model: Path, compiled: Path, capsys: Out) -> None:
    views = []
    for subject in (model, compiled):
        for form in (["--ir"], ["--schedule"], ["--memory"], ["--json"]):
            assert main(["inspect", str(subject), *form]) == 0
            views.append(capsys.readouterr().out)
    assert views[1:3] == views[5:7]
    assert views[0].partition("{")[2] == views[4].partition("{")[2]  # the graph's name is the library's
    a, b = json.loads(views[3]), json.loads(views[7])
    assert a.pop("notes") is not None and b.pop("notes") == []
    assert a == b


def test_inspect_summary_and_notes(model: Path, capsys: Out) -> None:
    assert main(["inspect", str(model)]) == 0
    assert "output 'output': f32[1, 10]" in capsys.readouterr().out
    assert main(["inspect", str(model), "--imported"]) == 0
    assert capsys.readouterr().out.startswith('graph "')
    assert main(["inspect", str(model), "--notes"]) == 0
    assert capsys.readouterr().out


def test_diff(model: Path, capsys: Out) -> None:
    assert main(["diff", str(model), str(model)]) == 0
    assert capsys.readouterr().out == "no difference\n"
    onnx.save(models.build("tiny_cnn", batch=2), "two.onnx")
    assert main(["diff", str(model), "two.onnx", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert not found["equal"] and any(line.startswith("- input %input: f32[1,") for line in found["lines"])
    assert main(["compile", str(model), "-o", "out", "--dump-ir", "all", "--no-verify", "-q"]) == 0
    capsys.readouterr()
    first, last = sorted(Path("out/ir").glob("*.txt"))[:: len(list(Path("out/ir").glob("*.txt"))) - 1]
    assert main(["diff", str(first), str(last)]) == 0
    assert "BatchNorm 4 -> 0" in capsys.readouterr().out
    Path("bad.txt").write_text("graph 1")
    assert main(["diff", "bad.txt", "bad.txt"]) == 3
    assert capsys.readouterr().err.startswith("error: bad.txt: line 1: expected")


@needs("aarch64-linux-gnu-gcc")
def test_a_library_for_another_machine_is_compiled_but_not_run(model: Path, capsys: Out) -> None:
    options = ["--target", "aarch64+neon", "--cc", "aarch64-linux-gnu-gcc", "-q"]
    assert main(["compile", str(model), "-o", "arm", *options]) == 0
    assert "not verified: aarch64+neon does not run on this machine" in capsys.readouterr().out
    assert main(["verify", "arm", "-q"]) == 2
    assert main(["inspect", "arm"]) == 0
