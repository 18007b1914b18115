"""Merging columns that have no nonzero row in common.

This is column combining (Kung et al., ASPLOS 2019, section 3) without its pruning of conflicts.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
OPEN = 16  # merged columns that another one may still join; a bound on the search, not on the result's form


def merge_columns(nonzero: Array, side: int, lanes: int) -> list[list[list[int]]]:
    """Of a mask [rows, columns], per strip of `side` rows: groups of at most `lanes` columns, no two with a common nonzero row.

    Columns without nonzero elements are left out. First fit, fuller columns first, among the `OPEN` groups with the most room;
    a group's columns ascend, and groups are in the order of their first column.
    """
    return [_first_fit(nonzero[start : start + side], lanes) for start in range(0, nonzero.shape[0], side)]


def _first_fit(strip: Array, lanes: int) -> list[list[int]]:
    """Groups of columns of one strip."""
    weight = strip.sum(axis=0)
    columns = np.flatnonzero(weight)
    if lanes == 1 or 2 * int(weight[columns].min(initial=len(strip))) > len(strip):
        return [[int(c)] for c in columns]  # no two fit together
    bits = _as_integers(strip)
    groups: list[list[int]] = []
    open_: list[tuple[int, list[int]]] = []  # rows taken, columns
    for c in columns[np.argsort(-weight[columns], kind="stable")]:
        mask = bits[c]
        for i, (taken, group) in enumerate(open_):
            if not taken & mask:
                group.append(int(c))
                open_[i] = (taken | mask, group)
                if len(group) == lanes:
                    del open_[i]
                break
        else:
            group = [int(c)]
            groups.append(group)
            open_.append((mask, group))
            if len(open_) > OPEN:
                del open_[max(range(len(open_)), key=lambda j: open_[j][0].bit_count())]
    return sorted(sorted(g) for g in groups)


def _as_integers(strip: Array) -> list[int]:
    """Every column as an integer whose bits are its nonzero rows."""
    packed = np.packbits(strip, axis=0, bitorder="little")
    return [int.from_bytes(packed[:, c].tobytes(), "little") for c in range(strip.shape[1])]


def merged_counts(nonzero: Array, side: int, lanes: int) -> list[int]:
    """How many groups `merge_columns` makes of every strip."""
    return [len(groups) for groups in merge_columns(nonzero, side, lanes)]
