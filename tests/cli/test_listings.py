"""ops, passes, targets and models say what the code holds; docs/ holds the same."""

import json
from pathlib import Path

import onnx
import pytest

from sparsec.compiler.cli import main
from sparsec.compiler.cli.console import count, duration, plain_table, size
from sparsec.compiler.cli.reference import markdown_table, pages
from sparsec.compiler.onnx_rules import RULES
from sparsec.compiler.passing.base import PASSES

DOCS = Path(__file__).parents[2] / "docs"


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> object:
    assert main([*arguments, "--json"]) == 0
    found: object = json.loads(capsys.readouterr().out)
    return found


def test_ops(capsys: pytest.CaptureFixture[str]) -> None:
    rows = run_json(capsys, "ops")
    assert isinstance(rows, list) and len(rows) == len(RULES)
    assert {"Conv", "MatMul", "Relu"} <= {r["ONNX operator"] for r in rows}
    ir = run_json(capsys, "ops", "--form", "ir")
    assert isinstance(ir, list) and next(r for r in ir if r["operator"] == "Conv")["attributes"].startswith("strides")
    assert main(["ops", "--markdown"]) == 0
    assert capsys.readouterr().out.splitlines()[:2] == ["| ONNX operator | becomes | constraints |", "| --- | --- | --- |"]


def test_passes(capsys: pytest.CaptureFixture[str]) -> None:
    found = run_json(capsys, "passes")
    assert isinstance(found, dict)
    assert {p["pass"] for p in found["passes"]} == set(PASSES)
    assert "dce" in found["pipelines"]["default"] and found["pipelines"]["none"] == ""
    assert main(["passes"]) == 0
    assert "pipeline" in capsys.readouterr().out


def test_targets(capsys: pytest.CaptureFixture[str]) -> None:
    rows = run_json(capsys, "targets")
    assert isinstance(rows, list)
    rows = [r for r in rows if "runs here" in r]  # arrays follow
    x86 = ["x86_64+avx512f+bf16", "x86_64+avx512f+vnni", "x86_64+avx512f", "x86_64+avx2+vnni", "x86_64+avx2+fma"]
    assert [r["target"] for r in rows] == [*x86, "aarch64+neon+bf16", "aarch64+neon+dotprod", "aarch64+neon", "generic"]
    assert [r["bfloat16"] for r in rows] == ["products", "", "", "", "", "products", "", "", "widened"]
    assert sum(r["host"] for r in rows) == 1 and rows[-1]["runs here"]
    assert main(["targets"]) == 0
    assert "yes (host)" in capsys.readouterr().out


def test_models_list_and_build(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    infos = run_json(capsys, "models", "list")
    assert isinstance(infos, list) and {"resnet50", "bert_base"} <= {i["name"] for i in infos}
    assert main(["models"]) == 0
    assert "resnet50" in capsys.readouterr().out
    path = tmp_path / "tiny.onnx"
    assert main(["models", "build", "tiny_cnn", "-o", str(path), "--batch", "2"]) == 0
    assert f"{path}: " in capsys.readouterr().out
    assert onnx.load(path).graph.input[0].type.tensor_type.shape.dim[0].dim_value == 2


def test_models_mistakes_are_usage_errors(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["models", "build", "nonesuch", "-o", str(tmp_path / "x")]) == 2
    assert "error: unknown model 'nonesuch' (known: alexnet" in capsys.readouterr().err
    assert main(["models", "build", "tiny_cnn", "--option", "wings=2", "-o", str(tmp_path / "x")]) == 2
    assert "not 'wings=2'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["cli.md", "operators.md", "passes.md", "report.schema.json"])
def test_the_generated_pages_are_current(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == pages()[name], "run `make docs`"


def test_tables() -> None:
    text = plain_table(("name", ">n"), [["a", "10"], ["longer", "7"]])
    assert text == "name     n\na       10\nlonger   7"
    assert markdown_table(("a", "b"), [["x|y", "z"]]) == "| a | b |\n| --- | --- |\n| x\\|y | z |"


def test_numbers_for_people() -> None:
    assert [count(n) for n in (7, 999, 4_089_184_256, 1.2e4)] == ["7", "999", "4.09 G", "12 k"]
    assert [size(n) for n in (0, 1023, 1024, 5 << 20)] == ["0 B", "1023 B", "1.0 KiB", "5.0 MiB"]
    assert [duration(s) for s in (2.5, 0.0123, 4.2e-5, 3e-9)] == ["2.5 s", "12.3 ms", "42 us", "3 ns"]
