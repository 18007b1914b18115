"""Importing sparsec is free, and its public names are found when they are asked for."""

import ast
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import sparsec

ROOT = Path(__file__).parents[2]


def loaded_by(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after `statement`."""
    code = f"import sys; {statement}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("statement", ["import sparsec", "import sparsec.compiler"])
def test_import_loads_nothing_heavy(statement: str) -> None:
    assert not loaded_by(statement) & {"onnx", "onnxruntime", "numpy", "scipy", "networkx", "jinja2", "pydantic", "typer"}


def test_compiler_init_imports_nothing() -> None:
    body = ast.parse((ROOT / "compiler" / "__init__.py").read_text()).body
    assert len(body) == 1
    assert isinstance(body[0], ast.Expr)
    assert isinstance(body[0].value, ast.Constant)


def test_every_link_leads_to_its_room() -> None:
    links = {path.name: path.resolve() for path in (ROOT / "python" / "sparsec").iterdir() if path.is_symlink()}
    assert links == {room: ROOT / room for room in ("compiler", "passes", "backends", "templates")}


@pytest.mark.skipif(find_spec("sparsec.compiler.driver") is None, reason="no driver yet")
def test_public_names() -> None:
    assert set(sparsec.__all__) <= set(dir(sparsec))
    assert sparsec.__version__.count(".") == 2
    assert callable(sparsec.compile)
    assert callable(sparsec.load)
    assert issubclass(sparsec.SparsecError, Exception)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'complie'"):
        _ = sparsec.complie
