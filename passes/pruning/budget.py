"""What pruning may leave of a network, or lose: the budget that layers share."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from sparsec.compiler.errors import UsageError
from sparsec.passes.pruning.calibrated.labels import Labels
from sparsec.passes.pruning.calibrated.metric import Metric
from sparsec.passes.pruning.calibrated.quality import Function
from sparsec.passes.pruning.strengths import Counted

EVALUATIONS = 30
_E = TypeVar("_E", bound=StrEnum)


@dataclass(frozen=True)
class Budget:
    """What pruning may leave, or lose; how much each layer keeps is searched for.

    density: the share, above 0 and up to 1, of what is `counted` that is left; None without `max_drop`: what the recipe leaves.
    max_drop: find the smallest such share at which the loss by the metric is at most this.
    counted: macs or weights of the layers that the recipe prunes; or time: what the whole network takes, as the target's cost
    model predicts it, of what it takes dense.
    metric: kl (the default, but not with `max_drop`), mse or cosine (see `Metric`); or accuracy or a function (see
    `quality.Function`), which are the higher the better: the loss is by how much they fall below the dense model's.
    labels: of all calibration samples (see `labels.read_labels`), for accuracy and functions.
    evaluations: prunings that the search tries at most.
    """

    density: float | None = None
    max_drop: float | None = None
    counted: Counted | str = Counted.macs
    metric: Metric | str | Function | None = None
    labels: Labels | None = None
    evaluations: int = EVALUATIONS

    def checked(self) -> Rules:
        """What it says. UsageError for a budget that cannot be."""
        if self.density is not None and self.max_drop is not None:
            raise UsageError("a target density and a largest drop ask for two budgets: give one of them")
        if self.density is not None and not 0 < self.density <= 1:
            raise UsageError(f"the target density is {self.density:g}: give a share above 0 and up to 1, as 0.5")
        if self.max_drop is not None and not self.max_drop > 0:
            raise UsageError(f"the largest drop is {self.max_drop:g}: give a loss above 0 by the metric, as 0.01")
        if self.max_drop is not None and self.metric is None:
            raise UsageError(
                f"the largest drop is {self.max_drop:g}, and of what is not said: give a metric, as accuracy with labels, or kl"
            )
        if self.evaluations < 1:
            raise UsageError(f"{self.evaluations} evaluations are too few: give 1 or more")
        metric = Metric.kl if self.metric is None else self.metric
        if isinstance(metric, str):
            metric = _known(Metric, metric, "metric")
            if self.labels is not None and metric is not Metric.accuracy:
                raise UsageError(f"the metric {metric} compares outputs without labels: leave them out, or give accuracy")
        return Rules(metric, _known(Counted, self.counted, "counted"))


@dataclass(frozen=True)
class Rules:
    """A budget's names as what they name."""

    metric: Metric | Function
    counted: Counted


def _known(kind: type[_E], text: str, what: str) -> _E:
    if text not in list(kind):
        raise UsageError(f"{what} {text!r} is not known: expected {', '.join(kind)}")
    return kind(text)
