"""What a quantisation should be like."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sparsec.compiler.errors import UsageError
from sparsec.passes.pruning.calibrated.labels import Labels
from sparsec.passes.pruning.calibrated.metric import Metric
from sparsec.passes.pruning.calibrated.quality import Function
from sparsec.passes.quantisation.ranges import Method


@dataclass(frozen=True, slots=True)
class KeepFloat:
    """Layers that stay float32: those whose names fit a glob, and the worst ones: `count` of them, or as many as it takes for
    outputs with `sqnr` dB of signal to quantisation noise, or for a loss by `metric` of at most `max_drop`.

    `metric` and `labels` are those of a `Budget`: what the samples lose of what the float model has.
    """

    globs: tuple[str, ...] = ()
    count: int = 0
    sqnr: float | None = None
    max_drop: float | None = None
    metric: Metric | Function = Metric.accuracy
    labels: Labels | None = None

    def __post_init__(self) -> None:
        if self.max_drop is not None and not self.max_drop >= 0:
            raise UsageError(f"the largest drop is {self.max_drop:g}: give a loss of 0 or more by the metric, as 0.005")
        if (self.count > 0) + (self.sqnr is not None) + (self.max_drop is not None) > 1:
            raise UsageError("--keep-float takes a number of layers, auto:DB, or auto:METRIC:X, and one of them")

    @staticmethod
    def parse(entries: Sequence[str], labels: Labels | None = None) -> KeepFloat:
        """ "3", "auto:30", "auto:accuracy:0.005" and globs, in any number. UsageError for what cannot be right."""
        globs: list[str] = []
        count, sqnr, max_drop, metric = 0, None, None, Metric.accuracy
        for entry in entries:
            kind, colon, number = entry.partition(":")
            name, named, drop = number.partition(":")
            if entry.isdecimal():
                count = int(entry)
            elif kind == "auto" and named:
                if name not in list(Metric):
                    raise UsageError(f"--keep-float {entry!r}: metric {name!r} is not known: expected {', '.join(Metric)}")
                metric, max_drop = Metric(name), _number(drop, f"auto:{name}:X takes a largest loss, as auto:{name}:0.005", entry)
            elif kind == "auto" and colon:
                sqnr = _number(number, "auto:DB takes a signal to noise ratio in dB, as auto:30", entry)
            elif entry:
                globs.append(entry)
            else:
                raise UsageError(
                    "--keep-float takes a number of layers, auto:DB, auto:METRIC:X, or a glob of node names, not an empty text"
                )
        return KeepFloat(tuple(globs), count, sqnr, max_drop, metric, labels)


def _number(text: str, what: str, entry: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise UsageError(f"--keep-float {what}, not {entry!r}")
    return found


@dataclass(frozen=True, slots=True)
class Settings:
    """Options of post-training quantisation.

    `method` chooses the ranges of activations, `percentile` what the method of that name keeps, in per cent. `per_channel`: one
    scale for each output channel of weights, or one for all. `power_of_two`: all scales are powers of two. `reduce_range`:
    weights are from -64 to 64, which x86 CPUs without VNNI multiply faster. `correct_bias`: mean errors of layers go into their
    biases. `threads` are those of calibration runs, 0: as many as there are cores.
    """

    method: Method = Method.mse
    percentile: float = 99.99
    per_channel: bool = True
    power_of_two: bool = False
    reduce_range: bool = False
    correct_bias: bool = True
    keep_float: KeepFloat = KeepFloat()
    threads: int = 0

    def __post_init__(self) -> None:
        if self.method not in list(Method):
            raise UsageError(f"the method {self.method!r} is not known: expected {', '.join(Method)}")
        if not 50 < self.percentile <= 100:
            raise UsageError(f"the percentile is {self.percentile:g}: expected a share above 50 and up to 100 per cent")
