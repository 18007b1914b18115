"""What the documentation shows works: links resolve, commands and options exist, examples compile and run."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import typer
from onnx import TensorProto, helper

from sparsec.compiler.cli.app import make_app
from sparsec.compiler.driver import compile as compile_model
from tests.end_to_end.program import run
from tests.machine import needs

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
GUIDE = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.S | re.M)


def command_lines() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for line in page.read_text(encoding="utf-8").splitlines():
            found = re.match(r"    (sparsec [a-z].*?)(\s+#.*)?$", line)
            if found and "[OPTIONS]" not in line and "COMMAND" not in line:
                yield page.name, found[1]


def anchors(page: Path) -> set[str]:
    """What links may name behind a page's #."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.M)
    return {re.sub(r"[^a-z0-9 _-]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_resolve(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            name, _, anchor = target.partition("#")
            path = page.parent / name if name else page
            assert path.exists(), target
            assert not anchor or anchor in anchors(path), target


@pytest.mark.parametrize(("page", "line"), list(command_lines()))
def test_commands_take_the_options_that_are_shown(page: str, line: str) -> None:
    _, name, *arguments = shlex.split(line)
    command = typer.main.get_command(make_app(None)).commands[name]  # type: ignore[attr-defined]
    while commands := getattr(command, "commands", None):
        command = commands[arguments.pop(0)]
    known = {option for p in command.params for option in (*p.opts, *p.secondary_opts)}
    assert {a.partition("=")[0] for a in arguments if a.startswith("-")} <= known


def mean_and_relu() -> onnx.ModelProto:
    """A model with the names that the guide's example uses."""
    nodes = [helper.make_node("GlobalAveragePool", ["x"], ["mean"]), helper.make_node("Relu", ["mean"], ["scores"])]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 3, 1, 1])
    return helper.make_model(
        helper.make_graph(nodes, "g", [x], [scores]), opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    )


@needs("cc", "make")
def test_the_guides_c_program_builds_by_the_guides_makefile(tmp_path: Path) -> None:
    compile_model(mean_and_relu(), tmp_path / "build" / "model", target="generic", name="model")
    (example,) = blocks(GUIDE, "c")
    (tmp_path / "app.c").write_text(
        example
        + "int main(void) { float x[192], s[3]; for (int i = 0; i < 192; i++) x[i] = 2; return classify(x, s) || s[2] != 2; }\n"
    )
    (makefile,) = blocks(GUIDE, "make")
    (tmp_path / "Makefile").write_text(makefile)
    run(["make", "app"], tmp_path)
    run(["./app"], tmp_path)


def test_the_guides_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    model = mean_and_relu()
    onnx.save(model, "model.onnx")
    (example, *_) = blocks(GUIDE, "python")
    exec(compile(example.replace("224, 224", "8, 8"), "guide.md", "exec"), {"np": np})
    assert "scores" in capsys.readouterr().out


@needs("cmake", "cc")
def test_the_guides_cmake_configures(tmp_path: Path) -> None:
    compile_model(mean_and_relu(), tmp_path / "build" / "model", target="generic", name="model")
    (lines,) = blocks(GUIDE, "cmake")
    (tmp_path / "app.c").write_text("int main(void) { return 0; }\n")
    head = "cmake_minimum_required(VERSION 3.16)\nproject(app C)\nadd_executable(app app.c)\n"
    (tmp_path / "CMakeLists.txt").write_text(head + lines)
    run(["cmake", "-S", ".", "-B", "out", "-G", "Unix Makefiles"], tmp_path)
    run(["cmake", "--build", "out"], tmp_path)
