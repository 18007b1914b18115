"""What the drivers for arrays have in common: a model up to the end of its passes, and the host's parts as C libraries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from sparsec.compiler.driver import build, write_library
from sparsec.compiler.graph import Graph
from sparsec.compiler.limits import Limits
from sparsec.compiler.passing.base import Pass
from sparsec.compiler.preparing import Clock, Prepared, prepare
from sparsec.compiler.report import FILE_NAME, ModelInfo
from sparsec.compiler.segments import Part

if TYPE_CHECKING:
    from sparsec.passes.pruning.budget import Budget
    from sparsec.passes.pruning.calibrated.data import Source
    from sparsec.passes.pruning.recipe import Recipe
    from sparsec.passes.quantisation.settings import Settings as QuantisationSettings


@dataclass(frozen=True)
class Passed:
    """A model after the passes; `ready` is it before them."""

    graph: Graph
    ready: Prepared


def passed(
    model: str | Path | onnx.ModelProto | bytes,
    clock: Clock,
    default: Sequence[Pass],
    *,
    name: str | None = None,
    dims: Mapping[str, int] | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    passes: str | None = None,
    limits: Limits | None = None,
    recipe: Recipe | str | None = None,
    calibration: Source | None = None,
    budget: Budget | None = None,
    quantisation: QuantisationSettings | None = None,
) -> Passed:
    """Prune, quantise and import a model as far as that is asked for, and run `passes` (None: those of `default`)."""
    from sparsec.backends.naming import identifier
    from sparsec.compiler.passing.pipeline import parse_pipeline
    from sparsec.compiler.passing.runner import run_pipeline
    from sparsec.passes.pipelines import PIPELINES
    from sparsec.passes.registry import load_all

    steps = default if passes is None else parse_pipeline(passes, load_all(), PIPELINES)
    bound = {"dims": dims or {}, "input_shapes": input_shapes or {}, "limits": limits or Limits()}
    ready = prepare(model, clock, bound, None, recipe, calibration, budget, quantisation)
    label = identifier(name or (Path(model).stem if isinstance(model, str | Path) else ready.graph.name))
    with clock.phase("passes"):
        return Passed(run_pipeline(replace(ready.graph, name=label), steps), ready)


def write_host_part(graph: Graph, folder: Path, compiler: str, clock: Clock) -> None:
    """Nodes of the host, which have been through the passes, as a C library in `folder`."""
    from sparsec.backends.cpu.target import CpuTarget

    folder.mkdir(exist_ok=True)
    machine = CpuTarget.named("host")
    made = build(graph, machine, passes="pads_apart")  # arrays surround images with any byte
    report = write_library(folder, made, machine, compiler, ModelInfo(name=graph.name), clock)
    (folder / FILE_NAME).write_text(report.text(), encoding="utf-8")


def open_host_part(directory: Path, entry: Mapping[str, Any]) -> Part:
    """What computes a host part of the manifest in `directory`."""
    from sparsec.compiler.runtime import CompiledModel

    library = CompiledModel(directory / entry["folder"])
    return lambda values: library.run({v: np.ascontiguousarray(a) for v, a in values.items()})
