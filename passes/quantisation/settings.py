"""What a quantisation should be like."""

from __future__ import annotations

from dataclasses import dataclass

from sparsec.compiler.errors import UsageError
from sparsec.passes.quantisation.ranges import Method


@dataclass(frozen=True, slots=True)
class Settings:
    """Options of post-training quantisation.

    `method` chooses the range of activations, `percentile` what that method keeps, in per cent. `per_channel`: one scale for each
    output channel of weights. `power_of_two`: all scales are powers of two. `correct_bias`: mean errors of layers go into their
    biases. `keep_float`: a number of layers, "auto:X" (as many as it takes for a loss of at most X), or globs of node names with
    commas. `threads` for calibration runs, 0: as many as there are cores.
    """

    method: Method = Method.mse
    percentile: float = 99.99
    per_channel: bool = True
    power_of_two: bool = False
    correct_bias: bool = True
    keep_float: str = ""
    threads: int = 0

    def __post_init__(self) -> None:
        if self.method not in list(Method):
            raise UsageError(f"calibration method {self.method!r} is not known: expected {', '.join(Method)}")
        if not 50 < self.percentile <= 100:
            raise UsageError(f"the percentile is {self.percentile:g}: expected a share above 50 and up to 100 per cent")
