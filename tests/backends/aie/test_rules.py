"""Programs that build with the streams by the emitted rules, and see in them what the files hold."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from sparsec.backends.aie.rules import rules
from tests.machine import needs

WARNINGS = ("-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic")
IMAGE = {"channels": 3, "rows": 5, "columns": 7, "top": 1, "left": 2, "height": 9, "width": 11, "dtype": "u8", "zero": 0}
MANIFEST: dict[str, Any] = {
    "name": "my-net 2",
    "machine": {"name": "aie2:npu1 */ #error"},
    "activation_bytes": 4096,
    "images": {"x.q": {"offset": 0, **IMAGE}, "x_q": {"offset": 640, **IMAGE}},
    "parts": [
        {"kind": "host", "folder": "part0"},
        {"kind": "array", "control": "part1/control.bin", "weights": "part1/weights.bin"},
        {"kind": "array", "control": "part2/control.bin", "weights": "part2/weights.bin"},
    ],
}
FILES = {
    "core.s": b"no stream",
    "core_0_2.bin": bytes(range(48)),
    "core_1_2.bin": b"\xff" * 16,
    "part1/control.bin": b"control\0of part 1",
    "part1/weights.bin": b"w" * 64,
    "part1/part.mlir": b"no stream",
    "part2/control.bin": b"2" * 20,
    "part2/weights.bin": b"",
    "manifest.json": b"{}",
}
SYMBOLS = {
    "my_net_2_part1_control": "part1/control.bin",
    "my_net_2_part1_weights": "part1/weights.bin",
    "my_net_2_part2_control": "part2/control.bin",
    "my_net_2_part2_weights": "part2/weights.bin",
    "my_net_2_core_0_2": "core_0_2.bin",
    "my_net_2_core_1_2": "core_1_2.bin",
}
CHECKS = "".join(f'    CHECK({s}, {s.upper()}_BYTES, "{f}");\n' for s, f in SYMBOLS.items())
MAIN = f"""
#include "my_net_2_streams.h"
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#define CHECK(symbol, size, path) if (differs(symbol, size, path)) return printf("%s\\n", path), 1
static int differs(const unsigned char *held, size_t size, const char *path) {{
    unsigned char read[4096];
    FILE *file = fopen(path, "rb");
    size_t got = file ? fread(read, 1, sizeof read, file) : 0;
    return !file || fclose(file) || got != size || memcmp(read, held, size) || (uintptr_t)held % 64;
}}
_Static_assert(MY_NET_2_ARGUMENT_WEIGHTS == 0 && MY_NET_2_ARGUMENT_ACTIVATIONS == 1 && MY_NET_2_ARGUMENTS == 2, "arguments");
_Static_assert(MY_NET_2_ACTIVATION_BYTES == 4096, "activations");
_Static_assert(MY_NET_2_IMAGE_X_Q_OFFSET == 0 && MY_NET_2_IMAGE_X_Q_2_OFFSET == 640, "images");
_Static_assert(MY_NET_2_IMAGE_X_Q_TOP == 1 && MY_NET_2_IMAGE_X_Q_WIDTH == 11, "images");
int main(void) {{
{CHECKS}    return 0;
}}
"""


def put(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An emitted folder, and beside it a program."""
    put(tmp_path / "net", {**FILES, **rules(MANIFEST, FILES)})
    (tmp_path / "main.c").write_text(MAIN)
    return tmp_path / "net"


def run(command: Sequence[str], cwd: Path) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"


def check_copied(folder: Path) -> None:
    streams = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert streams == {f: FILES[f] for f in [*SYMBOLS.values(), "manifest.json"]}


@pytest.mark.parametrize("cc", [pytest.param(c, marks=needs("make", c)) for c in ("gcc", "clang")])
def test_make(folder: Path, cc: str) -> None:
    run(["make", f"CC={cc}"], folder)
    run([cc, *WARNINGS, "-I.", "../main.c", "libmy_net_2_streams.a", "-o", "program"], folder)
    run(["./program"], folder)
    run(["make", "my_net_2-copy", "MY_NET_2_DESTINATION=copied"], folder)
    check_copied(folder / "copied")
    run(["make", "my_net_2-clean"], folder)
    assert not list(folder.glob("*.o")) and not list(folder.glob("*.a"))


@needs("make", "cc")
def test_a_changed_stream_is_embedded_again(folder: Path) -> None:
    (folder.parent / "Makefile").write_text(
        "all: program\nMY_NET_2_DIR := net\ninclude net/Makefile\n"
        f"program: main.c net/libmy_net_2_streams.a\n\t$(CC) {' '.join(WARNINGS)} -Inet $^ -o $@\n"
    )
    run(["make"], folder.parent)
    (folder / "core_1_2.bin").write_bytes(b"\x01" * 16)
    run(["touch", "-d", "+2 seconds", "net/core_1_2.bin"], folder.parent)
    run(["make"], folder.parent)
    run(["../program"], folder)


@needs("cmake", "make", "cc")
def test_cmake(folder: Path) -> None:
    (folder.parent / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16)\nproject(consumer C)\nadd_subdirectory(net)\nadd_executable(program main.c)\n"
        "target_link_libraries(program PRIVATE sparsec::my_net_2_streams)\n"
    )
    run(["cmake", "-S", ".", "-B", "out", "-G", "Unix Makefiles", "-DMY_NET_2_DESTINATION=copied"], folder.parent)
    run(["cmake", "--build", "out"], folder.parent)
    run(["../out/program"], folder)
    run(["cmake", "--build", "out", "--target", "my_net_2_copy"], folder.parent)
    check_copied(folder.parent / "copied")


def test_nothing_on_the_array() -> None:
    host = MANIFEST | {"parts": MANIFEST["parts"][:1]}
    assert rules(host, FILES) == {}
