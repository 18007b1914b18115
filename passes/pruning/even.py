"""The blocks that hold the most where every row keeps n of every m consecutive ones, and no column of blocks may be empty.

Groups of m columns do not depend on each other. In each, the n largest of every row are best; where that leaves columns empty,
what is asked for is a flow of least cost: a row that exchanges a block for one in another column is an arc between the two, and
each empty column in turn gets the cheapest path from a column that has blocks to spare. After every such path the choice is the
best one with these columns filled (successive shortest paths; Ahuja, Magnanti and Orlin, Network Flows, section 9.7).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsec.passes.pruning.groups import in_groups, largest_in

Array = np.ndarray[Any, Any]
_ROUNDING = 1e-12  # of the largest block: a path that is cheaper by less is not looked at, so that none goes in circles


@dataclass(frozen=True)
class Even:
    """`kept` [rows, taps, columns]: which blocks. `forced`: whether others would hold more, but leave a column empty."""

    kept: Array
    forced: bool


def even_blocks(worth: Array, n: int, m: int) -> Even:
    """The best n (all, where there are no more) of every m consecutive columns for each row and tap of `worth`, not negative.

    `worth` is [rows, taps, columns]. Where there are fewer choices than columns, some of these stay empty.
    """
    rows, taps, columns = worth.shape
    apart = in_groups(worth, m)  # [rows, taps, groups, m]
    kept = largest_in(apart, n)
    missing: Array = ~np.any(kept, axis=(0, 1))
    missing.reshape(-1)[columns:] = False  # padding
    groups = np.flatnonzero(missing.any(axis=1))
    for group in groups:
        some = min(m, columns - group * m)
        chosen = kept[:, :, group, :some].reshape(rows * taps, some)
        value = apart[:, :, group, :some].reshape(rows * taps, some).astype(np.float64)
        kept[:, :, group, :some] = _filled(value, chosen).reshape(rows, taps, some)
    return Even(kept.reshape(rows, taps, -1)[..., :columns], bool(len(groups)))


def _filled(worth: Array, kept: Array) -> Array:
    """The best choice [choices, columns] of as many blocks a row that leaves no column empty, from the best of all."""
    kept = kept.copy()
    while not kept.any(axis=0).all():
        path = _cheapest(worth, kept)
        if path is None:
            break
        for row, old, new in path:
            kept[row, old], kept[row, new] = False, True
    return kept


def _cheapest(worth: Array, kept: Array) -> list[tuple[int, int, int]] | None:
    """The exchanges (row, column before, column after) that fill one empty column for the least; None where none can.

    Bellman-Ford over the columns: arcs may be negative, but no circle is.
    """
    counts, columns = kept.sum(axis=0), np.arange(kept.shape[1])
    loss = np.where(kept, worth, np.inf)[:, :, None] - np.where(kept, -np.inf, worth)[:, None, :]  # [rows, before, after]
    through = loss.argmin(axis=0)
    arc = np.take_along_axis(loss, through[None], axis=0)[0]
    cost, before = np.where(counts > 1, 0.0, np.inf), np.full(len(columns), -1)
    least = _ROUNDING * float(worth.max(initial=0))
    for _ in columns:
        reached = cost[:, None] + arc
        best = reached.argmin(axis=0)
        better = reached[best, columns] < cost - least
        if not better.any():
            break
        cost[better], before[better] = reached[best, columns][better], best[better]
    empty = np.flatnonzero((counts == 0) & np.isfinite(cost))
    if not len(empty):
        return None
    at, path = int(empty[cost[empty].argmin()]), []
    while before[at] >= 0:
        start = int(before[at])
        path.append((int(through[start, at]), start, at))
        at = start
    return path
