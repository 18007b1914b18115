"""SAT's units beside the array: SORE, which keeps the n largest of every m, and WUVE, which updates weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Reduced:
    """What SORE emits of rows of values: the kept ones and where they are in their groups, [rows, groups, n], and its cycles."""

    values: Array
    positions: Array
    cycles: int

    def dense(self, extent: int, group: int) -> Array:
        """The rows [rows, extent] with zeros for what was dropped."""
        out = np.zeros((self.values.shape[0], self.values.shape[1], group), self.values.dtype)
        np.put_along_axis(out, self.positions, self.values, axis=2)
        return out.reshape(len(out), -1)[:, :extent]


def sore(w: Array, keep: int, group: int, width: int) -> Reduced:
    """Of w [rows, extent] the `keep` largest magnitudes of every `group` values, the first of equals, in ascending positions.

    As the unit works: `width` reducers take a value a cycle each into a chain of `keep` registers, ordered by magnitude, whose
    smaller part moves down by one when a larger value comes; a group is emitted while the next one enters.
    """
    padded = np.pad(w, ((0, 0), (0, -w.shape[1] % group)))
    groups = padded.reshape(-1, group)
    held = np.full((len(groups), keep), -1.0)  # magnitudes; less than any
    values, positions = np.zeros((len(groups), keep), w.dtype), np.tile(np.arange(group - keep, group), (len(groups), 1))
    for time in range(group):
        arriving = groups[:, time]
        larger = np.abs(arriving)[:, None] > held  # a suffix of the chain, as it is ordered
        moved = larger & np.pad(larger, ((0, 0), (1, 0)))[:, :-1]
        enters = larger & ~moved
        for registers, new in ((held, np.abs(arriving)), (values, arriving), (positions, np.full(len(groups), time))):
            shifted = np.pad(registers, ((0, 0), (1, 0)))[:, :-1]
            registers[:] = np.where(enters, new[:, None], np.where(moved, shifted, registers))
    order = np.argsort(positions, axis=1, kind="stable")
    shape = (len(w), -1, keep)
    rounds = -(-len(groups) // width)
    return Reduced(
        np.take_along_axis(values, order, axis=1).reshape(shape),
        np.take_along_axis(positions, order, axis=1).reshape(shape),
        rounds * group + keep,
    )


def wuve(w: Array, momentum: Array, gradient: Array, rate: float, decay: float, width: int) -> tuple[Array, Array, int]:
    """Stochastic gradient descent with momentum: the new weights and momenta, and cycles at `width` weights a cycle."""
    one = w.dtype.type
    new = one(decay) * momentum + gradient
    return w - one(rate) * new, new, -(-w.size // width)
