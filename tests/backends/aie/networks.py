"""Small networks of bytes for the array, and what runs them from their emitted files."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sparsec.backends.aie.emit import emit
from sparsec.backends.aie.lower.network import lower, lower_with
from sparsec.backends.aie.lower.tiling import Tiling
from sparsec.backends.aie.machine import machine_named
from sparsec.backends.aie.program import ArrayProgram, HostPart
from sparsec.backends.aie.simulate.model import ArrayModel, ModelRun
from sparsec.compiler.errors import LimitError
from sparsec.compiler.graph import Graph
from sparsec.compiler.interpreter import interpret
from sparsec.compiler.segments import Part

Array = np.ndarray[Any, Any]


def random_feeds(rng: np.random.Generator, graph: Graph) -> dict[str, Array]:
    """Inputs of a graph: any bytes, floats from 0 to 1."""
    found = {}
    for v in graph.inputs:
        t = graph.types[v]
        made = rng.random(t.shape) if t.dtype.is_float else rng.integers(0, 256, t.shape)
        found[v] = made.astype(t.dtype.numpy)
    return found


def first_lowered(graph: Graph, tilings: Iterable[Tiling], target: str = "aie2:npu1") -> ArrayProgram:
    """The program with the first way to compute a layer that memories and descriptors suffice for."""
    for tiling in tilings:
        try:
            return lower_with(graph, machine_named(target), {tiling.layer.node: tiling})
        except LimitError:
            continue
    raise AssertionError("none of the ways fits")


def run_emitted(program: ArrayProgram, feeds: Mapping[str, Array], folder: Path) -> ModelRun:
    """Write the files, then run nothing but them; host parts are interpreted."""
    for name, data in emit(program).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def host(entry: Mapping[str, Any]) -> Part:
        part = program.parts[int(entry["folder"].removeprefix("part"))]
        assert isinstance(part, HostPart)
        return lambda values: interpret(part.graph, values)

    return ArrayModel(folder).run(feeds, host)


def check_run(program: ArrayProgram, graph: Graph, rng: np.random.Generator) -> ModelRun:
    """Run a program on random bytes: every output has to equal the interpreter's."""
    feeds = random_feeds(rng, graph)
    with tempfile.TemporaryDirectory() as folder:
        run = run_emitted(program, feeds, Path(folder))
    for name, expected in interpret(graph, feeds).items():
        assert np.array_equal(run.outputs[name], expected)
    return run


def compile_for(graph: Graph, target: str = "aie2:npu1") -> ArrayProgram:
    """The program of a graph."""
    return lower(graph, machine_named(target))
