"""Merging columns that have no nonzero row in common.

This is column combining (Kung et al., ASPLOS 2019, section 3) without its pruning of conflicts.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
OPEN = 16  # merged columns that another one may still join; it bounds the search


def merge_columns(nonzero: Array, side: int, lanes: int) -> list[list[list[int]]]:
    """Of a mask [rows, columns], per strip of `side` rows: groups of at most `lanes` columns, no two with a common nonzero row.

    Columns without nonzero elements are left out. First fit, fuller columns first; where `OPEN` groups are open, the fullest is
    closed for a new one. A group's columns ascend, and groups are in the order of their first column.
    """
    found = []
    for groups in _group_of(nonzero, side, lanes):
        columns = np.flatnonzero(groups >= 0)
        order = np.argsort(groups[columns], kind="stable")
        parts = np.split(columns[order], np.flatnonzero(np.diff(groups[columns][order])) + 1) if len(columns) else []
        found.append(sorted([int(c) for c in part] for part in parts))
    return found


def merged_counts(nonzero: Array, side: int, lanes: int) -> list[int]:
    """How many groups `merge_columns` makes of every strip."""
    return [int(groups.max(initial=-1)) + 1 for groups in _group_of(nonzero, side, lanes)]


def _group_of(nonzero: Array, side: int, lanes: int) -> Array:
    """[strips, columns]: the number of the group that a column is in, -1 for none."""
    strips = np.pad(nonzero, ((0, -len(nonzero) % side), (0, 0))).reshape(-1, side, nonzero.shape[1])
    weight = strips.sum(axis=1)
    groups = np.where(weight > 0, np.cumsum(weight > 0, axis=1) - 1, -1)
    least = np.where(weight > 0, weight, side).min(axis=1)
    mergeable = (2 * least <= side) & (lanes > 1)  # in the others no two columns fit together
    if mergeable.any():
        groups[mergeable] = _first_fit(strips[mergeable], weight[mergeable], lanes)
    return groups


def _first_fit(strips: Array, weight: Array, lanes: int) -> Array:
    """The same for strips [strips, side, columns], all of them a column at a time; `weight` counts the nonzero rows."""
    count = len(strips)
    bits = _words(strips)
    order = np.argsort(-weight, axis=1, kind="stable")
    groups, made = np.full(weight.shape, -1), np.zeros(count, np.int64)
    taken = np.zeros((count, OPEN, bits.shape[2]), np.uint64)
    size, filled, number = (np.zeros((count, OPEN), np.int64) for _ in range(3))
    for rank in range(int((weight > 0).sum(axis=1).max())):
        strip = np.flatnonzero(weight[np.arange(count), order[:, rank]])
        column = order[strip, rank]
        mask = bits[strip, column]
        sizes = size[strip]
        free = (sizes == 0) | (sizes == lanes)
        fits = ~(taken[strip] & mask[:, None]).any(axis=2) & ~free
        joins = fits.any(axis=1)
        slot = np.where(joins, fits.argmax(axis=1), np.where(free, weight.max() + 1, filled[strip]).argmax(axis=1))
        at = (strip, slot)
        taken[at] = np.where(joins[:, None], taken[at] | mask, mask)
        filled[at] = np.where(joins, filled[at], 0) + weight[strip, column]
        size[at] = np.where(joins, size[at], 0) + 1
        number[at] = np.where(joins, number[at], made[strip])
        made[strip] += ~joins
        groups[strip, column] = number[at]
    return groups


def _words(strips: Array) -> Array:
    """The rows of every column as bits, [strips, columns, words of 64]."""
    packed = np.packbits(np.moveaxis(strips, 1, 2), axis=2, bitorder="little")
    full = np.pad(packed, ((0, 0), (0, 0), (0, -packed.shape[2] % 8)))
    return np.ascontiguousarray(full).view(np.uint64)
