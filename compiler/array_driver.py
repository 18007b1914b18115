"""The compiler as one call, for AI-Engine arrays: streams and images for the array, a C library for what the host computes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from sparsec.compiler.array_parts import open_host_part, passed, write_host_part
from sparsec.compiler.driver import staged
from sparsec.compiler.graph import Graph
from sparsec.compiler.limits import Limits
from sparsec.compiler.preparing import Clock, Progress

if TYPE_CHECKING:
    from sparsec.backends.aie.simulate.model import ArrayModel, ModelRun
    from sparsec.backends.aie.tolerance import Comparison
    from sparsec.passes.pruning.budget import Budget
    from sparsec.passes.pruning.calibrated.data import Source
    from sparsec.passes.pruning.recipe import Recipe
    from sparsec.passes.quantisation.settings import Settings as QuantisationSettings

Array = np.ndarray[Any, Any]
MODEL_NAME = "model.onnx"  # in the folder: what was compiled
# behind a pipeline, whose own space_to_depth knows bytes only then
_BFLOAT16 = ",head_products,bfloat16_pairs,bfloat16_out,bfloat16_means,space_to_depth"


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
    from sparsec.passes.pipelines import ARRAY

    clock = Clock(progress)
    machine, compiler = machine_named(target), find_compiler(cc)
    text = (passes or "array") + _BFLOAT16 if bfloat16 else passes
    how: dict[str, Any] = {"name": name, "dims": dims, "input_shapes": input_shapes, "passes": text, "limits": limits}
    how |= {"recipe": recipe, "calibration": calibration, "budget": budget, "quantisation": quantisation}
    done = passed(model, clock, ARRAY, **how)
    with clock.phase("lower"):
        program = lower(done.graph, machine)
    folder = Path(output_dir) if output_dir is not None else Path("build") / done.graph.name
    with staged(folder) as stage:
        with clock.phase("emit"):
            for file, data in emit(program).items():
                (stage / file).parent.mkdir(exist_ok=True)
                (stage / file).write_bytes(data)
        for i, part in enumerate(program.parts):
            if isinstance(part, HostPart):
                write_host_part(part.graph, stage / f"part{i}", compiler, clock)
        if done.ready.changed is not None:
            done.ready.changed.save(stage / MODEL_NAME)
        else:
            (stage / MODEL_NAME).write_bytes(_bytes(model))
        bindings = {"dims": dict(dims or {}), "input_shapes": {k: list(v) for k, v in (input_shapes or {}).items()}}
        bindings |= {"name": done.graph.name, "passes": text if bfloat16 else "default"}
        (stage / "bindings.json").write_text(json.dumps(bindings) + "\n", encoding="utf-8")
    return ArrayModel(folder)


def _bytes(model: str | Path | onnx.ModelProto | bytes) -> bytes:
    if isinstance(model, bytes):
        return model
    proto = model if isinstance(model, onnx.ModelProto) else onnx.load(model)
    found: bytes = proto.SerializeToString(deterministic=True)
    return found


def simulate(folder: str | Path, feeds: Mapping[str, Array]) -> ModelRun:
    """Run what `compile_array` wrote: array parts in the simulator, host parts in their libraries.

    `feeds`: input name to row-major array of the input's type and shape. Raises StreamError where the streams are broken.
    """
    from sparsec.backends.aie.simulate.model import ArrayModel

    model = ArrayModel(folder)
    return model.run(feeds, partial(open_host_part, model.directory))


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
    for name in dict.fromkeys(layer["node"] for layer in layers):  # a layer may be made in parts
        node = nodes[name]
        assert graph is not None
        found.append(compare(graph, node, run.values, run.values[node.output]))
    return found
