"""The compiler as one call, for systolic arrays: micro-op streams and weights for the array, and the graph for the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from sparsec.compiler.driver import staged
from sparsec.compiler.errors import UsageError
from sparsec.compiler.limits import Limits
from sparsec.compiler.preparing import Clock, Progress, prepare

if TYPE_CHECKING:
    from sparsec.backends.systolic.emit import Emitted
    from sparsec.backends.systolic.network import Network, NetworkRun
    from sparsec.passes.pruning.budget import Budget
    from sparsec.passes.pruning.calibrated.data import Source
    from sparsec.passes.pruning.recipe import Recipe
    from sparsec.passes.quantisation.settings import Settings as QuantisationSettings

Array = np.ndarray[Any, Any]


def plan_systolic(
    model: str | Path | onnx.ModelProto | bytes,
    *,
    target: str,
    name: str | None = None,
    dims: Mapping[str, int] | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    passes: str | None = None,
    limits: Limits | None = None,
    recipe: Recipe | str | None = None,
    calibration: Source | None = None,
    budget: Budget | None = None,
    quantisation: QuantisationSettings | None = None,
    progress: Progress | None = None,
) -> Network:
    """An ONNX model with the dataflow of every layer; arguments are as for `sparsec.compile`. Raises a SparsecError."""
    from sparsec.backends.naming import identifier
    from sparsec.backends.systolic.machine import parse_machine
    from sparsec.backends.systolic.network import PIPELINE, map_network
    from sparsec.compiler.passing.pipeline import parse_pipeline
    from sparsec.compiler.passing.runner import run_pipeline
    from sparsec.passes.pipelines import PIPELINES
    from sparsec.passes.registry import load_all

    clock, machine = Clock(progress), parse_machine(target)
    steps = PIPELINE if passes is None else parse_pipeline(passes, load_all(), PIPELINES)
    bound = {"dims": dims or {}, "input_shapes": input_shapes or {}, "limits": limits or Limits()}
    graph = prepare(model, clock, bound, None, recipe, calibration, budget, quantisation).graph
    label = identifier(name or (Path(model).stem if isinstance(model, str | Path) else graph.name))
    with clock.phase("passes"):
        final = run_pipeline(replace(graph, name=label), steps)
    with clock.phase("choose"):
        return map_network(final, machine)


def compile_systolic(
    model: str | Path | onnx.ModelProto | bytes, output_dir: str | Path | None = None, **arguments: Any
) -> Emitted:
    """Compile an ONNX model for an array into `output_dir` (default build/NAME), and open it.

    Arguments are those of `plan_systolic`. Nodes that the array cannot compute stay in the graph, for the host; the manifest says
    why. The folder appears whole or not at all.
    """
    from sparsec.backends.systolic.emit import emit, read_folder

    network = plan_systolic(model, **arguments)
    folder = Path(output_dir) if output_dir is not None else Path("build") / network.graph.name
    with staged(folder) as stage:
        for file, data in emit(network).items():
            (stage / file).parent.mkdir(exist_ok=True)
            (stage / file).write_bytes(data)
    return read_folder(folder)


def simulate_systolic(folder: str | Path, feeds: Mapping[str, Array]) -> NetworkRun:
    """Run what `compile_systolic` wrote: layers in the simulator, from their files, and the rest by the interpreter's operators.

    `feeds`: input name to row-major array of the input's type and shape. Raises StreamError where the streams are broken.
    """
    from sparsec.backends.systolic.emit import read_folder

    emitted = read_folder(Path(folder))
    graph = emitted.network().graph
    for name in graph.inputs:
        t = graph.types[name]
        if name not in feeds:
            raise UsageError(f"input {name!r} is missing: the model needs {list(graph.inputs)}", tensor=name)
        if tuple(feeds[name].shape) != t.shape or feeds[name].dtype != t.dtype.numpy:
            raise UsageError(f"input {name!r} is {feeds[name].dtype}{list(feeds[name].shape)}, expected {t}", tensor=name)
    return emitted.run(feeds)
