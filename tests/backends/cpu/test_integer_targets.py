"""Products of bytes on instruction sets that this machine lacks: AArch64 under qemu, AVX-VNNI as AVX-512 encodes it."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparsec.backends.cpu.target import CpuTarget
from sparsec.compiler.driver import Compilation, build
from tests.backends.cpu.compiled import call_library, merged, split
from tests.backends.cpu.test_integers import LAYERS, cases, check
from tests.machine import needs, needs_cpu

Array = np.ndarray[Any, Any]
MAIN = Path(__file__).parents[2] / "end_to_end" / "main.c"


def emitted(target: str, folder: Path, graph: Any, kernels: Sequence[str] = ()) -> tuple[Compilation, list[str]]:
    """The library's files in `folder`, of these families of kernels (none: all); the flags of its target."""
    made = build(graph, CpuTarget.named(target, kernels=kernels))
    for name, data in made.emitted.files.items():
        (folder / name).write_bytes(data)
    return made, [f for f in made.emitted.compile_flags if not f.startswith("-O")]


def outputs(made: Compilation) -> list[Array]:
    return [np.empty(o.type.shape, o.type.dtype.numpy) for o in made.program.outputs]


def sources(folder: Path) -> list[str]:
    return [p.name for p in sorted(folder.iterdir()) if p.suffix in (".c", ".S")]


@needs("aarch64-linux-gnu-gcc", "qemu-aarch64")
@pytest.mark.parametrize(
    ("target", "kernels"), [("aarch64+neon", ()), ("aarch64+neon+dotprod", ()), ("aarch64+neon", ("planar",))]
)
def test_aarch64_under_qemu(target: str, kernels: tuple[str, ...], tmp_path: Path) -> None:
    graphs, feeds = cases(11)
    if kernels:  # planar: panels of more outputs than a vector has lanes
        graphs, feeds = ({n: d[n] for n in graphs if LAYERS[n].pattern != "dense"} for d in (graphs, feeds))
    made, flags = emitted(target, tmp_path, merged(graphs), kernels)
    name = made.emitted.name
    defined = [f"-DLIBRARY={name}", f"-DMACRO={name.upper()}", f'-DHEADER="{name}.h"']
    compiler = ["aarch64-linux-gnu-gcc", "-std=c11", "-static", "-O1", "-Wall", "-Wextra", "-Werror", *flags, *defined]
    command = [*compiler, "-I.", "-Wa,-I.", "-o", "program", str(MAIN), *sources(tmp_path), "-lm"]
    subprocess.run(command, cwd=tmp_path, check=True)
    given = split(feeds)
    for i, t in enumerate(made.program.inputs):
        (tmp_path / f"in_{i}.bin").write_bytes(given[t.name].tobytes())
    subprocess.run(["qemu-aarch64", "./program"], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    found = [np.fromfile(tmp_path / f"out_{i}.bin", a.dtype).reshape(a.shape) for i, a in enumerate(outputs(made))]
    check({o.name: a for o, a in zip(made.program.outputs, found, strict=True)}, graphs, feeds)


@needs("gcc")
@needs_cpu("avx512_vnni", "avx512vl")
def test_avx_vnni_as_avx512_encodes_it(tmp_path: Path) -> None:
    graphs, feeds = cases(11)
    made, flags = emitted("x86_64+avx2+vnni", tmp_path, merged(graphs))
    compiler = ["gcc", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-I.", "-Wa,-I.", "-o", "library.so"]
    subprocess.run([*compiler, *flags, *sources(tmp_path), "-lm"], cwd=tmp_path, check=True)  # as users compile it
    source = tmp_path / f"{made.emitted.name}.c"
    text = source.read_text()
    assert "%{vex%} vpdpbusd" in text
    source.write_text(text.replace("%{vex%} vpdpbusd", "vpdpbusd"))
    here = ["-mavx512vnni" if f == "-mavxvnni" else f for f in flags]
    subprocess.run([*compiler, *here, "-mavx512vl", *sources(tmp_path), "-lm"], cwd=tmp_path, check=True)
    given, found = split(feeds), outputs(made)
    inputs = [np.ascontiguousarray(given[i.name]) for i in made.program.inputs]
    call_library(tmp_path / "library.so", f"{made.emitted.name}_run", made.emitted.arena_bytes, inputs, found)
    check({o.name: a for o, a in zip(made.program.outputs, found, strict=True)}, graphs, feeds)
