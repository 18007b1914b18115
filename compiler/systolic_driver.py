"""The compiler as one call, for systolic arrays: micro-op streams and weights for the array, C libraries for the host."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from sparsec.compiler.array_parts import open_host_part, passed, write_host_part
from sparsec.compiler.driver import staged
from sparsec.compiler.errors import UsageError
from sparsec.compiler.preparing import Clock, Progress

if TYPE_CHECKING:
    from sparsec.backends.systolic.folder import Emitted
    from sparsec.backends.systolic.network import Network, NetworkRun
    from sparsec.backends.systolic.traffic import Memory

Array = np.ndarray[Any, Any]
Model = str | Path | onnx.ModelProto | bytes


def plan_systolic(
    model: Model, *, target: str, memory: Memory | None = None, progress: Progress | None = None, **how: Any
) -> Network:
    """An ONNX model with the dataflow of every layer: the one with the fewest cycles, with waiting for `memory` if it is given.

    `how`: name, dims, input_shapes, passes, limits, recipe, calibration, budget and quantisation, as for `sparsec.compile`.
    Raises a SparsecError.
    """
    return _plan(model, target, memory, Clock(progress), **how)


def _plan(model: Model, target: str, memory: Memory | None, clock: Clock, **how: Any) -> Network:
    from sparsec.backends.systolic.machine import parse_machine
    from sparsec.backends.systolic.network import PIPELINE, map_network

    machine = parse_machine(target)
    graph = passed(model, clock, PIPELINE, **how).graph
    with clock.phase("choose"):
        return map_network(graph, machine, memory=memory)


def compile_systolic(
    model: Model,
    output_dir: str | Path | None = None,
    *,
    target: str,
    cc: str | None = None,
    memory: Memory | None = None,
    progress: Progress | None = None,
    **how: Any,
) -> Emitted:
    """Compile an ONNX model for an array into `output_dir` (default build/NAME), and open it.

    The array computes products; what is between them, epilogues included, goes to the host, as C libraries in folders of their
    own, made by the compiler `cc`. `memory` and `how` are as for `plan_systolic`. The folder appears whole or not at all.
    """
    from sparsec.backends.cpu.toolchain import find_compiler
    from sparsec.backends.systolic.emit import emit
    from sparsec.backends.systolic.folder import read_folder

    clock, compiler = Clock(progress), find_compiler(cc)
    network = _plan(model, target, memory, clock, **how)
    folder = Path(output_dir) if output_dir is not None else Path("build") / network.graph.name
    with staged(folder) as stage:
        with clock.phase("emit"):
            made = emit(network)
            for file, data in made.files.items():
                (stage / file).parent.mkdir(exist_ok=True)
                (stage / file).write_bytes(data)
        for part, graph in made.host.items():
            write_host_part(graph, stage / part, compiler, clock)
    return read_folder(folder)


def simulate_systolic(folder: str | Path, feeds: Mapping[str, Array]) -> NetworkRun:
    """Run what `compile_systolic` wrote: layers in the simulator, from their files, and the host's parts in their libraries.

    `feeds`: input name to row-major array of the input's type and shape. Raises StreamError where the streams are broken.
    """
    from sparsec.backends.systolic.folder import read_folder

    emitted = read_folder(Path(folder))
    for name, t in emitted.manifest["inputs"].items():
        if name in feeds and (list(feeds[name].shape) != t["shape"] or feeds[name].dtype != _numpy(t["dtype"])):
            is_type = f"{feeds[name].dtype}{list(feeds[name].shape)}"
            raise UsageError(f"input {name!r} is {is_type}, expected {t['dtype']}{t['shape']}", tensor=name)
    return emitted.run(feeds, partial(open_host_part, emitted.folder))


def _numpy(dtype: str) -> np.dtype[Any]:
    from sparsec.compiler.dtypes import DType

    return np.dtype(DType(dtype).numpy)
