"""The same model gives the same files, whatever the hash seed, the folder, the environment or what was compiled before."""

import os
import subprocess
import sys
from pathlib import Path

from tests.end_to_end.program import build, run, small_graph, tiny
from tests.machine import needs

SCRIPT = """
from pathlib import Path
from tests.end_to_end.program import emit, tiny
for name in ("tiny_cnn", "tiny_transformer"):
    emit(tiny(name), Path(name), threads=2)
"""
ROOT = Path(__file__).parents[2]


def emitted(folder: Path) -> dict[str, bytes]:
    """Everything but the report, which holds times."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "report.json"}


def test_files_do_not_depend_on_the_process(tmp_path: Path) -> None:
    found = []
    for seed, parent, language in (("0", "a", "C"), ("4242", "b/much/deeper", "C.UTF-8")):
        folder = tmp_path / parent
        folder.mkdir(parents=True)
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONHASHSEED": seed, "LC_ALL": language, "TZ": f"UTC+{seed[0]}", "PYTHONPATH": path}
        subprocess.run([sys.executable, "-c", SCRIPT], cwd=folder, env=environment, check=True)
        found.append({name: emitted(folder / name) for name in ("tiny_cnn", "tiny_transformer")})
    a, b = found
    for name in a:
        assert a[name].keys() == b[name].keys()
        assert [file for file in a[name] if a[name][file] != b[name][file]] == []


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
