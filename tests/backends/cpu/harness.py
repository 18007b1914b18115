"""Compiles kernels alone and calls them on numpy arrays, so that a family is tested without graph, lowering or emission.

With SPARSEC_SANITIZE set (and the sanitizer's runtime preloaded) the C is compiled with -fsanitize=address,undefined.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from sparsec.backends.cpu.isa import Isa, isas, runs_here
from sparsec.backends.cpu.kernel import Geometry, Kernel, struct_declaration
from sparsec.backends.cpu.prelude import prelude

Array = np.ndarray[Any, Any]
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-std=c11")
SANITIZED = bool(os.environ.get("SPARSEC_SANITIZE"))
RUNNABLE = tuple({isa.header: isa for isa in isas() if runs_here(isa)}.values())  # one for each way to compute float32
BYTES = tuple(isa for isa in isas() if runs_here(isa))  # products of bytes differ where float32 is the same
HERE = RUNNABLE[:2][-1:] if SANITIZED else RUNNABLE  # one will do: it costs twice the time, and finds the same


def by_name(isa: Isa) -> str:
    """A readable pytest id."""
    return isa.symbol


def source_of(isa: Isa, kernels: Iterable[Kernel]) -> str:
    """One C file with the prelude, the geometry structs, the kernels, and an exported caller for each kernel."""
    unique = list(dict.fromkeys(kernels))
    structs = {k.family: struct_declaration(k.family, k.geometry) for k in unique}
    head = prelude(isa, integers=any(k.integers for k in unique), bfloat16=any(k.bfloat16 for k in unique))
    parts = [head, *structs.values()]
    for k in unique:
        arguments = "".join(f", p[{i}]" for i in range(len(k.pointers())))
        parts.append(k.source(isa))
        parts.append(
            f"void call_{k.symbol(isa)}(const void *g, void **p, void *scratch, int tid, int nt) "
            f"{{ {k.symbol(isa)}(g{arguments}, scratch, tid, nt); }}\n"
        )
    return "\n".join(parts)


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="sparsec-kernels-")


@functools.cache
def _loaded(text: str, flags: tuple[str, ...], cc: str) -> ctypes.CDLL:
    stem = Path(_folder().name) / hashlib.sha256("\0".join([text, cc, *flags]).encode()).hexdigest()[:16]
    stem.with_suffix(".c").write_text(text)
    command = [cc, *WARNINGS, *flags, "-shared", "-fPIC", "-o", f"{stem}.so", f"{stem}.c", "-lm"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr[:6000]}"
    return ctypes.CDLL(f"{stem}.so")


@dataclass(frozen=True)
class Library:
    """Compiled kernels."""

    isa: Isa
    handle: ctypes.CDLL

    def run(self, kernel: Kernel, geometry: Geometry, arrays: Sequence[Array | None], threads: int = 1) -> None:
        """Call `kernel` once for each of `threads` threads, one after the other, on the arrays' memory (None = NULL)."""
        caller = bound(self, kernel, geometry, arrays, threads)
        for tid in range(threads):
            caller(tid)


def bound(lib: Library, kernel: Kernel, geometry: Geometry, arrays: Sequence[Array | None], threads: int = 1) -> Any:
    """A function of the thread number that calls the kernel with no further preparation (for timing)."""
    assert len(arrays) == len(kernel.pointers())
    assert isinstance(geometry, kernel.geometry)
    values: list[int] = []
    for f in fields(geometry):  # type: ignore[arg-type]
        v = getattr(geometry, f.name)
        assert not isinstance(v, tuple) or len(v) == f.metadata["length"], f.name
        values.extend(v if isinstance(v, tuple) else (v,))
    g = np.array(values, np.int64)
    p = (ctypes.c_void_p * len(arrays))(*(a.ctypes.data if a is not None else None for a in arrays))
    scratch = aligned(kernel.scratch_bytes(geometry, lib.isa), np.uint8)
    function = lib.handle[f"call_{kernel.symbol(lib.isa)}"]

    def call(tid: int = 0, keep: Any = (g, arrays, scratch)) -> None:
        function(ctypes.c_void_p(g.ctypes.data), p, ctypes.c_void_p(scratch.ctypes.data), tid, threads)

    return call


def compile_kernels(isa: Isa, kernels: Iterable[Kernel], cc: str = "gcc") -> Library:
    """Compile into one shared object; warnings are errors."""
    flags = ["-O1" if SANITIZED else "-O3", *isa.cflags]
    if SANITIZED:
        flags += ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    return Library(isa, _loaded(source_of(isa, kernels), tuple(flags), cc))


def aligned(elements: int, dtype: Any = np.float32, fill: float | None = None) -> Array:
    """A fresh 1-D array at a 64-byte boundary. `fill` (default: 7-ish garbage) shows what a kernel forgets to write."""
    size = elements * np.dtype(dtype).itemsize
    raw = np.empty(size + 64, np.uint8)
    # under the sanitizer the array ends where its memory ends, so that a step beyond is seen
    start = 64 if SANITIZED else -raw.ctypes.data % 64
    array = raw[start : start + size].view(dtype)
    array[...] = np.array(7 if fill is None else fill).astype(dtype)
    return array
