"""Fit the layer that gives a classifier's logits so that its softmax, not their values, is what it was.

The Kullback-Leibler divergence from the dense softmax to the fitted one is convex in the layer's weights. Least squares of the
logits counts an error alike where it changes what is predicted and where it cannot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import minimize

Array = np.ndarray[Any, Any]
_HELD_OUT = 4  # one sample of so many judges the strengths of the ridge
_STRENGTHS = (1.0, 0.1, 0.01)
_STEPS = 100


@dataclass(frozen=True)
class Logits:
    """Rows x [n, K] that the layer reads and the dense logits [n, classes] that it should give."""

    x: Array
    dense: Array

    def divergence(self, w: Array) -> float:
        """Mean divergence, in nats, with weights and a constant w [classes, K + 1]."""
        p, q = log_softmax(self.dense), log_softmax(_with_one(self.x) @ w.T)
        return float((np.exp(p) * (p - q)).sum(axis=1).mean())


def fit_softmax(logits: Logits, start: Array, ridge: float) -> Array:
    """Weights and a constant [classes, K + 1] from `start` on, which stays where nothing is better on samples held out.

    `ridge` is the share of the inputs' mean variance, times the softmax's mean curvature, that pulls towards `start`; a tenth
    and a hundredth of it are tried as well.
    """
    judge = np.arange(len(logits.x)) % _HELD_OUT == _HELD_OUT - 1
    if judge.all() or not judge.any():
        return start
    some, others = (Logits(logits.x[rows], logits.dense[rows]) for rows in (~judge, judge))
    found = [(others.divergence(_minimum(some, start, ridge * s)), s) for s in _STRENGTHS]
    least, strength = min(found)
    return _minimum(logits, start, ridge * strength) if least < others.divergence(start) else start


def log_softmax(a: Array) -> Array:
    """Over the last dimension."""
    shifted = a - a.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def _minimum(logits: Logits, start: Array, ridge: float) -> Array:
    """By L-BFGS, over what decorrelates the inputs, so that few steps are enough."""
    p = np.exp(log_softmax(logits.dense))
    mean = logits.x.mean(axis=0)
    centred = logits.x - mean
    covariance = centred.T @ centred / len(centred)
    curvature = float((p * (1 - p)).mean())
    size = float(np.diagonal(covariance).mean()) or 1.0
    pull = ridge * size
    upper = cholesky(covariance + pull * np.eye(len(mean)))
    z = _with_one(solve_triangular(upper, centred.T, trans="T").T)  # the moments of z are those of the identity
    base = _with_one(logits.x) @ start.T
    back = solve_triangular(upper, np.eye(len(mean)))

    def loss(flat: Array) -> tuple[float, Array]:
        moved = flat.reshape(start.shape)
        q = log_softmax(base + z @ moved.T)
        change = moved[:, :-1] @ back.T
        value = -(p * q).sum() / len(z) + pull * curvature / 2 * np.square(change).sum()
        slope = (np.exp(q) - p).T @ z / len(z)
        slope[:, :-1] += pull * curvature * change @ back
        return float(value), slope.reshape(-1)

    moved = minimize(loss, np.zeros(start.size), jac=True, method="L-BFGS-B", options={"maxiter": _STEPS}).x.reshape(start.shape)
    change = moved[:, :-1] @ back.T
    constant = moved[:, -1] - change @ mean
    return np.asarray(start + np.concatenate([change, constant[:, None]], axis=1))


def _with_one(x: Array) -> Array:
    return np.concatenate([x, np.ones((len(x), 1))], axis=1)
