"""Marks for tests that need a tool or a CPU feature: `@needs("clang")`, `@needs_cpu("avx512f")`.

A test is skipped, with the name of what is lacking, only when the machine lacks it. Where SPARSEC_REQUIRE_TOOLS is set
(CI installs every tool first) a lacking tool is no reason to skip, so the test runs and fails.
"""

import os
import platform
import shutil
from functools import cache
from pathlib import Path

import pytest

TOOLS = {
    *("gcc", "g++", "clang", "cc", "make", "cmake", "ninja", "pkg-config", "aarch64-linux-gnu-gcc", "qemu-aarch64"),
    *("iverilog", "verilator"),
}


def has(tool: str) -> bool:
    """Whether `tool` is on the PATH."""
    if tool not in TOOLS:
        raise ValueError(f"{tool!r} is not among the tools that tests may need: add it to tests/machine.py and .ci/run")
    return shutil.which(tool) is not None


@cache
def cpu_flags() -> frozenset[str]:
    """The feature flags of the first CPU, in the kernel's spelling (x86 `flags`, Arm `Features`)."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def needs(*tools: str) -> pytest.MarkDecorator:
    """Skip the test when one of `tools` is not installed."""
    lacking = [tool for tool in tools if not has(tool)]
    if os.environ.get("SPARSEC_REQUIRE_TOOLS"):
        lacking = []
    return pytest.mark.skipif(bool(lacking), reason=f"not installed: {', '.join(lacking)}")


def needs_cpu(*flags: str) -> pytest.MarkDecorator:
    """Skip the test when this machine's CPU lacks one of `flags`."""
    lacking = [flag for flag in flags if flag not in cpu_flags()]
    return pytest.mark.skipif(bool(lacking), reason=f"this {platform.machine()} CPU lacks {', '.join(lacking)}")
