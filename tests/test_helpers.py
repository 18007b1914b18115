"""The helpers in conftest.py and machine.py do what their docstrings say."""

from pathlib import Path

import pytest

from tests import machine
from tests.conftest import compare_golden


def test_golden_mismatch_shows_a_unified_diff(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("a\nb\n")
    compare_golden(path, "a\nb\n", update=False)
    with pytest.raises(pytest.fail.Exception, match=r"(?s)-b\n\+c\n") as failure:
        compare_golden(path, "a\nc\n", update=False)
    assert "--- golden/x.txt" in str(failure.value)
    assert path.read_text() == "a\nb\n"


def test_golden_sees_a_missing_final_newline_and_a_carriage_return(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("a\n")
    for text in ("a", "a\r\n"):
        with pytest.raises(pytest.fail.Exception):
            compare_golden(path, text, update=False)


def test_golden_is_written_only_on_update(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "x.txt"
    with pytest.raises(pytest.fail.Exception, match="no golden"):
        compare_golden(path, "a\n", update=False)
    compare_golden(path, "a\n", update=True)
    assert path.read_text() == "a\n"


def test_needs_skips_with_the_name_of_what_is_lacking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.shutil, "which", lambda tool: None if tool == "clang" else f"/bin/{tool}")
    monkeypatch.delenv("SPARSEC_REQUIRE_TOOLS", raising=False)
    assert machine.needs("gcc").args == (False,)
    assert machine.needs("gcc", "clang").args == (True,)
    assert machine.needs("gcc", "clang").kwargs["reason"] == "not installed: clang"
    monkeypatch.setenv("SPARSEC_REQUIRE_TOOLS", "1")
    assert machine.needs("clang").args == (False,)


def test_needs_refuses_a_tool_that_ci_does_not_install() -> None:
    with pytest.raises(ValueError, match="not among the tools"):
        machine.needs("icc")


def test_needs_cpu_reads_the_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cpu_flags", lambda: frozenset({"avx2"}))
    assert machine.needs_cpu("avx2").args == (False,)
    assert machine.needs_cpu("avx2", "avx512f").kwargs["reason"].endswith("CPU lacks avx512f")
