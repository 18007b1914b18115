"""How far a pruned model's outputs are from the dense model's, on samples without labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
import onnx

from sparsec.compiler.errors import UsageError
from sparsec.passes.pruning.calibrated.data import Samples
from sparsec.passes.pruning.calibrated.run import Probe

Array = np.ndarray[Any, Any]


class Metric(StrEnum):
    """What pruned models are compared by.

    A loss, 0 where outputs agree: kl: Kullback-Leibler divergence of the softmax over the last dimension, in nats; outputs that
    are probabilities already are taken as they are. mse: mean squared difference as a share of the dense output's variance.
    cosine: 1 - cosine, per sample. Or a share of right answers: accuracy: samples whose largest output is that of their label.
    """

    kl = "kl"
    mse = "mse"
    cosine = "cosine"
    accuracy = "accuracy"


@dataclass(frozen=True, slots=True, order=True)
class Loss:
    """What a pruned model loses by a metric; `tie` orders those that lose the same, `error` is the value's standard error."""

    value: float
    tie: float = 0.0
    error: float | None = field(default=None, compare=False)


class Judge(Protocol):
    """Compares pruned models with the dense one; `dense` is the metric's value of that (None: of a loss, which is 0)."""

    dense: float | None

    def of(self, model: onnx.ModelProto) -> Loss:
        """The loss of a model with the same inputs and outputs; infinite where it gives NaN or infinity."""


class Distance:
    """The dense model's outputs on `samples`, and what a pruned one loses against them: the mean over floating-point outputs."""

    dense: float | None = None

    def __init__(self, dense: onnx.ModelProto, samples: Samples, metric: Metric, threads: int = 0) -> None:
        """UsageError for a model without floating-point outputs, or with single numbers that have no softmax to compare."""
        self._samples, self._threads, self._loss = samples, threads, LOSSES[metric]
        found = run_outputs(dense, samples, threads)
        self._dense = {name: a.astype(np.float64) for name, a in found.items() if a.dtype.kind == "f"}
        if not self._dense:
            raise UsageError("the model has no floating-point output that pruned models could be compared by")
        for name, array in self._dense.items():
            if metric is Metric.kl and (array.ndim < 2 or array.shape[-1] < 2):
                raise UsageError(
                    f"output {name!r} is {list(array.shape)}: a softmax over one number compares nothing, give the metric mse",
                    tensor=name,
                )

    def of(self, model: onnx.ModelProto) -> Loss:
        """The loss of a model with the same inputs and outputs; infinite where it gives NaN or infinity."""
        pruned = run_outputs(model, self._samples, self._threads, list(self._dense))
        found = [self._loss(dense, pruned[name].astype(np.float64)) for name, dense in self._dense.items()]
        return Loss(float(np.mean(found)) if np.isfinite(found).all() else float("inf"))


def run_outputs(model: onnx.ModelProto, samples: Samples, threads: int, names: Sequence[str] | None = None) -> dict[str, Array]:
    """The model's outputs (those in `names`), samples joined along the first dimension; what has none gets one a batch.

    UsageError where batches give other shapes.
    """
    wanted = [v.name for v in model.graph.output] if names is None else list(names)
    found: dict[str, list[Array]] = {name: [] for name in wanted}
    for size, arrays in zip(samples.sizes(), Probe(model, threads).batches(samples, wanted), strict=True):
        for name, array in zip(wanted, arrays, strict=True):
            found[name].append(array if array.ndim > 1 or array.shape == (size,) else array[None])
    for name, parts in found.items():
        if len(shapes := {a.shape[1:] for a in parts}) > 1:
            few = " and ".join(str(list(shape)) for shape in sorted(shapes)[:2])
            raise UsageError(f"output {name!r} has samples of {few}: give samples that make it one size", tensor=name)
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _log_probabilities(a: Array) -> Array:
    if (a >= 0).all() and np.allclose(a.sum(axis=-1), 1, atol=1e-3):
        return np.log(np.maximum(a, 1e-12))
    shifted = a - a.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def _kl(dense: Array, pruned: Array) -> float:
    p, q = _log_probabilities(dense), _log_probabilities(pruned)
    return float((np.exp(p) * (p - q)).sum(axis=-1).mean())


def _mse(dense: Array, pruned: Array) -> float:
    return float(np.square(dense - pruned).mean() / max(dense.var(), 1e-12))


def _cosine(dense: Array, pruned: Array) -> float:
    a, b = (x.reshape(len(x), -1) for x in (dense, pruned))
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(1 - ((a * b).sum(axis=1) / np.maximum(norms, 1e-12)).mean())


LOSSES: dict[Metric, Callable[[Array, Array], float]] = {Metric.kl: _kl, Metric.mse: _mse, Metric.cosine: _cosine}
