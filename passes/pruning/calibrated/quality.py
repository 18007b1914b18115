"""What pruned models lose of a quality that people measure: top-1 accuracy with labels, or what a function of theirs says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx

from sparsec.compiler.errors import UsageError
from sparsec.passes.pruning.calibrated.metric import LOSSES, Distance, Judge, Loss, Metric, run_outputs
from sparsec.passes.pruning.calibrated.parts import Part

Array = np.ndarray[Any, Any]
Function = Callable[[dict[str, Array], Array | None], float]
"""A metric of the user's, the higher the better.

It gets every output of a model by name, as the model gives them, samples joined along the first dimension, and the entries of the
labels for the same samples in the same order (None without labels). It returns a finite number.
"""


def make_judge(
    dense: onnx.ModelProto, part: Part, metric: Metric | Function, labels: Array | None = None, threads: int = 0
) -> Judge:
    """Compares models with `dense` on a part of the data; `labels` are those of the whole data. UsageError as of the judges."""
    theirs = None if labels is None else labels[part.numbers]
    if not isinstance(metric, Metric):
        return Custom(dense, part, metric, theirs, threads)
    if metric is not Metric.accuracy:
        return Distance(dense, part.samples, metric, threads)
    if theirs is None:
        raise UsageError("the metric accuracy takes labels: give one a sample")
    return Accuracy(dense, part, theirs, threads)


class Accuracy:
    """The share of samples whose largest output is that of their label: by how much it falls."""

    def __init__(self, dense: onnx.ModelProto, part: Part, labels: Array, threads: int = 0) -> None:
        """`labels` of the part's samples. UsageError for what are not class numbers, and where no output, or more than one, has
        a row of classes for each.
        """
        self._part, self._threads = part, threads
        if labels.dtype.kind not in "iu":
            raise UsageError(f"labels are {labels.dtype}, the metric accuracy takes class numbers, which are integers from 0")
        found = run_outputs(dense, part.samples, threads)
        fit = {n: rows for n, a in found.items() if (rows := _class_rows(a, labels)) is not None}
        if len(fit) != 1:
            which = f"outputs {', '.join(map(repr, fit))} have" if fit else "no output has"
            shapes = ", ".join(f"{n!r} {list(a.shape)}" for n, a in found.items())
            raise UsageError(
                f"{which} a row of classes for every label, of which there are {list(labels.shape)} with outputs {shapes}: "
                f"give a function as the metric"
            )
        (self._output, self._rows), self._labels = next(iter(fit.items())), labels
        self._check_range()
        self._right = self._rows.argmax(axis=-1) == labels
        self.dense: float | None = float(self._right.mean())

    def of(self, model: onnx.ModelProto) -> Loss:
        """The drop, its standard error over samples, and the divergence from the dense model for ties."""
        rows = _class_rows(run_outputs(model, self._part.samples, self._threads, [self._output])[self._output], self._labels)
        if rows is None or not np.isfinite(rows).all():
            return Loss(float("inf"))
        lost = self._right.astype(np.int64) - (rows.argmax(axis=-1) == self._labels)
        error = float(lost.std() / np.sqrt(max(lost.size, 1)))
        return Loss(float(lost.sum() / lost.size), LOSSES[Metric.kl](self._rows, rows), error)

    def _check_range(self) -> None:
        classes = self._rows.shape[-1]
        wrong = np.flatnonzero((self._labels < 0) | (self._labels >= classes))
        if len(wrong):
            sample = self._part.numbers[wrong[0] // max(self._labels[0].size, 1)]
            raise UsageError(
                f"the label of sample {sample} is {self._labels.reshape(-1)[wrong[0]]}, and output {self._output!r} has "
                f"{classes:,} classes: expected 0 to {classes - 1}",
                tensor=self._output,
            )


def _class_rows(array: Array, labels: Array) -> Array | None:
    """An output as [*labels, classes] in double precision; None when it is not such."""
    n = labels.ndim
    if array.dtype.kind != "f" or array.ndim <= n or array.shape[:n] != labels.shape:
        return None
    if array.shape[n] < 2 or any(extent != 1 for extent in array.shape[n + 1 :]):
        return None
    return array.reshape(array.shape[: n + 1]).astype(np.float64)


class Custom:
    """What a function of the user's says."""

    def __init__(self, dense: onnx.ModelProto, part: Part, function: Function, labels: Array | None, threads: int = 0) -> None:
        """`labels` of the part's samples. UsageError where the function fails or its result is not a finite number."""
        self._part, self._function, self._labels, self._threads = part, function, labels, threads
        self._outputs = run_outputs(dense, part.samples, threads)
        self._best = self._value(self._outputs, "the dense model")
        self.dense: float | None = self._best

    def of(self, model: onnx.ModelProto) -> Loss:
        """By how much the function's value falls, and the outputs' mean squared difference for ties."""
        found = run_outputs(model, self._part.samples, self._threads)
        floats = [name for name, a in found.items() if a.dtype.kind == "f" and self._outputs[name].shape == a.shape]
        if not all(np.isfinite(found[name]).all() for name in floats):
            return Loss(float("inf"))
        far = [LOSSES[Metric.mse](*(o[n].astype(np.float64) for o in (self._outputs, found))) for n in floats]
        return Loss(self._best - self._value(found, "a pruned model"), float(np.mean(far)) if far else 0.0)

    def _value(self, outputs: Mapping[str, Array], of: str) -> float:
        name = metric_name(self._function)
        try:
            value = float(self._function(dict(outputs), self._labels))
        except Exception as exc:
            raise UsageError(f"the metric {name} failed on the outputs of {of}: {type(exc).__name__}: {exc}") from exc
        if not np.isfinite(value):
            raise UsageError(f"the metric {name} gives {value} for the outputs of {of}: it must give a finite number")
        return value


def metric_name(metric: Metric | Function) -> str:
    """As reports write it."""
    return metric.value if isinstance(metric, Metric) else str(getattr(metric, "__qualname__", type(metric).__name__))
