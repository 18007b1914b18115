"""Sums over the n largest of a few arrays, entry by entry: sorting networks, since m is small and the arrays are long."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def largest(values: Array, n: int) -> tuple[Array, Array]:
    """The sum of the `n` largest along the first axis of values [m, ...], and the n-th largest, by n rounds of a bubble sort."""
    work = list(values)
    total = np.zeros(values.shape[1:], values.dtype)
    best = total
    for _ in range(n):
        best, rest = work[0], []
        for other in work[1:]:
            rest.append(np.minimum(best, other))
            best = np.maximum(best, other)
        total = total + best
        work = rest
    return total, best


def largest_sum(values: Array, n: int) -> Array:
    """The sum of the `n` largest along the first axis of values [m, ...]."""
    m = len(values)
    if n == 2 and m == 4:  # both of one pair, or the larger of each
        a, b, c, d = values
        pairs = np.maximum(a, b) + np.maximum(c, d)
        return np.asarray(np.maximum(np.maximum(pairs, a + b), c + d))
    if 2 * n <= m:
        return largest(values, n)[0]
    return np.asarray(values.sum(axis=0) + largest(-values, m - n)[0])
