"""Compile C once and run many calls of it, on this machine or under qemu, each on buffers of its own."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparsec.backends.cpu.isa import Isa, isas, runs_here

CFLAGS = ("-std=c11", "-O2", "-Wall", "-Wextra", "-Werror")
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", "-O1")


@dataclass(frozen=True)
class Call:
    """C statements that see their buffers as `void *b[]`; every buffer is 64-byte aligned and exactly as long as its array."""

    statements: str
    buffers: tuple[np.ndarray[Any, Any], ...]


def runnable_isas(*, integers: bool = False) -> list[Any]:
    """Every instruction set as a pytest parameter, skipped by name where neither this machine nor qemu runs it.

    Only those that compute float32 in ways of their own, unless `integers`.
    """
    every = isas() if integers else {isa.header: isa for isa in isas()}.values()
    return [pytest.param(isa, id=isa.symbol, marks=[] if command(isa) else [_skip(isa)]) for isa in every]


def command(isa: Isa) -> tuple[list[str], list[str]] | None:
    """(compiler, runner) for an instruction set, or None when the machine lacks them."""
    if runs_here(isa):
        return ["cc"], []
    if isa.arch == "aarch64" and shutil.which("aarch64-linux-gnu-gcc") and shutil.which("qemu-aarch64"):
        return ["aarch64-linux-gnu-gcc", "-static"], ["qemu-aarch64"]
    return None


def _skip(isa: Isa) -> pytest.MarkDecorator:
    lacking = "aarch64-linux-gnu-gcc or qemu-aarch64" if isa.arch == "aarch64" else f"a CPU with {isa.name}"
    return pytest.mark.skip(reason=f"the machine lacks {lacking}")


def run_calls(
    isa: Isa, text: str, calls: Sequence[Call], flags: Sequence[str] = CFLAGS
) -> list[tuple[np.ndarray[Any, Any], ...]]:
    """The buffers of every call after it ran, in one process built from `text` (prelude and kernels) and a generated main."""
    found = command(isa)
    assert found is not None
    compiler, runner = found
    functions = [f"static void call_{i}(void **b) {{\n{c.statements}\n}}" for i, c in enumerate(calls)]
    sizes = [[a.nbytes for a in c.buffers] for c in calls]
    table = ",\n".join(f"{{call_{i}, {len(s)}, {{{', '.join(map(str, s))}}}}}" for i, s in enumerate(sizes))
    main = _MAIN.replace("@TABLE@", table).replace("@MOST@", str(max(map(len, sizes))))
    with tempfile.TemporaryDirectory() as folder:
        source, binary = Path(folder, "calls.c"), Path(folder, "calls")
        source.write_text("\n".join(["#define _POSIX_C_SOURCE 200809L", "#include <stdlib.h>", text, *functions, main]))
        built = subprocess.run(
            [*compiler, *flags, *isa.cflags, str(source), "-o", str(binary), "-lm"], capture_output=True, text=True
        )
        assert built.returncode == 0, built.stderr
        data = b"".join(a.tobytes() for c in calls for a in c.buffers)
        ran = subprocess.run([*runner, str(binary)], input=data, capture_output=True)
    assert ran.returncode == 0, ran.stderr.decode()
    results, at = [], 0
    for c in calls:
        row = []
        for a in c.buffers:
            row.append(np.frombuffer(ran.stdout, a.dtype, a.size, at).reshape(a.shape))
            at += a.nbytes
        results.append(tuple(row))
    assert at == len(ran.stdout)
    return results


_MAIN = """
#include <stdio.h>
static const struct { void (*call)(void **); int n; size_t size[@MOST@]; } calls[] = {
@TABLE@
};
int main(void) {
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        void *b[@MOST@];
        for (int j = 0; j < calls[i].n; j++) {
            size_t size = calls[i].size[j];
            if (posix_memalign(&b[j], 64, size ? size : 1)) return 1;
            if (fread(b[j], 1, size, stdin) != size) return 2;
        }
        calls[i].call(b);
        for (int j = 0; j < calls[i].n; j++) {
            if (fwrite(b[j], 1, calls[i].size[j], stdout) != calls[i].size[j]) return 3;
            free(b[j]);
        }
    }
    return 0;
}
"""
