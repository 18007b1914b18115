"""Clusters of equal size: k-means whose assignment step is a linear assignment (Malinen and Franti, S+SSPR 2014)."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

Array = np.ndarray[Any, Any]
_STEPS, _TOLERANCE = 20, 1e-4
_WIDE = 256  # features beyond which rows are projected at random: distances keep within a few per cent


def balanced_clusters(rows: Array, count: int, rng: np.random.Generator, over: Any = lambda: False) -> Array:
    """Numbers of the rows of each of `count` clusters, [count, len(rows) / count].

    `rows` [count * size, D]. Starts from random rows as centres; stops when the cost falls by less than 1e-4 of itself, after 20
    steps, or when `over()`.
    """
    size = len(rows) // count
    points = _projected(rows, rng)
    centres = points[rng.choice(len(rows), count, replace=False)]
    squares, last = np.square(points).sum(axis=1), np.inf
    found = np.arange(len(rows)).reshape(count, size)
    for _ in range(_STEPS):
        distance = squares[:, None] - 2 * points @ centres.T + np.square(centres).sum(axis=1)
        _, seat = linear_sum_assignment(np.repeat(distance, size, axis=1))
        found = np.argsort(seat, kind="stable").reshape(count, size)
        cost = float(distance[found, np.arange(count)[:, None]].sum())
        if last - cost <= _TOLERANCE * abs(last) or over():
            break
        last, centres = cost, points[found].mean(axis=1)
    return found


def _projected(rows: Array, rng: np.random.Generator) -> Array:
    if rows.shape[1] <= _WIDE:
        return rows
    return np.asarray(rows @ rng.standard_normal((rows.shape[1], _WIDE), dtype=np.float32)) / np.float32(np.sqrt(_WIDE))
