"""Fixtures and options that all tests share."""

import difflib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

GOLDEN = Path(__file__).parent / "golden"

_COMMON = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("local", _COMMON)
settings.register_profile("ci", _COMMON, derandomize=True, print_blob=True)
settings.register_profile("thorough", _COMMON, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "local"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-goldens", action="store_true", help="rewrite tests/golden/ with what the tests got")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """`golden("conv/relu.c", text)`: text is what tests/golden/conv/relu.c holds, to the byte."""
    update: bool = request.config.getoption("--update-goldens")

    def check(name: str, text: str) -> None:
        compare_golden(GOLDEN / name, text, update=update)

    return check


def compare_golden(path: Path, text: str, *, update: bool) -> None:
    """Fail with a unified diff unless `path` holds `text`; with `update`, write it instead."""
    held = path.read_bytes().decode() if path.exists() else None
    if held == text:
        return
    if update:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
        return
    if held is None:
        pytest.fail(f"no golden {path.name}: run pytest with --update-goldens to write it", pytrace=False)
    diff = difflib.unified_diff(
        held.splitlines(keepends=True), text.splitlines(keepends=True), f"golden/{path.name}", f"got/{path.name}"
    )
    shown = "".join(line if line.endswith("\n") else f"{line}\n\\ no newline at the end\n" for line in diff)
    pytest.fail(f"differs from its golden (--update-goldens rewrites it):\n{shown}", pytrace=False)
