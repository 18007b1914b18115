"""Names in a model may hold anything: none of it reaches C but through cleaning, and every symbol is one of ours."""

import re
from pathlib import Path

import onnx
import pytest

from sparsec.compiler.cli import main
from sparsec.compiler.runtime import CompiledModel
from tests.end_to_end.program import WARNINGS, build, check, link, run, small_graph
from tests.machine import needs

MARK = "EVIL"  # in every name, so that a raw one would be seen
HOSTILE = {
    "graph": f'{MARK}*/ int pwned(void){{return 1;}} /*"\n#error {MARK}',
    "x": f'{MARK}"); system("true"); //%s%n',
    "w1": f"{MARK}??/\n#define int long",
    "b1": f"{MARK}\\",
    "w2": f"{MARK}\x00\x1b[31m",
    "a": "int",
    "r": f"{MARK}\r\n#include </dev/zero>",
    "c": f"{MARK}\u202e\u0000é中",
    "s": f"{MARK} " * 300,
    "p": "../../" + MARK,
    "f": f"{MARK}*/",
    "w3": f"$({MARK})`{MARK}`",
    "y": "while",
    "z": f"{MARK}/*",
    "conv": f"{MARK}*/\n#error conv",
    "relu": f"{MARK}??/",
}


def hostile() -> onnx.ModelProto:
    model = small_graph(HOSTILE)
    model.producer_name = f"{MARK}*/ #error producer"
    model.doc_string = model.graph.doc_string = f"{MARK}*/ #error doc\n"
    for node in model.graph.node:
        node.doc_string = f"{MARK}*/ #error node doc"
    return model


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> CompiledModel:
    return build(hostile(), tmp_path_factory.mktemp("hostile") / "net", name=None)


@needs("gcc")
def test_it_compiles_and_computes(library: CompiledModel) -> None:
    check(library, hostile(), [link(library, "gcc", "-std=c11", *WARNINGS)], library.directory)


def test_the_names_come_back_to_python(library: CompiledModel) -> None:
    assert [t.name for t in library.inputs] == [HOSTILE["x"]]
    assert [t.name for t in library.outputs] == [HOSTILE["y"], HOSTILE["z"]]


@needs("gcc")
def test_only_the_expected_symbols_are_defined_and_exported(library: CompiledModel) -> None:
    name = library.report.options.name
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,62}", name)
    run(["gcc", "-std=c11", "-O1", "-fPIC", "-c", "-I.", f"{name}.c"], library.directory)
    defined = set(run(["nm", "--defined-only", "--extern-only", "--format=posix", f"{name}.o"], library.directory).split("\n"))
    assert {line.split(" ")[0] for line in defined if line} == {f"{name}_run", f"{name}_input_info", f"{name}_output_info"}
    lines = run(["nm", "--dynamic", "--defined-only", "--format=posix", f"lib{name}.so"], library.directory)
    assert {line.split(" ")[0] for line in lines.splitlines()} == {f"{name}_run", f"{name}_input_info", f"{name}_output_info"}
    assert not re.search(r"^\S* \w pwned$", run(["nm", f"lib{name}.so"], library.directory), flags=re.M)


def test_no_text_of_the_model_is_code(library: CompiledModel) -> None:
    """With comments and string literals taken out, no name is left; those that are in them cannot end them."""
    name = library.report.options.name
    for file in (f"{name}.c", f"{name}.h"):
        text = (library.directory / file).read_text(encoding="ascii")
        assert "??" not in text and "\r" not in text and "\x00" not in text
        code = re.sub(r'"(?:[^"\\\n]|\\.)*"', '""', re.sub(r"/\*.*?\*/", "", text, flags=re.S))
        assert '"' not in code.replace('""', "") and "*/" not in code
        for word in re.findall(r"\b\w*EVIL\w*", code):
            assert re.fullmatch(r"[A-Za-z0-9_]{1,90}", word)  # cleaned: an identifier, which is not the raw name
            assert word not in HOSTILE.values()
        assert not re.search(r"^\s*#\s*(error|include </dev)", code, flags=re.M)


def test_build_files_hold_no_raw_name(library: CompiledModel) -> None:
    name = library.report.options.name
    for file in ("Makefile", "CMakeLists.txt", f"{name}.pc"):
        text = (library.directory / file).read_text(encoding="ascii")
        assert not [raw for raw in HOSTILE.values() if raw in text and MARK in raw]
        assert "system" not in text and "`" not in text


@needs("gcc")
def test_names_that_clean_to_the_same_are_told_apart(tmp_path: Path) -> None:
    names = {"x": "a.b", "y": "a-b", "z": "a/b", "a": "A b", "r": "a b", "graph": "int"}
    model = small_graph(names)
    library = build(model, tmp_path / "net", name=None)
    header = (library.directory / f"{library.report.options.name}.h").read_text()
    fields = re.findall(r"^ +(?:const )?float \*(\w+);", header, flags=re.M)
    assert len(fields) == 3 and len(set(fields[1:])) == 2
    check(library, model, [link(library, "gcc", "-std=c11", *WARNINGS)], library.directory)


@pytest.mark.parametrize("name", ["../escape", "int", "9lives", "*/", "", "con figure\n"])
def test_the_name_option_is_cleaned_too(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(small_graph(), tmp_path / "m.onnx")
    assert main(["compile", "m.onnx", "--name", name, "--target", "generic", "-q"]) == 0
    (folder,) = (tmp_path / "build").iterdir()
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", folder.name)
    assert (folder / f"lib{folder.name}.so").exists()


def test_the_terminal_sees_no_control_characters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(hostile(), tmp_path / "m.onnx")
    for command in ("inspect", "bench", "verify"):
        extra = {"inspect": ["--ir"], "bench": ["--layers", "--rounds", "1", "-q"], "verify": ["--samples", "1"]}[command]
        assert main([command, str(tmp_path / "m.onnx"), *extra]) == 0
    out, err = capsys.readouterr()
    assert not set("\x00\x1b\r\u202e") & set(out + err)
