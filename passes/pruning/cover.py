"""The blocks that hold the most where no row and no column of blocks may be empty.

That is a linear programme over a bipartite graph with integral corners. With a price for every block, those that hold more than
it are kept, and rows and columns without any are covered at the least cost: each by its best block, or two by one where that is
cheaper, which is a matching (Schrijver, Combinatorial Optimization, chapter 19). Bisection finds the price at which as many
blocks are kept as asked for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

Array = np.ndarray[Any, Any]
_TRIES = 80
_STEP = 0.01  # of the largest block: how far from the price that is expected the right one is looked for first


@dataclass(frozen=True)
class Cover:
    """`kept` [rows, taps, columns]: which blocks. `forced`: whether others would hold more, but leave a row or column empty.

    With `price` to pay for a block, these are the best (one of the best, where blocks are equal).
    """

    kept: Array
    price: float
    forced: bool


def best_blocks(worth: Array, keep: int, near: float | None = None) -> Cover:
    """Which blocks hold the most, of `worth` [rows, taps, columns] (float, not negative).

    `keep` of them, or where that leaves a row or column without any, as many as there are rows or columns. `near`: the price that
    is expected.
    """
    free, price = _largest(worth, keep)
    if free.any(axis=(1, 2)).all() and free.any(axis=(0, 1)).all():
        return Cover(free, price, False)
    exact, keep = worth.astype(np.float64), max(keep, worth.shape[0], worth.shape[2])
    low, high, fewest = -1.0, math.inf, np.zeros(0, bool)
    price, step = price if near is None else near, _STEP * float(exact.max(initial=0)) + 1e-30
    while high > 0 and (high == math.inf or high - low > 1e-12 * high):
        kept = _covering(exact, price)
        count = int(kept.sum())
        if count == keep:
            return Cover(kept, price, True)
        if count > keep:
            low = price
        else:
            high, fewest = price, kept
        outward = price + step if high == math.inf else max(price - step, 0.0)
        inside = low >= 0 and high < math.inf
        price, step = (low + high) / 2 if inside else outward, 4 * step
    return Cover(_filled(exact, fewest, keep), price, True)  # equal blocks: any of them


def _largest(worth: Array, keep: int) -> tuple[Array, float]:
    """The `keep` largest, of equals the last ones, and the mean of the least of these and the largest other one."""
    order, drop = np.argsort(worth, axis=None, kind="stable"), worth.size - keep
    kept = np.ones(worth.size, bool)
    kept[order[:drop]] = False
    border = worth.reshape(-1)[order[max(0, drop - 1) : drop + 1]]
    return kept.reshape(worth.shape), float(border.mean()) if border.size else 0.0


def _covering(worth: Array, price: float) -> Array:
    """The blocks that hold the most beyond the price, none of rows and columns empty."""
    kept = worth > price
    rows, columns = np.flatnonzero(~kept.any(axis=(1, 2))), np.flatnonzero(~kept.any(axis=(0, 1)))
    if not len(rows) and not len(columns):
        return kept
    by_row = worth[rows].reshape(len(rows), worth[0].size)
    by_column = worth[:, :, columns].reshape(worth.shape[0] * worth.shape[1], len(columns))
    cost_row, cost_column = price - by_row.max(axis=1, initial=0), price - by_column.max(axis=0, initial=0)
    inside = worth[np.ix_(rows, np.arange(worth.shape[1]), columns)]
    saved = cost_row[:, None] + cost_column - (price - inside.max(axis=1, initial=0))
    matched_rows, matched_columns = linear_sum_assignment(np.maximum(saved, 0), maximize=True)
    pays = saved[matched_rows, matched_columns] > 0
    matched_rows, matched_columns = matched_rows[pays], matched_columns[pays]
    kept[rows[matched_rows], inside[matched_rows, :, matched_columns].argmax(axis=1), columns[matched_columns]] = True
    alone = np.delete(np.arange(len(rows)), matched_rows)
    tap, column = np.divmod(by_row[alone].argmax(axis=1), worth.shape[2])
    kept[rows[alone], tap, column] = True
    alone = np.delete(np.arange(len(columns)), matched_columns)
    row, tap = np.divmod(by_column[:, alone].argmax(axis=0), worth.shape[1])
    kept[row, tap, columns[alone]] = True
    return kept


def _filled(worth: Array, kept: Array, keep: int) -> Array:
    """The blocks in `kept` and the largest others."""
    missing = keep - int(kept.sum())
    if missing > 0:
        kept = kept.copy()
        kept.reshape(-1)[np.argsort(np.where(kept, -np.inf, worth), axis=None, kind="stable")[-missing:]] = True
    return kept
