"""The same model gives the same files, whatever the hash seed, the folder, the environment or what was compiled before."""

import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from tests.end_to_end.program import build, run, small_graph, tiny
from tests.machine import needs

SCRIPT = """
import sys
import onnx
from sparsec.compiler.driver import compile
compile(sys.argv[1], sys.argv[2], target="generic")
"""


def emitted(folder: Path) -> dict[str, bytes]:
    """Everything but the report, which holds times."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "report.json"}


@pytest.mark.parametrize("name", ["tiny_cnn", "tiny_transformer"])
def test_files_do_not_depend_on_the_process(name: str, tmp_path: Path) -> None:
    onnx.save(tiny(name), tmp_path / "m.onnx")
    folders = []
    for seed, parent, language in (("0", "a", "C"), ("4242", "b/much/deeper", "C.UTF-8")):
        (tmp_path / parent).mkdir(parents=True)
        folder = tmp_path / parent / "lib"
        environment = {**os.environ, "PYTHONHASHSEED": seed, "LC_ALL": language, "TZ": f"UTC+{seed[0]}"}
        command = [sys.executable, "-c", SCRIPT, "../m.onnx" if parent == "a" else str(tmp_path / "m.onnx"), str(folder)]
        subprocess.run(command, cwd=tmp_path / parent, env=environment, check=True)
        folders.append(folder)
    a, b = map(emitted, folders)
    assert a.keys() == b.keys()
    assert [f for f in a if a[f] != b[f] and not f.endswith(".d")] == []  # .d names the model's path


def test_files_do_not_depend_on_what_was_compiled_before(tmp_path: Path) -> None:
    first = emitted(build(small_graph(), tmp_path / "a").directory)
    build(tiny("tiny_cnn"), tmp_path / "other")
    assert emitted(build(small_graph(), tmp_path / "b").directory) == first


@needs("make")
def test_the_library_does_not_name_the_folder(tmp_path: Path) -> None:
    library = build(small_graph(), tmp_path / "a_telling_name")
    for path in library.directory.iterdir():
        assert b"a_telling_name" not in path.read_bytes(), path.name
    assert "net" in run(["make", "--dry-run"], library.directory)
