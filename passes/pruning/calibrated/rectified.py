"""Least squares through a rectifier: a result that stays below zero is as good as any other that does.

What matters of a layer with a Relu behind it is max(y, 0), so that an error counts where the wanted y is positive, and elsewhere
only as far as the result is (the nonlinear responses of Zhang et al., arXiv 1505.06798, section 3.2, without their relaxation).
That loss is convex with slope at most that of plain least squares, so that steps which solve the plain normal equations for the
errors that count lower it; they are accelerated (Nesterov, 1983), and the best one is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsec.passes.pruning.calibrated.sites import Site
from sparsec.passes.pruning.calibrated.solve import SupportSolver

Array = np.ndarray[Any, Any]
_BYTES = 1 << 27  # of input rows that are kept
_MOST_ROWS = 40_000
_STEPS = 15


@dataclass(frozen=True)
class Rows:
    """Rows of a layer: inputs x [n, groups, K], wanted results t [n, OC], and from where on each counts, `level` [n, OC].

    `sign` [OC] is 1 where results above the level pass the rectifier, -1 where those below do. `scale` [OC] is how much a unit
    of a result is behind the constants that follow it.
    """

    x: Array
    t: Array
    level: Array
    sign: Array
    scale: Array

    def errors(self, y: Array) -> Array:
        """[n, OC]: t - y where t passes, elsewhere what y passes by."""
        beyond = (self.level - y) * self.sign
        return np.where((self.t - self.level) * self.sign > 0, self.t - y, np.minimum(beyond, 0) * self.sign)

    def loss(self, errors: Array) -> float:
        """Mean square behind the rectifier, where the wanted result passes an upper bound of it."""
        return float(np.square(errors * self.scale).mean(dtype=np.float64))


class RowStore:
    """Collects an even share of the rows of every batch, as many in all as can be kept."""

    def __init__(self, groups: int, columns: int, site: Site, batches: int, most: int, seed: int) -> None:
        """Of `most` rows with `columns` inputs a group; what follows the layer's results at the site scales none to zero."""
        most = min(most, _MOST_ROWS, _BYTES // max(4 * groups * columns, 1))
        self._scale, self._shift, self._quota, self._seed = site.scale, site.shift, max(1, most // max(batches, 1)), seed
        self._found: list[tuple[Array, Array, Array]] = []

    def add(self, x: Array, t: Array, other: Array | None) -> None:
        """Rows of a batch: x [n, groups, K], t [n, OC], and what is added before the rectifier, [n, OC]."""
        picked = np.arange(len(x))
        if len(x) > self._quota:
            rng = np.random.default_rng((self._seed, len(self._found)))
            picked = np.sort(rng.choice(len(x), self._quota, replace=False))
        level = -(self._shift + (0 if other is None else other[picked])) / self._scale
        level = np.broadcast_to(level, (len(picked), len(self._scale)))
        self._found.append((x[picked], t[picked], level))

    def rows(self) -> Rows:
        """All of them."""
        x, t, level = (np.concatenate(parts).astype(np.float32) for parts in zip(*self._found, strict=True))
        sign, size = np.sign(self._scale).astype(np.float32), np.abs(self._scale).astype(np.float32)
        return Rows(x, t, level, sign, size)


@dataclass(frozen=True)
class Fitted:
    """Weights [groups, rows, K] and the constants [OC] that are added to what they give."""

    w: Array
    constant: Array


def fit_rectified(rows: Rows, solvers: list[SupportSolver], w: Array, toward: Array, ridge: Array) -> Fitted:
    """The best weights found, from `w` [groups, rows, K] on, with a ridge [groups] towards `toward`; zeros are those of solvers.

    Never worse than `w` with the constants that give results their mean.
    """
    mean = rows.x.mean(axis=0, dtype=np.float64)
    x = np.ascontiguousarray((rows.x - mean.astype(np.float32)).transpose(1, 0, 2))
    constant = rows.t.mean(axis=0, dtype=np.float64)
    best, lowest = Fitted(w, constant), np.inf
    state = previous = best
    age, before = 0, np.inf
    for _ in range(_STEPS):
        share = age / (age + 3)
        ahead = Fitted(
            *(now + share * (now - last) for now, last in ((state.w, previous.w), (state.constant, previous.constant)))
        )
        results = x @ ahead.w.astype(np.float32).transpose(0, 2, 1)
        errors = rows.errors(_side_by_side(results) + ahead.constant.astype(np.float32))
        pull = ridge[:, None, None] * (toward - ahead.w)
        loss = rows.loss(errors) + _pull_loss(ridge, ahead.w - toward, rows.scale)
        if loss < lowest:
            best, lowest = ahead, loss
        age = 0 if loss > before else age + 1
        before = loss
        slope = _by_group(errors, len(x)).transpose(0, 2, 1) @ x / len(errors) + pull
        previous = state
        step = np.stack([solver.solve(part) for solver, part in zip(solvers, slope.astype(np.float64), strict=True)])
        state = Fitted(ahead.w + step, ahead.constant + errors.mean(axis=0, dtype=np.float64))
    return Fitted(best.w, best.constant - (best.w * mean[:, None, :]).sum(axis=2).reshape(-1))


def _pull_loss(ridge: Array, moved: Array, scale: Array) -> float:
    """What the ridge adds to the loss, which is a mean over outputs."""
    by_output = np.square(moved).sum(axis=2) * ridge[:, None]
    return float((by_output.reshape(-1) * np.square(scale, dtype=np.float64)).mean())


def _side_by_side(results: Array) -> Array:
    """[groups, n, rows] -> [n, OC]."""
    return np.asarray(results.transpose(1, 0, 2).reshape(results.shape[1], -1))


def _by_group(errors: Array, groups: int) -> Array:
    """[n, OC] -> [groups, n, rows]."""
    return np.asarray(errors.reshape(len(errors), groups, -1).transpose(1, 0, 2))
