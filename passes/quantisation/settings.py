"""What a quantisation should be like."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sparsec.compiler.errors import UsageError
from sparsec.passes.quantisation.ranges import Method


@dataclass(frozen=True, slots=True)
class KeepFloat:
    """Layers that stay float32: those whose names fit a glob, the `count` worst ones, or as many as it takes for outputs with
    `sqnr` dB of signal to quantisation noise.
    """

    globs: tuple[str, ...] = ()
    count: int = 0
    sqnr: float | None = None

    @staticmethod
    def parse(entries: Sequence[str]) -> KeepFloat:
        """ "3", "auto:30" and globs, in any number. UsageError for what cannot be right."""
        globs: list[str] = []
        count, sqnr = 0, None
        for entry in entries:
            kind, colon, number = entry.partition(":")
            if entry.isdecimal():
                count = int(entry)
            elif kind == "auto" and colon:
                try:
                    sqnr = float(number)
                except ValueError:
                    sqnr = float("nan")
                if not math.isfinite(sqnr):
                    raise UsageError(f"--keep-float auto:DB takes a signal to noise ratio in dB, as auto:30, not {entry!r}")
            elif entry:
                globs.append(entry)
            else:
                raise UsageError("--keep-float takes a number of layers, auto:DB, or a glob of node names, not an empty text")
        if count and sqnr is not None:
            raise UsageError("--keep-float takes a number of layers or auto:DB, not both")
        return KeepFloat(tuple(globs), count, sqnr)


@dataclass(frozen=True, slots=True)
class Settings:
    """Options of post-training quantisation.

    `method` chooses the ranges of activations, `percentile` what the method of that name keeps, in per cent. `per_channel`: one
    scale for each output channel of weights, or one for all. `power_of_two`: all scales are powers of two. `correct_bias`: mean
    errors of layers go into their biases. `threads` are those of calibration runs, 0: as many as there are cores.
    """

    method: Method = Method.mse
    percentile: float = 99.99
    per_channel: bool = True
    power_of_two: bool = False
    correct_bias: bool = True
    keep_float: KeepFloat = KeepFloat()
    threads: int = 0

    def __post_init__(self) -> None:
        if self.method not in list(Method):
            raise UsageError(f"the method {self.method!r} is not known: expected {', '.join(Method)}")
        if not 50 < self.percentile <= 100:
            raise UsageError(f"the percentile is {self.percentile:g}: expected a share above 50 and up to 100 per cent")
