"""Many small graphs compiled as one library: cases are imported apart, merged into one graph, and run side by side."""

from __future__ import annotations

import ctypes
import os
import pickle
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sparsec.backends.cpu.emit import Emitted
from sparsec.backends.cpu.target import CpuTarget
from sparsec.backends.cpu.toolchain import build_library, find_compiler
from sparsec.backends.naming import identifiers
from sparsec.compiler.driver import Compilation, build
from sparsec.compiler.graph import ABSENT, Graph, Node, Port
from sparsec.compiler.runtime import aligned_bytes

Array = np.ndarray[Any, Any]
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g1")


def merged(cases: Mapping[str, Graph]) -> Graph:
    """One graph with every case's nodes, all names prefixed with the case's: `case/name`."""
    types, constants, nodes, inputs, outputs = {}, {}, [], [], []
    for case, graph in cases.items():

        def named(v: str, case: str = case) -> str:
            return v if v == ABSENT else f"{case}/{v}"

        types |= {named(v): t for v, t in graph.types.items()}
        constants |= {named(v): a for v, a in graph.constants.items()}
        inputs += [named(v) for v in graph.inputs]
        outputs += [Port(named(p.name), named(p.value)) for p in graph.outputs]
        nodes += [
            Node(named(n.name), n.op, tuple(map(named, n.inputs)), tuple(map(named, n.outputs)), n.origin) for n in graph.nodes
        ]
    return Graph("cases", tuple(inputs), tuple(outputs), tuple(nodes), types, constants)


def split(feeds: Mapping[str, Mapping[str, Array]]) -> dict[str, Array]:
    """Feeds of all cases under the merged graph's names."""
    return {f"{case}/{name}": a for case, own in feeds.items() for name, a in own.items()}


def compile_graph(
    graph: Graph,
    target: str,
    folder: Path,
    *,
    threads: int = 1,
    passes: str | None = None,
    flags: Sequence[str] = ("-O1",),
    kernels: Sequence[str] = (),
) -> Compilation:
    """Compile `graph` into `folder`/libcases.so, warnings being errors; `flags` replace the optimisation level."""
    made = build(graph, CpuTarget.named(target, threads, kernels), passes=passes)
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in made.emitted.files.items():
        (folder / name).write_bytes(data)
    own = [f for f in made.emitted.compile_flags if not f.startswith("-O")]
    build_library(folder, made.emitted.name, [*flags, "-Wall", "-Wextra", "-Werror", *own], find_compiler(None))
    return made


def call_library(path: Path, symbol: str, arena_bytes: int, inputs: Sequence[Array], outputs: Sequence[Array]) -> None:
    """Run the library once; the arena is full of NaN, so that a halo or a lane left unwritten shows."""
    library = ctypes.CDLL(str(path))
    arena = aligned_bytes(arena_bytes)
    arena[...] = 0xFF

    def table(arrays: Sequence[Array]) -> Any:
        return (ctypes.c_void_p * max(1, len(arrays)))(*(a.ctypes.data for a in arrays))

    status = getattr(library, symbol)(table(inputs), table(outputs), None, ctypes.c_void_p(arena.ctypes.data))
    assert status == 0, f"{symbol} returned {status}"


def run_graph(made: Compilation, folder: Path, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Output name -> array."""
    inputs = [np.ascontiguousarray(feeds[i.name]) for i in made.program.inputs]
    outputs = [np.empty(o.type.shape, o.type.dtype.numpy) for o in made.program.outputs]
    emitted: Emitted = made.emitted
    assert len(identifiers([o.name for o in made.program.outputs])) == len(outputs)
    call_library(folder / f"lib{emitted.name}.so", f"{emitted.name}_run", emitted.arena_bytes, inputs, outputs)
    return {o.name: a for o, a in zip(made.program.outputs, outputs, strict=True)}


def run_sanitized(made: Compilation, folder: Path, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """The same for a library compiled with SANITIZE, in a process of its own that preloads the sanitizer's runtime."""
    inputs = [np.ascontiguousarray(feeds[i.name]) for i in made.program.inputs]
    outputs = [np.empty(o.type.shape, o.type.dtype.numpy) for o in made.program.outputs]
    emitted: Emitted = made.emitted
    call = (str(folder / f"lib{emitted.name}.so"), f"{emitted.name}_run", emitted.arena_bytes, inputs, outputs)
    runtime = [
        subprocess.run([find_compiler(None), f"-print-file-name={name}"], capture_output=True, text=True).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    environment = {**os.environ, "LD_PRELOAD": ":".join(runtime), "ASAN_OPTIONS": "detect_leaks=0"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.backends.cpu.compiled"], input=pickle.dumps(call), capture_output=True, env=environment
    )
    assert done.returncode == 0, done.stderr.decode()[-4000:]
    return {o.name: a for o, a in zip(made.program.outputs, pickle.loads(done.stdout), strict=True)}


def _main() -> None:
    path, symbol, arena_bytes, inputs, outputs = pickle.load(sys.stdin.buffer)
    call_library(Path(path), symbol, arena_bytes, inputs, outputs)
    sys.stdout.buffer.write(pickle.dumps(outputs))


if __name__ == "__main__":
    _main()
