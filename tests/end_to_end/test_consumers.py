"""A C program links the library by each of the emitted build files, and computes what onnxruntime computes."""

from pathlib import Path

import pytest

from sparsec.compiler.runtime import CompiledModel
from tests.end_to_end.program import MAIN, WARNINGS, build, check, definitions, link, run, small_graph
from tests.machine import needs

MODEL = small_graph()


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> CompiledModel:
    return build(MODEL, tmp_path_factory.mktemp("consumers") / "net")


def compile_main(library: CompiledModel, cwd: Path, *flags: str) -> None:
    run(["cc", "-std=c11", *WARNINGS, *definitions(library), MAIN, "-o", "program", *flags], cwd)


@needs("make", "cc")
@pytest.mark.parametrize("archive", ["libnet.a", "libnet.so"])
def test_make(library: CompiledModel, archive: str, tmp_path: Path) -> None:
    for file in library.report.sources.files:
        (tmp_path / file).write_bytes((library.directory / file).read_bytes())
    run(["make", f"./{archive}"], tmp_path)
    compile_main(library, tmp_path, "-I.", f"./{archive}", "-lm")
    check(library, MODEL, ["./program"], tmp_path, LD_LIBRARY_PATH=".")
    run(["make", "net-clean"], tmp_path)
    assert not list(tmp_path.glob("*.o")) and not (tmp_path / archive).exists()


@needs("make", "cc")
def test_included_into_another_makefile(library: CompiledModel, tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    for file in library.report.sources.files:
        (tmp_path / "net" / file).write_bytes((library.directory / file).read_bytes())
    flags = " ".join(f"'{d}'" for d in definitions(library))
    (tmp_path / "Makefile").write_text(
        f"all: program\nNET_DIR := net\ninclude net/Makefile\n"
        f"program: {MAIN} net/libnet.a\n\t$(CC) -std=c11 -Inet {flags} -o $@ $< net/libnet.a $(NET_LIBS)\n"
    )
    run(["make"], tmp_path)
    check(library, MODEL, ["./program"], tmp_path)


@needs("cmake", "make", "cc")
@pytest.mark.parametrize("shared", ["OFF", "ON"])
def test_cmake(library: CompiledModel, shared: str, tmp_path: Path) -> None:
    lines = [
        "cmake_minimum_required(VERSION 3.16)",
        "project(consumer C)",
        f"set(BUILD_SHARED_LIBS {shared})",
        f'add_subdirectory("{library.directory}" net)',
        f'add_executable(program "{MAIN}")',
        "target_link_libraries(program PRIVATE sparsec::net)",
        f"target_compile_definitions(program PRIVATE {' '.join(d.removeprefix('-D') for d in definitions(library))})",
    ]
    (tmp_path / "CMakeLists.txt").write_text("\n".join(lines) + "\n")
    run(["cmake", "-S", ".", "-B", "out", "-G", "Unix Makefiles"], tmp_path)
    run(["cmake", "--build", "out"], tmp_path)
    check(library, MODEL, ["out/program"], tmp_path)


@needs("pkg-config", "cc")
def test_pkg_config(library: CompiledModel, tmp_path: Path) -> None:
    path = {"PKG_CONFIG_PATH": str(library.directory)}
    flags = run(["pkg-config", "--cflags", "--libs", "net"], tmp_path, **path).split()
    compile_main(library, tmp_path, *flags, "-lm")
    check(library, MODEL, ["./program"], tmp_path, LD_LIBRARY_PATH=str(library.directory))


@needs("clang")
def test_the_header_is_cpp_too(library: CompiledModel, tmp_path: Path) -> None:
    (tmp_path / "use.cpp").write_text(
        '#include "net.h"\nint use(const net_inputs *i, const net_outputs *o, void *a)'
        " { return net_run(i, o, nullptr, a) == NET_OK ? 0 : 1; }\n"
    )
    flags = ["-xc++", "-std=c++11", *WARNINGS, "-Wno-missing-prototypes", "-nostdinc++", f"-I{library.directory}"]
    run(["clang", *flags, "-c", "use.cpp", "-o", "use.o"], tmp_path)


@needs("cc")
@pytest.mark.parametrize("mode", ["file", "inline"])
def test_weights_from_a_file_and_inline(mode: str, tmp_path: Path) -> None:
    library = build(MODEL, tmp_path / "net", weights=mode)
    flags = ['-DWEIGHTS="net_weights.bin"'] if mode == "file" else []
    assert (library.directory / "net_weights.bin").exists() == (mode == "file")
    assert not (library.directory / "net_weights.S").exists()
    check(library, MODEL, [link(library, "cc", "-std=c11", *flags)], library.directory)
