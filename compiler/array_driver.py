"""The compiler as one call, for AI-Engine arrays: streams and images for the array, a C library for what the host computes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from sparsec.compiler.driver import build, staged, write_library
from sparsec.compiler.errors import UsageError
from sparsec.compiler.graph import Graph
from sparsec.compiler.limits import Limits
from sparsec.compiler.preparing import Clock, Progress, prepare
from sparsec.compiler.report import FILE_NAME, ModelInfo

if TYPE_CHECKING:
    from sparsec.backends.aie.program import HostPart
    from sparsec.backends.aie.simulate.model import ArrayModel, Host, ModelRun
    from sparsec.backends.aie.tolerance import Comparison
    from sparsec.passes.pruning.budget import Budget
    from sparsec.passes.pruning.calibrated.data import Source
    from sparsec.passes.pruning.recipe import Recipe
    from sparsec.passes.quantisation.settings import Settings as QuantisationSettings

Array = np.ndarray[Any, Any]
MODEL_NAME = "model.onnx"  # in the folder: what was compiled
_BFLOAT16 = ",bfloat16,bfloat16_out"  # behind a pipeline


def compile_array(
    model: str | Path | onnx.ModelProto | bytes,
    output_dir: str | Path | None = None,
    *,
    target: str,
    name: str | None = None,
    dims: Mapping[str, int] | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    passes: str | None = None,
    cc: str | None = None,
    limits: Limits | None = None,
    recipe: Recipe | str | None = None,
    calibration: Source | None = None,
    budget: Budget | None = None,
    quantisation: QuantisationSettings | None = None,
    bfloat16: bool = False,
    progress: Progress | None = None,
) -> ArrayModel:
    """Compile an ONNX model for an array into `output_dir` (default build/NAME), and open it.

    Layers that the array has no way to compute go to the host, as C libraries in folders of their own; the manifest says
    which and why. Arguments are as for `sparsec.compile`; with `bfloat16`, what products multiply and what they make is rounded
    to bfloat16. The folder appears whole or not at all. Raises FitError where a layer is too large for the array.
    """
    from sparsec.backends.aie.emit import emit
    from sparsec.backends.aie.lower.network import lower
    from sparsec.backends.aie.machine import machine_named
    from sparsec.backends.aie.program import HostPart
    from sparsec.backends.aie.simulate.model import ArrayModel
    from sparsec.backends.cpu.toolchain import find_compiler
    from sparsec.backends.naming import identifier
    from sparsec.compiler.passing.pipeline import parse_pipeline
    from sparsec.compiler.passing.runner import run_pipeline
    from sparsec.passes.pipelines import PIPELINES
    from sparsec.passes.registry import load_all

    clock = Clock(progress)
    machine, compiler = machine_named(target), find_compiler(cc)
    bound = {"dims": dims or {}, "input_shapes": input_shapes or {}, "limits": limits or Limits()}
    ready = prepare(model, clock, bound, None, recipe, calibration, budget, quantisation)
    path = Path(model) if isinstance(model, str | Path) else None
    label = identifier(name or (path.stem if path else ready.graph.name))
    graph = ready.graph
    graph = Graph(label, graph.inputs, graph.outputs, graph.nodes, graph.types, graph.constants)
    pipeline = (passes or "array") + (_BFLOAT16 if bfloat16 else "")
    with clock.phase("passes"):
        optimised = run_pipeline(graph, parse_pipeline(pipeline, load_all(), PIPELINES))
    with clock.phase("lower"):
        program = lower(optimised, machine)
    folder = Path(output_dir) if output_dir is not None else Path("build") / label
    with staged(folder) as stage:
        with clock.phase("emit"):
            for file, data in emit(program).items():
                (stage / file).parent.mkdir(exist_ok=True)
                (stage / file).write_bytes(data)
        for i, part in enumerate(program.parts):
            if isinstance(part, HostPart):
                _host_library(part, stage / f"part{i}", compiler, clock)
        if ready.changed is not None:
            ready.changed.save(stage / MODEL_NAME)
        else:
            (stage / MODEL_NAME).write_bytes(_bytes(model))
        bindings = {"dims": dict(dims or {}), "input_shapes": {k: list(v) for k, v in (input_shapes or {}).items()}}
        bindings |= {"name": label, "passes": pipeline if bfloat16 else "default"}
        (stage / "bindings.json").write_text(json.dumps(bindings) + "\n", encoding="utf-8")
    return ArrayModel(folder)


def _bytes(model: str | Path | onnx.ModelProto | bytes) -> bytes:
    if isinstance(model, bytes):
        return model
    proto = model if isinstance(model, onnx.ModelProto) else onnx.load(model)
    found: bytes = proto.SerializeToString(deterministic=True)
    return found


def _host_library(part: HostPart, folder: Path, compiler: str, clock: Clock) -> None:
    """Nodes of the host as a C library; they have been through the passes."""
    from sparsec.backends.cpu.target import CpuTarget

    folder.mkdir(exist_ok=True)
    machine = CpuTarget.named("host")
    made = build(part.graph, machine, passes="none")
    report = write_library(folder, made, machine, compiler, ModelInfo(name=part.graph.name), clock)
    (folder / FILE_NAME).write_text(report.text(), encoding="utf-8")


def simulate(folder: str | Path, feeds: Mapping[str, Array]) -> ModelRun:
    """Run what `compile_array` wrote: array parts in the simulator, host parts in their libraries.

    `feeds`: input name to row-major array of the input's type and shape. Raises StreamError where the streams are broken.
    """
    from sparsec.backends.aie.simulate.model import ArrayModel

    model = ArrayModel(folder)
    missing = [v for v in model.manifest["inputs"] if v not in feeds]
    if missing:
        raise UsageError(f"input {missing[0]!r} is missing: the model needs {list(model.manifest['inputs'])}", tensor=missing[0])
    return model.run(feeds, lambda entry: _library_of(model, entry))


def _library_of(model: ArrayModel, entry: Mapping[str, Any]) -> Host:
    from sparsec.compiler.runtime import CompiledModel

    library = CompiledModel(model.directory / entry["folder"])
    return lambda values: library.run({v: np.ascontiguousarray(a) for v, a in values.items()})


def interpreted(folder: str | Path) -> Graph:
    """The graph that the interpreter runs to check a folder that `compile_array` wrote: before anything is the array's."""
    from sparsec.compiler.importer.api import import_model
    from sparsec.compiler.passing.pipeline import parse_pipeline
    from sparsec.compiler.passing.runner import run_pipeline
    from sparsec.passes.pipelines import PIPELINES
    from sparsec.passes.registry import load_all

    bindings = json.loads((Path(folder) / "bindings.json").read_text(encoding="utf-8"))
    graph = import_model(Path(folder) / MODEL_NAME, dims=bindings["dims"], input_shapes=bindings["input_shapes"])
    graph = Graph(bindings["name"], graph.inputs, graph.outputs, graph.nodes, graph.types, graph.constants)
    return run_pipeline(graph, parse_pipeline(bindings["passes"], load_all(), PIPELINES))


def expected(folder: str | Path, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """What the interpreter computes for the model in a folder that `compile_array` wrote."""
    from sparsec.compiler.interpreter import interpret

    return interpret(interpreted(folder), feeds)


def compared(folder: str | Path, run: ModelRun) -> list[Comparison]:
    """Every layer of bfloat16 that the array computed, beside the interpreter's result for the same data."""
    from sparsec.backends.aie.tolerance import compare

    layers = [layer for part in run.parts for layer in part.entry["layers"] if layer["element"] == "bf16"]
    graph = interpreted(folder) if layers else None
    nodes = {node.name: node for node in graph} if graph else {}
    found = []
    for layer in layers:
        node = nodes[layer["node"]]
        assert graph is not None
        found.append(compare(graph, node, run.values, run.values[node.output]))
    return found
