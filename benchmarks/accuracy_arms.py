"""Ways to prune that the accuracy benchmark compares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import onnx

from benchmarks.accuracy_task import Feeds, Task
from benchmarks.vector_patterns import parse, prune_vectors
from sparsec.passes.pruning.budget import Budget
from sparsec.passes.pruning.calibrated.importance import Importance, Repair
from sparsec.passes.pruning.calibrated.reconstruct import Settings
from sparsec.passes.pruning.model import prune
from sparsec.passes.pruning.recipe import make_recipe
from sparsec.passes.pruning.strengths import Counted
from sparsec.passes.pruning.within import prune_within

SEEDS, EVALUATIONS, THREADS = 3, 20, 1
OF_WEIGHTS = "budget of weights"  # may leave more multiply-accumulates than the pattern does, so it meets no goal
_MOMENTS = (Importance.magnitude, Repair.moments, False)
_REFIT = (Importance.obs, Repair.least_squares, True)


@dataclass(frozen=True)
class Outcome:
    """A pruned model, and the share of the pruned layers' weights that is left."""

    proto: onnx.ModelProto
    density: float


@dataclass(frozen=True)
class Arm:
    """One way to prune.

    `use` is how calibration inputs are used (importance, repair, whether the classifier is refitted; None: not at all), `permute`
    whether channels are put into an order first, `counted` what a search for the densities of layers holds (None: all alike).
    """

    name: str
    use: tuple[Importance, Repair, bool] | None
    permute: bool = False
    counted: Counted | None = None
    seeds: int = 1  # that are run by default; 0: only where the arm is named
    only: str = ""  # patterns that begin so, where the arm is slow and the others gain little

    def fits(self, pattern: str) -> bool:
        """Whether the arm is for the pattern."""
        return pattern.startswith(self.only)

    def prune(self, task: Task, pattern: str, feeds: Feeds, seed: int) -> Outcome:
        """The task's model, pruned by this arm. Vector patterns have no elimination: for them, `obs` compares energies."""
        settings = None
        if self.use is not None:
            importance, repair, refit = self.use
            settings = Settings(importance=importance, repair=repair, refit=refit, seed=seed, threads=THREADS)
        vectors = parse(pattern)
        if vectors is not None:
            done = prune_vectors(task.model, vectors, task.options, feeds, settings, reorder=self.permute, seed=seed)
            return Outcome(done.proto, done.density)
        options: dict[str, Any] = {**task.options(pattern), "seed": seed, "permute": "gyro" if self.permute else "none"}
        if self.use is None or self.use[0] is Importance.magnitude:  # else orders are searched by what calibration inputs say
            options["importance"] = "magnitude"
        recipe = make_recipe(options)
        if settings is None:
            pruned = prune(task.model, recipe, input_shapes={name: a.shape for name, a in feeds.items()})
        elif self.counted is not None:
            asked = Budget(counted=self.counted, evaluations=EVALUATIONS)
            pruned = prune_within(task.model, recipe, feeds, asked, settings=settings)
        else:
            pruned = prune(task.model, recipe, data=feeds, settings=settings)
        changed = pruned.report.changed
        return Outcome(pruned.proto, sum(x.kept for x in changed) / max(sum(x.elements for x in changed), 1))


ARMS = (
    Arm("in place", None),
    Arm("permuted", None, permute=True),
    Arm("moments", _MOMENTS),
    Arm("permuted moments", _MOMENTS, permute=True),
    Arm("activation", (Importance.activation, Repair.moments, False)),
    Arm("activation reconstructed", (Importance.activation, Repair.least_squares, False)),
    Arm("activation refit", (Importance.activation, Repair.least_squares, True), seeds=0),
    Arm("reconstructed", (Importance.obs, Repair.least_squares, False)),
    Arm("refit", _REFIT, seeds=SEEDS),
    Arm("together", _REFIT, permute=True),
    Arm("budget", _REFIT, counted=Counted.macs, only="block:8x8"),
    Arm("budget together", _REFIT, permute=True, counted=Counted.macs, seeds=0, only="block:8x8"),
    Arm(OF_WEIGHTS, _REFIT, counted=Counted.weights, seeds=0, only="block:8x8"),
)
