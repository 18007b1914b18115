"""Is a compiled library right? Its outputs against a reference's, on the same inputs.

The measure is max |difference| / max |reference| for each output, the largest over all input sets: one number that does not
explode at the zeros of an activation. Infinities and NaNs have to be in the same places.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsec.compiler.errors import VerificationError
from sparsec.compiler.report import Report

Array = np.ndarray[Any, Any]
Runner = Callable[[Mapping[str, Array]], Mapping[str, Array]]
TOLERANCE = 1e-4
ROUNDED_TOLERANCE = 0.25  # a value that is rounded the other way changes later layers; a wrong layer gives errors near 1


def default_tolerance(report: Report) -> float:
    """The error to accept of a compiled model: of float32 rounding, or of rounding to bytes or bfloat16 between layers.

    onnxruntime adds and averages quantised values by formulas of its own, which now and then round to the next integer. What we
    multiply in bfloat16 it computes in float32, and networks of random weights amplify the difference.
    """
    rounded = any(t.dtype in ("u8", "i8", "bf16") for layer in report.layers if layer.macs for t in layer.inputs)
    return ROUNDED_TOLERANCE if rounded else TOLERANCE


def relative_error(value: Array, reference: Array) -> float:
    """max |value - reference| / max |reference|, in float64, over finite elements.

    Infinite when shapes differ, when a NaN or an infinity is on one side only, or when a reference of zeros is not met exactly.
    """
    if value.shape != reference.shape:
        return float("inf")
    if reference.size == 0:
        return 0.0
    got, want = np.asarray(value, np.float64), np.asarray(reference, np.float64)
    finite = np.isfinite(want)
    if not np.array_equal(got[~finite], want[~finite], equal_nan=True) or not np.isfinite(got[finite]).all():
        return float("inf")
    if not finite.any():
        return 0.0
    difference = float(np.abs(got[finite] - want[finite]).max())
    largest = float(np.abs(want[finite]).max())
    if difference == 0.0:
        return 0.0
    return difference / largest if largest > 0.0 else float("inf")


@dataclass(frozen=True, slots=True)
class OutputCheck:
    """One output on one set of inputs. `error` is `relative_error`; `where` is the flat index of the largest difference."""

    sample: int
    output: str
    dtype: str
    shape: tuple[int, ...]
    error: float
    where: int
    value: float
    reference: float


@dataclass(frozen=True)
class Verification:
    """All checks of one verification."""

    checks: tuple[OutputCheck, ...]
    tolerance: float

    @property
    def worst(self) -> OutputCheck:
        """The check with the largest error."""
        return max(self.checks, key=lambda c: c.error)

    @property
    def ok(self) -> bool:
        """Whether every error is within the tolerance."""
        return all(c.error <= self.tolerance for c in self.checks)

    def require(self) -> None:
        """Raise VerificationError, which names the worst output, unless `ok`."""
        if not self.ok:
            w = self.worst
            raise VerificationError(
                f"output {w.output!r} differs from onnxruntime's: max|difference|/max|reference| is {w.error:.3g} on input set "
                f"{w.sample}, more than {self.tolerance:g} (element {w.where}: {w.value:.9g}, expected {w.reference:.9g}); "
                f"`sparsec verify --per-node` finds the first layer that is wrong",
                tensor=w.output,
            )


def verify_model(
    compiled: Runner, reference: Runner, feeds: Sequence[Mapping[str, Array]], *, tolerance: float = TOLERANCE
) -> Verification:
    """Run both on every set of inputs and compare every output of the reference."""
    checks: list[OutputCheck] = []
    for sample, one in enumerate(feeds):
        want = reference(one)
        got = compiled(one)
        checks += [compare(name, got[name], array, sample) for name, array in want.items()]
    return Verification(tuple(checks), tolerance)


def compare(output: str, value: Array, reference: Array, sample: int = 0) -> OutputCheck:
    """The check of one output."""
    error = relative_error(value, reference)
    where, v, r = 0, float("nan"), float("nan")
    if value.shape == reference.shape and reference.size:
        got, want = (np.asarray(a, np.float64).reshape(-1) for a in (value, reference))
        with np.errstate(invalid="ignore"):
            difference = np.abs(got - want)
        difference[(got == want) | (np.isnan(got) & np.isnan(want))] = 0.0
        where = int(np.argmax(np.where(np.isnan(difference), np.inf, difference)))
        v, r = float(got[where]), float(want[where])
    return OutputCheck(sample, output, str(reference.dtype), tuple(reference.shape), error, where, v, r)
