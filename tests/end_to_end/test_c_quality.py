"""The generated C compiles without warnings under gcc and clang, and runs clean under ASan and UBSan."""

from pathlib import Path

import pytest

from sparsec.compiler.runtime import CompiledModel
from tests.end_to_end.program import WARNINGS, build, check, emit, link, run, small_graph, tiny
from tests.machine import needs, needs_cpu

TARGETS = ["x86_64+avx512f", "x86_64+avx2+fma", "generic"]
STRICT = ("-std=c11", *WARNINGS, "-Wpedantic", "-Wshadow", "-Wvla", "-Wundef", "-Wno-overlength-strings")
SANITIZE = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


@needs("gcc", "clang")
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ["tiny_cnn", "tiny_transformer"])
def test_no_warnings(name: str, target: str, tmp_path: Path) -> None:
    isa = [f for f in emit(tiny(name), tmp_path, target=target, threads=2) if f.startswith("-m")]
    for cc in ("gcc", "clang"):
        for flags in ((), ("-fopenmp",), ("-fopenmp", "-DNET_SERIAL"), ("-DNET_PROFILE",)):
            run([cc, *STRICT, *isa, *flags, "-fsyntax-only", "net.c"], tmp_path)
    # Warnings that need data flow, large frames, and what the object holds.
    run(["gcc", *STRICT, "-O2", "-fno-pie", *isa, "-fopenmp", "-Wframe-larger-than=16384", "-c", "net.c"], tmp_path)
    undefined = run(["nm", "--undefined-only", "--format=posix", "net.o"], tmp_path)
    needed = {line.split(" ")[0] for line in undefined.splitlines()}
    assert not needed & {"malloc", "calloc", "realloc", "free", "alloca", "printf", "abort", "exit"}
    symbols = run(["nm", "--format=posix", "net.o"], tmp_path).splitlines()
    assert [line for line in symbols if line.split(" ")[1] in "dDbBC"] == [], "the library has mutable globals"


def sanitized(library: CompiledModel) -> Path:
    return link(library, "gcc", "-std=c11", *SANITIZE, output="sanitized")


@needs("gcc")
@pytest.mark.parametrize("name", ["tiny_cnn", "tiny_nhwc", "tiny_transformer"])
@pytest.mark.parametrize("target", [pytest.param("x86_64+avx512f", marks=needs_cpu("avx512f")), "generic"])
def test_sanitizers(name: str, target: str, tmp_path: Path) -> None:
    library = build(tiny(name), tmp_path / "net", target=target)
    check(library, tiny(name), [sanitized(library)], library.directory)


@needs("gcc")
@pytest.mark.parametrize("weights", ["file", "inline"])
def test_sanitizers_with_other_weights(weights: str, tmp_path: Path) -> None:
    library = build(small_graph(), tmp_path / "net", weights=weights)
    flags = ['-DWEIGHTS="net_weights.bin"'] if weights == "file" else []
    check(library, small_graph(), [link(library, "gcc", "-std=c11", *SANITIZE, *flags)], library.directory)
