"""Least squares on a given support: the weights that, among those a mask allows, come closest to a layer's targets."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve

Array = np.ndarray[Any, Any]
_DIRECT = 4e11  # multiplications of factorisations up to which rows are solved one support at a time (about 20 s)
_BYTES = 1 << 29  # of factors that are kept
_STEPS, _FEW, _TOLERANCE = 60, 6, 1e-5


def regularised(covariance: Array, cross: Array, w: Array, share: float) -> tuple[Array, Array]:
    """Normal equations (a, b) of least squares with a ridge towards `w`: x a = b minimises |x - w|^2 * ridge + error.

    `covariance` [K, K], `cross` and `w` [rows, K]; the ridge is `share` of the mean of the covariance's diagonal. It reaches
    columns that are constant, too, so that a is positive definite.
    """
    diagonal = np.diagonal(covariance)
    mean = float(diagonal.mean()) if diagonal.size else 0.0
    ridge = share * mean if mean > 0 else 1.0
    a = covariance + ridge * np.eye(len(covariance))
    return a, cross + ridge * w


def on_support(a: Array, b: Array, mask: Array, start: Array) -> Array:
    """Rows x [rows, K], zero outside `mask`, that minimise x a x' - 2 b x' (a [K, K] positive definite).

    Rows that share a support are solved together by Cholesky factorisation; where that is too much work, all rows by conjugate
    gradients with a diagonal preconditioner from `start`.
    """
    supports, member = _supports(mask)
    if _work(supports) > _DIRECT:
        return _conjugate_gradients(a, b, mask, start)
    x = np.zeros(b.shape)
    for i, support in enumerate(supports):
        kept, rows = np.flatnonzero(support), np.flatnonzero(member == i)
        if len(kept):
            factor = cho_factor(a[np.ix_(kept, kept)], lower=True, overwrite_a=True, check_finite=False)
            x[np.ix_(rows, kept)] = cho_solve(factor, b[np.ix_(rows, kept)].T, check_finite=False).T
    return x


class SupportSolver:
    """Solves x a = b on one support [rows, K] for one right side after the other.

    The factors are kept where that is not too much; where it is, conjugate gradients take a few steps from zero, which lower
    x a x' - 2 b x' without ending at its minimum.
    """

    def __init__(self, a: Array, mask: Array) -> None:
        """`a` [K, K] is positive definite."""
        supports, member = _supports(mask)
        self._a, self._mask = a, mask
        self._direct = _work(supports) <= _DIRECT and 8 * float((supports.sum(axis=1, dtype=np.float64) ** 2).sum()) <= _BYTES
        self._parts = []
        for i, support in enumerate(supports if self._direct else ()):
            kept = np.flatnonzero(support)
            if len(kept):
                factor = cho_factor(a[np.ix_(kept, kept)], lower=True, overwrite_a=True, check_finite=False)
                self._parts.append((np.ix_(np.flatnonzero(member == i), kept), factor))

    def solve(self, b: Array) -> Array:
        """x [rows, K], zero outside the support."""
        if not self._direct:
            return _conjugate_gradients(self._a, b, self._mask, np.zeros(b.shape), _FEW)
        x = np.zeros(b.shape)
        for at, factor in self._parts:
            x[at] = cho_solve(factor, b[at].T, check_finite=False).T
        return x


def _supports(mask: Array) -> tuple[Array, Array]:
    """The different rows of a mask, and which of them each row is."""
    supports, member = np.unique(mask, axis=0, return_inverse=True)
    return supports, member.reshape(-1)


def _work(supports: Array) -> float:
    return float((supports.sum(axis=1, dtype=np.float64) ** 3).sum()) / 3


def _conjugate_gradients(a: Array, b: Array, mask: Array, start: Array, steps: int = _STEPS) -> Array:
    """All rows at once (Hestenes and Stiefel, 1952), until every residual is 1e-5 of its right side."""
    x = np.where(mask, start, 0.0)
    inverse = 1 / np.diagonal(a)
    residual = np.where(mask, b - x @ a, 0.0)
    z = residual * inverse
    direction, rho = z.copy(), (residual * z).sum(axis=1)
    goal = _TOLERANCE**2 * (np.where(mask, b, 0.0) ** 2 * inverse).sum(axis=1)
    for _ in range(steps):
        if (rho <= goal).all():
            break
        along = np.where(mask, direction @ a, 0.0)
        curvature = (direction * along).sum(axis=1)
        step = np.divide(rho, curvature, out=np.zeros_like(rho), where=curvature > 0)[:, None]
        x += step * direction
        residual -= step * along
        z = residual * inverse
        rho, before = (residual * z).sum(axis=1), rho
        direction = z + np.divide(rho, before, out=np.zeros_like(rho), where=before > 0)[:, None] * direction
    return x
