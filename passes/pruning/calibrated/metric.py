"""How far a pruned model's outputs are from the dense model's, on samples without labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any

import numpy as np
import onnx

from sparsec.compiler.errors import UsageError
from sparsec.passes.pruning.calibrated.data import Samples
from sparsec.passes.pruning.calibrated.run import Probe

Array = np.ndarray[Any, Any]


class Metric(StrEnum):
    """A loss, 0 where outputs agree.

    kl: Kullback-Leibler divergence of the softmax over the last dimension, in nats; outputs that are probabilities already are
    taken as they are. mse: mean squared difference as a share of the dense output's variance. cosine: 1 - cosine, per sample.
    """

    kl = "kl"
    mse = "mse"
    cosine = "cosine"


class Distance:
    """The dense model's outputs on `samples`, and what a pruned one loses against them: the mean over floating-point outputs."""

    def __init__(self, dense: onnx.ModelProto, samples: Samples, metric: Metric, threads: int = 0) -> None:
        """UsageError for a model without floating-point outputs, or with single numbers that have no softmax to compare."""
        self._samples, self._threads, self._loss = samples, threads, _LOSSES[metric]
        self._outputs = [v.name for v in dense.graph.output]
        found = dict(zip(self._outputs, self._run(dense), strict=True))
        self._outputs = [name for name, array in found.items() if array.dtype.kind == "f"]
        if not self._outputs:
            raise UsageError("the model has no floating-point output that pruned models could be compared by")
        self._dense = [found[name] for name in self._outputs]
        for name, array in zip(self._outputs, self._dense, strict=True):
            if metric is Metric.kl and array.shape[-1] < 2:
                raise UsageError(
                    f"output {name!r} is {list(array.shape)}: a softmax over one number compares nothing, give the metric mse",
                    tensor=name,
                )

    def of(self, model: onnx.ModelProto) -> float:
        """The loss of a model with the same inputs and outputs; infinite where it gives NaN or infinity."""
        found = [self._loss(a, b) for a, b in zip(self._dense, self._run(model), strict=True)]
        return float(np.mean(found)) if np.isfinite(found).all() else float("inf")

    def _run(self, model: onnx.ModelProto) -> list[Array]:
        """Every output as [samples, ...]; floating-point ones in double precision; what has no two dimensions as [1, ...]."""
        parts = list(Probe(model, self._threads).batches(self._samples, self._outputs))
        joined = [np.concatenate([np.atleast_2d(p[i]) for p in parts]) for i in range(len(self._outputs))]
        return [a.astype(np.float64) if a.dtype.kind == "f" else a for a in joined]


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


_LOSSES: dict[Metric, Callable[[Array, Array], float]] = {Metric.kl: _kl, Metric.mse: _mse, Metric.cosine: _cosine}


def held_out(samples: Samples, fit: int, measure: int, seed: int) -> tuple[Samples, Samples]:
    """Some samples to prune with and others to measure by: about as many of each as asked for, or half of them each.

    Batches are kept whole. UsageError where there are fewer than two.
    """
    if len(samples) < 2:
        raise UsageError("one sample cannot be divided into some to prune with and others to measure by: give more")
    order = np.random.default_rng(seed).permutation(len(samples))
    size = max(max((len(a) if a.ndim else 1) for a in batch.values()) for batch in samples) if len(samples) else 1
    half = len(samples) // 2
    first, second = (_count(n, size, limit) for n, limit in ((fit, half), (measure, len(samples) - half)))
    return _pick(samples, order[:first]), _pick(samples, order[first : first + second])


def _count(samples: int, size: int, limit: int) -> int:
    return max(1, min(-(-samples // size), limit))


def _pick(samples: Samples, chosen: Sequence[int] | Array) -> Samples:
    return Samples(tuple(samples.batches[i] for i in sorted(map(int, chosen))))
