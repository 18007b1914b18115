"""Instruction sets: what the kernels are written for, and how the C compiler is asked for it."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sparsec.compiler.errors import UsageError


@dataclass(frozen=True, slots=True)
class Isa:
    """An instruction set as the kernels see it.

    `lanes` are float32 values a vector, `registers` the vector registers, `fma_per_cycle` the vector FMAs that a common core
    starts in a cycle. `broadcast_operand` says that an FMA takes a scalar in memory as its broadcast operand at no extra
    instruction. `requires` are the CPU flags, in the kernel's spelling, without which the code does not run.
    """

    name: str
    symbol: str
    arch: str
    lanes: int
    registers: int
    cflags: tuple[str, ...]
    requires: frozenset[str] = frozenset()
    fma_per_cycle: float = 2.0
    broadcast_operand: bool = False

    @property
    def vector_bytes(self) -> int:
        """Bytes of one vector."""
        return 4 * self.lanes


_ISAS = (
    Isa(
        "x86_64+avx512f",
        "avx512",
        "x86_64",
        16,
        32,
        ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mprefer-vector-width=512"),
        frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl", "fma"}),
        broadcast_operand=True,
    ),
    Isa("x86_64+avx2+fma", "avx2", "x86_64", 8, 16, ("-mavx2", "-mfma"), frozenset({"avx2", "fma"})),
    Isa("aarch64+neon", "neon", "aarch64", 4, 32, (), broadcast_operand=True),
    Isa("generic", "generic", "any", 1, 16, ()),
)


def isas() -> tuple[Isa, ...]:
    """Every instruction set, the widest first."""
    return _ISAS


def isa_named(name: str) -> Isa:
    """The instruction set that a user calls `name`; `host` is this machine's. UsageError when there is none."""
    if name == "host":
        return host_isa()
    for isa in _ISAS:
        if isa.name == name:
            return isa
    raise UsageError(f"target {name!r} is not known: give one of host, {', '.join(i.name for i in _ISAS)}")


@cache
def host_isa() -> Isa:
    """The widest instruction set that this machine runs."""
    return next(isa for isa in _ISAS if runs_here(isa))


@cache
def runs_here(isa: Isa) -> bool:
    """Whether this machine executes code for `isa`."""
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    return isa.arch == "any" or (isa.arch == machine and isa.requires <= _cpu_flags())


@cache
def _cpu_flags() -> frozenset[str]:
    """Feature flags of the first CPU in /proc/cpuinfo; empty where there is no such file."""
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else []:
        key, _, value = line.partition(":")
        if key.strip() == "flags":
            return frozenset(value.split())
    return frozenset()
