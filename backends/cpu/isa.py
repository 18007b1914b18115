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

    `header` names the templates of its primitives. `dot` says how four products of bytes a lane are summed: vnni and neondot
    by one instruction, pairs by products of 16-bit numbers, neon by widening products, scalar by C; `dot_cost` is what that
    takes, in FMAs. `reduced_cost`: the same where no two weights that lie side by side sum to more than 128, so that the sums of
    two products fit in 16 bits; None where that makes no difference.

    `bf16` is how many bfloat16 products a lane are summed in float32 at once: 2 by a dot-product instruction, 1 where they are
    widened first, 0 where there are no kernels for bfloat16; `bf16_cost` is what that takes, in FMAs.
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
    header: str = ""
    dot: str = "pairs"
    dot_cost: float = 4.0
    reduced_cost: float | None = None
    bf16: int = 0
    bf16_cost: float = 1.0

    def dots(self, data: int, weights: int, *, reduced: bool) -> float:
        """Each of `data` vectors of fours times each of `weights`, in FMAs; `reduced`: weights are as `reduced_cost` wants."""
        if reduced and self.reduced_cost is not None:
            return data * weights * self.reduced_cost
        widened = 2 * data + 3 * weights if self.dot == "pairs" else 0
        return data * weights * self.dot_cost + widened

    def dot_registers(self, operands: int, *, reduced: bool) -> int:
        """Registers that so many vectors of bytes take, and a product beside them and the sums."""
        if self.dot != "pairs":
            return operands
        return operands + 2 if reduced else 2 * operands + 1

    @property
    def signed_data(self) -> bool:
        """Whether data of byte products are signed: what is stored less 128."""
        return self.dot in ("neon", "neondot")

    @property
    def vector_bytes(self) -> int:
        """Bytes of one vector."""
        return 4 * self.lanes


_AVX512 = ("avx512f", "avx512bw", "avx512dq", "avx512vl")
_AVX512_FLAGS = (*(f"-m{f}" for f in _AVX512), "-mfma", "-mprefer-vector-width=512")

_ISAS = (
    Isa(
        "x86_64+avx512f+bf16",  # every CPU that has it multiplies bytes by VNNI, too
        "avx512bf16",
        "x86_64",
        16,
        32,
        (*_AVX512_FLAGS[:4], "-mavx512vnni", "-mavx512bf16", *_AVX512_FLAGS[4:]),
        frozenset({*_AVX512, "fma", "avx512_vnni", "avx512_bf16"}),
        broadcast_operand=True,
        header="avx512",
        dot="vnni",
        dot_cost=1.0,
        bf16=2,
        bf16_cost=1.1,
    ),
    Isa(
        "x86_64+avx512f+vnni",
        "avx512vnni",
        "x86_64",
        16,
        32,
        (*_AVX512_FLAGS[:4], "-mavx512vnni", *_AVX512_FLAGS[4:]),
        frozenset({*_AVX512, "fma", "avx512_vnni"}),
        broadcast_operand=True,
        header="avx512",
        dot="vnni",
        dot_cost=1.0,
    ),
    Isa(
        "x86_64+avx512f",
        "avx512",
        "x86_64",
        16,
        32,
        _AVX512_FLAGS,
        frozenset({*_AVX512, "fma"}),
        broadcast_operand=True,
        header="avx512",
        reduced_cost=3.0,
    ),
    Isa(
        "x86_64+avx2+vnni",
        "avx2vnni",
        "x86_64",
        8,
        16,
        ("-mavx2", "-mfma", "-mavxvnni"),
        frozenset({"avx2", "fma", "avx_vnni"}),
        header="avx2",
        dot="vnni",
        dot_cost=1.0,
    ),
    Isa(
        "x86_64+avx2+fma",
        "avx2",
        "x86_64",
        8,
        16,
        ("-mavx2", "-mfma"),
        frozenset({"avx2", "fma"}),
        header="avx2",
        dot_cost=3.5,
        reduced_cost=3.0,
    ),
    Isa(
        "aarch64+neon+bf16",  # Armv8.6, which has the dot products of bytes, too
        "neonbf16",
        "aarch64",
        4,
        32,
        ("-march=armv8.2-a+dotprod+bf16",),
        frozenset({"asimddp", "bf16"}),
        broadcast_operand=True,
        header="neon",
        dot="neondot",
        dot_cost=1.0,
        bf16=2,
    ),
    Isa(
        "aarch64+neon+dotprod",
        "neondot",
        "aarch64",
        4,
        32,
        ("-march=armv8.2-a+dotprod",),
        frozenset({"asimddp"}),
        broadcast_operand=True,
        header="neon",
        dot="neondot",
        dot_cost=1.0,
    ),
    Isa("aarch64+neon", "neon", "aarch64", 4, 32, (), broadcast_operand=True, header="neon", dot="neon", dot_cost=6.0),
    Isa("generic", "generic", "any", 1, 16, (), header="generic", dot="scalar", bf16=1),
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
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()
