"""Instruction sets: names, detection, flags that every compiler takes."""

import subprocess

import pytest

from sparsec.backends.cpu import isa as isa_module
from sparsec.backends.cpu.isa import host_isa, isa_named, isas
from sparsec.backends.cpu.prelude import prelude
from sparsec.compiler.errors import UsageError
from tests.machine import cpu_flags, needs


def test_names_find_their_isa_and_unknown_ones_list_the_choices():
    for isa in isas():
        assert isa_named(isa.name) is isa
    assert isa_named("host") is host_isa()
    with pytest.raises(UsageError, match=r"'sse9' is not known: give one of host, x86_64.avx512f"):
        isa_named("sse9")


@pytest.mark.parametrize(
    ("machine", "flags", "symbol"),
    [
        ("x86_64", "avx512f avx512bw avx512dq avx512vl fma avx2", "avx512"),
        ("x86_64", "avx512f avx512bw avx512dq avx512vl avx512_vnni fma avx2", "avx512vnni"),
        ("x86_64", "avx512f avx512bw avx512dq avx512vl avx512_vnni avx512_bf16 fma avx2", "avx512bf16"),
        ("x86_64", "avx2 fma avx_vnni", "avx2vnni"),
        ("aarch64", "asimd asimddp", "neondot"),
        ("aarch64", "asimd asimddp bf16", "neonbf16"),
        ("AMD64", "avx512f avx2 fma", "avx2"),  # a foundation-only AVX-512 lacks what the kernels use
        ("x86_64", "sse4_2 avx", "generic"),
        ("aarch64", "", "neon"),
        ("arm64", "", "neon"),
        ("riscv64", "", "generic"),
    ],
)
def test_host_is_the_widest_that_the_flags_allow(monkeypatch, machine, flags, symbol):
    monkeypatch.setattr(isa_module.platform, "machine", lambda: machine)
    monkeypatch.setattr(isa_module, "_cpu_flags", lambda: frozenset(flags.split()))
    assert next(i for i in isas() if isa_module.runs_here.__wrapped__(i)).symbol == symbol


def test_detection_agrees_with_the_machine():
    assert host_isa().requires <= cpu_flags()


@needs("gcc", "clang")
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_prelude_is_free_of_warnings(compiler, tmp_path):
    for isa in isas():
        if isa.arch == "aarch64":
            continue
        path = tmp_path / f"{isa.symbol}.c"
        path.write_text(prelude(isa, integers=True, bfloat16=True))
        flags = ["-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", *isa.cflags]
        done = subprocess.run([compiler, *flags, str(path)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
