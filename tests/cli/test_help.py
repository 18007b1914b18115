"""Help is there for every command, says what it should, and costs no heavy import."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from sparsec.compiler.cli import main
from sparsec.compiler.cli.app import make_app


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, sub in getattr(command, "commands", {}).items():
        yield from commands(sub, (*path, name))


ALL = list(commands(typer.main.get_command(make_app(None))))


@pytest.mark.parametrize("path", [p for p, _ in ALL], ids=" ".join)
def test_every_command_explains_itself(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*path, "--help"]) == 0
    assert f"Usage: sparsec{''.join(f' {p}' for p in path)}" in capsys.readouterr().out


@pytest.mark.parametrize(("path", "command"), ALL, ids=[" ".join(p) for p, _ in ALL])
def test_every_option_and_argument_has_a_meaning(path: tuple[str, ...], command: Any) -> None:
    assert command.help
    assert [p.name for p in command.params if not p.help] == []
    assert [p.name for p in command.params if "[" in p.help] == [], "rich would take it for markup"


def test_help_loads_nothing_heavy() -> None:
    script = (
        "import sys; from sparsec.compiler.cli import main; main(['compile', '--help'])\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'numpy', 'onnx', 'onnxruntime', 'onnx_ir', 'scipy', 'networkx',"
        " 'jinja2'}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\n[]\n")


def test_no_arguments_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "Usage: sparsec" in "".join(capsys.readouterr())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("sparsec 0.")
