"""Which layers stay float: by name, by their own error, or as many as it takes for the whole model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import onnx

from sparsec.compiler.errors import UsageError
from sparsec.passes.pruning.calibrated.labels import read_labels
from sparsec.passes.pruning.calibrated.metric import Metric
from sparsec.passes.pruning.calibrated.parts import Part
from sparsec.passes.pruning.calibrated.quality import make_judge, metric_name
from sparsec.passes.pruning.calibrated.run import Probe
from sparsec.passes.quantisation.build import Quantiser
from sparsec.passes.quantisation.layers import Refusal
from sparsec.passes.quantisation.weights import sqnr

_SAMPLES = 256  # that whole models are compared on


@dataclass(frozen=True)
class Kept:
    """Layers that stay float, with why; `loss` is what the model then loses by the metric asked for, None without one."""

    layers: dict[str, str]
    loss: float | None = None


def layers_to_keep(quantiser: Quantiser) -> Kept:
    """Layers that stay float.

    The layers that bytes hurt most are those with the least signal to quantisation noise at their results. UsageError for a glob
    that fits no layer, and a ratio or a loss that cannot be met.
    """
    wanted = quantiser.settings.keep_float
    known = [x.name for x in quantiser.found]
    kept: dict[str, str] = {}
    for glob in wanted.globs:
        fits = [name for name in known if fnmatchcase(name, glob)]
        if not fits:
            raise UsageError(f"--keep-float {glob!r} fits no layer with weights: they are {', '.join(map(repr, known[:8]))}")
        kept |= dict.fromkeys(fits, f"kept float by {glob!r}")
    refused = {x.name for x in quantiser.found if isinstance(x, Refusal)}
    kept = {name: why for name, why in kept.items() if name not in refused}
    goal, loss = _goal(quantiser), None
    if wanted.count or goal is not None:
        order = [name for name in by_error(quantiser) if name not in kept]
        count = min(wanted.count, len(order))
        if goal is not None:
            count, reached = _fewest(quantiser, kept, order, goal)
            loss = -reached if wanted.max_drop is not None else None
        kept |= {name: f"bytes hurt it most but {i}" if i else "bytes hurt it most" for i, name in enumerate(order[:count])}
    if len(kept) == len(quantiser.layers):
        raise UsageError("--keep-float keeps every layer float: nothing is left to quantise")
    return Kept(kept, loss)


def by_error(quantiser: Quantiser) -> list[str]:
    """Names of layers, the one with the least signal to quantisation noise first."""
    corrected = quantiser.settings.correct_bias
    return sorted((x.name for x in quantiser.layers), key=lambda name: quantiser.errors[name].sqnr(corrected=corrected))


def output_sqnr(quantiser: Quantiser, quantised: onnx.ModelProto) -> float:
    """Signal to quantisation noise of the model's float32 outputs on a part of the samples, in dB; infinite without outputs."""
    names = [v.name for v in quantised.graph.output if v.name in quantiser.floats]
    samples = quantiser.samples.spread(_SAMPLES)
    signal, noise = np.zeros(len(names)), np.zeros(len(names))
    runs = (Probe(model, quantiser.settings.threads).batches(samples, names) for model in (quantiser.folded, quantised))
    for real, found in zip(*runs, strict=True):
        signal += [np.square(a, dtype=np.float64).sum() for a in real]
        noise += [np.square(a.astype(np.float64) - b).sum() for a, b in zip(real, found, strict=True)]
    return sqnr(1.0, float(np.mean(noise / np.maximum(signal, 1e-300)))) if names else float("inf")


@dataclass(frozen=True)
class _Goal:
    """What quantised models are to reach: `measure` of at least `least`; `missed` says in words that the best one does not."""

    measure: Callable[[onnx.ModelProto], float]
    least: float
    missed: Callable[[float], str]


def _goal(quantiser: Quantiser) -> _Goal | None:
    """The goal that float layers are chosen for; None for none."""
    wanted = quantiser.settings.keep_float
    if wanted.sqnr is not None:
        ratio = wanted.sqnr
        return _Goal(
            lambda model: output_sqnr(quantiser, model),
            ratio,
            lambda best: f"--keep-float auto:{ratio:g} cannot be met: with one quantised layer the outputs have {best:.1f} dB",
        )
    if wanted.max_drop is None:
        return None
    samples, most, metric = quantiser.samples, wanted.max_drop, metric_name(wanted.metric)
    labelled = wanted.labels is not None or wanted.metric is Metric.accuracy
    labels = read_labels(wanted.labels, quantiser.source, samples.count) if labelled else None
    whole = Part(samples, tuple(range(len(samples))))
    judge = make_judge(quantiser.folded, whole, wanted.metric, labels, quantiser.settings.threads)
    return _Goal(
        lambda model: -judge.of(model).value,
        -most,
        lambda best: f"--keep-float auto:{metric}:{most:g} cannot be met: with one quantised layer the loss is {-best:.3g}",
    )


def _fewest(quantiser: Quantiser, kept: dict[str, str], order: list[str], goal: _Goal) -> tuple[int, float]:
    """How many of `order` must stay float for the goal, by bisection, and what is reached then."""

    def reached(count: int) -> float:
        quantiser.say(f"try {count} layers in float")
        return goal.measure(quantiser.build({*kept, *order[:count]})[0])

    low, high = 0, len(order) - 1
    if (found := reached(low)) >= goal.least:
        return 0, found
    if (best := reached(high)) < goal.least:
        raise UsageError(goal.missed(best))
    while high - low > 1:
        middle = (low + high) // 2
        if (found := reached(middle)) >= goal.least:
            high, best = middle, found
        else:
            low = middle
    return high, best
