"""What is done to a model before it is compiled: pruning, quantising, importing; and the time that takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from sparsec.compiler.errors import UsageError
from sparsec.compiler.graph import Graph
from sparsec.compiler.limits import Limits
from sparsec.compiler.report import PhaseTime

if TYPE_CHECKING:
    from sparsec.passes.pruning.budget import Budget
    from sparsec.passes.pruning.calibrated.data import Source
    from sparsec.passes.pruning.calibrated.reconstruct import Settings
    from sparsec.passes.pruning.model import PrunedModel
    from sparsec.passes.pruning.recipe import Recipe
    from sparsec.passes.quantisation.model import QuantisedModel
    from sparsec.passes.quantisation.settings import Settings as QuantisationSettings

Progress = Callable[[str], None]


@dataclass
class Clock:
    """Wall time by phase, and who is told when one begins."""

    progress: Progress | None
    phases: list[PhaseTime] = field(default_factory=list)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Tell that a phase begins, and note what it took."""
        if self.progress:
            self.progress(name)
        start = time.perf_counter()
        yield
        self.phases.append(PhaseTime(phase=name, seconds=time.perf_counter() - start))


@dataclass(frozen=True)
class Prepared:
    """A model that was imported, and what was done to it first."""

    graph: Graph
    pruned: PrunedModel | None = None
    quantised: QuantisedModel | None = None

    @property
    def changed(self) -> PrunedModel | QuantisedModel | None:
        """The model that the graph was imported from, if it is not the user's."""
        return self.quantised or self.pruned


def prepare(
    model: str | Path | onnx.ModelProto | bytes,
    clock: Clock,
    bound: Mapping[str, Any],
    how: Mapping[str, Any] | None,
    recipe: Recipe | str | None = None,
    calibration: Source | None = None,
    budget: Budget | None = None,
    quantisation: QuantisationSettings | None = None,
) -> Prepared:
    """Prune and quantise a model, as far as that is asked for, and import it.

    `bound` are the arguments of `import_model`; `how` says what a budget of time is predicted for (see `prune`), None where time
    is not predicted: UsageError for such a budget then.
    """
    from sparsec.compiler.importer.api import import_model
    from sparsec.passes.pruning.strengths import Counted
    from sparsec.passes.quantisation.model import quantise

    if how is None and budget is not None and budget.counted == Counted.time:
        raise UsageError("a budget of time is predicted for CPUs only: count macs or weights")
    pruned: PrunedModel | None = None
    with clock.phase("import" if recipe is None else "prune"):
        if recipe is not None and calibration is not None:
            import_model(model, **bound)  # else the first batch would bind what is left open
        if recipe is not None:
            pruned = prune(model, recipe, data=calibration, budget=budget, progress=clock.progress, **(how or {}), **bound)
        graph = import_model(model, **bound) if pruned is None else pruned.graph
    if quantisation is None:
        return Prepared(graph, pruned)
    if calibration is None:
        raise UsageError("quantising needs inputs to see what ranges values have: give calibration data")
    with clock.phase("quantise"):
        quantised = quantise(model if pruned is None else pruned.editor.embedded(), calibration, quantisation)
        return Prepared(import_model(quantised.proto, **bound), pruned, quantised)


def prune(
    model: str | Path | onnx.ModelProto | bytes,
    recipe: Recipe | str,
    *,
    data: Source | None = None,
    budget: Budget | None = None,
    target: str = "host",
    threads: int = 1,
    kernels: Sequence[str] = (),
    passes: str | None = None,
    settings: Settings | None = None,
    dims: Mapping[str, int] | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> PrunedModel:
    """Prune `model`, which is not changed, to an ordinary ONNX model with zeros (`save` writes it).

    `recipe` is a pattern for all layers, as "2:4" or "block:8x8@75%", or a `Recipe`. Calibration `data` and `settings` say what
    it is pruned for, `dims` and `input_shapes` bind dynamic dimensions (see `sparsec.passes.pruning.model.prune`). With a
    `budget`, which takes `data`, how much each layer keeps is searched for (see `sparsec.Budget` and
    `sparsec.passes.pruning.within.prune_within`); a budget of time is predicted for `target`, `threads`, `kernels` and `passes`,
    which are as for `compile`. Raises a SparsecError.
    """
    from sparsec.backends.cpu.predict import predicted_layers
    from sparsec.backends.cpu.target import CpuTarget
    from sparsec.passes.pruning import model as simple
    from sparsec.passes.pruning.within import prune_within

    more: dict[str, Any] = {"dims": dims, "input_shapes": input_shapes, "limits": limits, "progress": progress}
    if budget is None:
        return simple.prune(model, recipe, data=data, settings=settings, **more)
    if data is None:
        raise UsageError("a budget compares pruned models by their outputs: give calibration data")
    machine = CpuTarget.named(target, threads, kernels)
    predict = partial(predicted_layers, target=machine, passes=passes)
    return prune_within(model, recipe, data, budget, predict=predict, settings=settings, **more)
