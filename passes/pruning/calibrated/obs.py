"""Masks by optimal brain surgery: what goes is what the rest makes up for best (Hassibi and Stork, NIPS 1992).

Dropping the weights B of a row w costs w_B (Hinv_BB)^-1 w_B', and the rest moves by -w_B (Hinv_BB)^-1 Hinv_B,: where Hinv is the
inverse of the inputs' second moments. Rows that share a mask add their costs up.
"""

from __future__ import annotations

from itertools import combinations
from math import comb
from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from sparsec.compiler.sparsity import NM, HiNM
from sparsec.compiler.sparsity.text import Goal
from sparsec.passes.permutation.search.tiles import search_tiles

Array = np.ndarray[Any, Any]
_CHOICES = 100
LARGEST = 2048  # columns up to which whole eliminations are worth their cubes


def inverse(a: Array) -> Array:
    """The inverse of a symmetric positive definite matrix."""
    return np.asarray(cho_solve(cho_factor(a, lower=True, check_finite=False), np.eye(len(a)), check_finite=False))


def drop(w: Array, inv: Array, columns: Array) -> None:
    """Drop columns from all rows of w [rows, K], in place; the other columns make up for it. `inv` is that of what is left."""
    part = inv[columns]
    solved = np.linalg.solve(part[:, columns], part)
    w -= w[:, columns] @ solved
    inv -= part.T @ solved
    w[:, columns] = 0


def n_of_m(w: Array, a: Array, channels: int, pattern: NM) -> Array:
    """Mask [rows, K] of n:m along the channels of every tap.

    SparseGPT's order (Frantar and Alistarh, arXiv 2301.00774, section 3.4): groups from left to right, each decided as a whole
    when it is reached, what it drops made up for by the columns behind it. Unlike there, all that a group may drop is compared
    by its joint cost where that is at most a hundred choices (2:4 has six); larger groups by the cost of single weights.
    """
    w, mask = w.copy(), np.ones(w.shape, bool)
    upper = np.linalg.cholesky(inverse(a)).T
    for begin, end in _groups(w.shape[1], channels, pattern.m_group):
        corner = upper[begin:end, begin:end]  # corner' corner is Hinv of this group once all before it are gone
        gone = max(end - begin - pattern.n_keep, 0)
        if comb(end - begin, gone) <= _CHOICES:
            mask[:, begin:end] = _cheapest(w[:, begin:end], corner.T @ corner, gone, pattern.rows)
        else:
            cost = np.square(w[:, begin:end]) / np.square(np.diagonal(corner))
            mask[:, begin:end] = _largest(_tiled(cost, pattern.rows), pattern.n_keep)
        _eliminate(w, upper, mask, begin, end)
    return mask


def _cheapest(w: Array, inv: Array, gone: int, rows: int) -> Array:
    """Mask of w [rows, m] without the `gone` weights that cost least together."""
    sets = np.array(list(combinations(range(w.shape[1]), gone)), np.int64)
    parts = w[:, sets]  # [rows, sets, gone]
    inner = np.linalg.inv(inv[sets[:, :, None], sets[:, None, :]])
    cost = np.einsum("rsi,sij,rsj->rs", parts, inner, parts)
    mask = np.ones(w.shape, bool)
    np.put_along_axis(mask, sets[_tiled(cost, rows).argmin(axis=1)], False, axis=1)
    return mask


def _groups(columns: int, channels: int, m: int) -> list[tuple[int, int]]:
    """Begin and end of every group of m channels, tap by tap, the last one of a tap cut off."""
    return [(tap + i, tap + min(i + m, channels)) for tap in range(0, columns, max(channels, 1)) for i in range(0, channels, m)]


def _eliminate(w: Array, upper: Array, mask: Array, begin: int, end: int) -> None:
    """Drop what the mask drops of columns begin to end; columns behind make up for it."""
    errors = np.zeros((len(w), end - begin))
    for i in range(begin, end):
        errors[:, i - begin] = np.where(mask[:, i], 0, w[:, i]) / upper[i, i]
        w[:, i:end] -= errors[:, i - begin, None] * upper[i, i:end]
    w[:, end:] -= errors @ upper[begin:end, end:]


def _tiled(cost: Array, rows: int) -> Array:
    """Costs summed over every `rows` rows, as one a row."""
    if rows == 1:
        return cost
    starts = np.arange(0, len(cost), rows)
    return np.repeat(np.add.reduceat(cost, starts, axis=0), np.diff([*starts, len(cost)]), axis=0)


def _largest(cost: Array, count: int) -> Array:
    """Mask of the `count` largest of every row, the first of equals."""
    mask = np.zeros(cost.shape, bool)
    np.put_along_axis(mask, np.argsort(-cost, axis=1, kind="stable")[:, :count], True, axis=1)
    return mask


def hierarchical(
    w: Array, a: Array, channels: int, pattern: HiNM, count: int, order_seed: int | None = None
) -> tuple[Array, Array]:
    """Mask [rows, K] of hierarchical n:m, where each tile of v rows keeps `count` channels a tap, and n:m of those.

    Also the channels of every tile and tap, [tiles, taps, count]. Columns of a tile go one after the other, the cheapest first;
    then n:m on what is left, refitted: in ascending order, or with `order_seed` in one in which single weights cost least.
    """
    mask, lists = np.zeros(w.shape, bool), []
    for begin in range(0, len(w), pattern.v):
        rows = slice(begin, begin + pattern.v)
        kept = _vectors(w[rows], a, channels, count)
        inside = a[np.ix_(kept, kept)]
        fitted = cho_solve(cho_factor(inside), (w[rows] @ a[:, kept]).T).T
        if order_seed is not None:
            order = _tile_order(fitted, inside, count, pattern, order_seed)
            kept, fitted, inside = kept[order], fitted[:, order], inside[np.ix_(order, order)]
        mask[rows, kept] = n_of_m(fitted, inside, count, NM(pattern.n_keep, pattern.m_group))
        lists.append(kept.reshape(-1, count) % channels)
    return mask, np.array(lists)


def _tile_order(w: Array, a: Array, count: int, pattern: HiNM, seed: int) -> Array:
    """An order of a tile's columns, `count` a tap, in which n:m keeps more of what single weights cost."""
    cost = (np.square(w) / np.diagonal(inverse(a))).astype(np.float32).reshape(len(w), -1, count)
    found = search_tiles(cost, Goal(pattern, 1 - pattern.n_keep / pattern.m_group), seed=seed)
    return np.asarray((found.lists[0] + count * np.arange(cost.shape[1])[:, None]).reshape(-1))


def _vectors(w: Array, a: Array, channels: int, count: int) -> Array:
    """Ascending numbers of the columns that a tile keeps, `count` a tap."""
    w, inv = w.copy(), inverse(a)
    alive = np.ones(w.shape[1], bool)
    left = np.full(w.shape[1] // channels, channels)
    whole = w.shape[1] <= LARGEST
    cost = np.square(w).sum(axis=0) / np.diagonal(inv)
    while (left > count).any():
        free = alive & np.repeat(left > count, channels)
        if whole:
            cost = np.square(w).sum(axis=0) / np.where(alive, np.diagonal(inv), 1)
        column = int(np.where(free, cost, np.inf).argmin())
        alive[column] = False
        left[column // channels] -= 1
        if whole:
            drop(w, inv, np.array([column]))
    return np.flatnonzero(alive)
