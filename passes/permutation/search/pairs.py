"""What swapping two items is worth: by tables, and exactly where these mislead."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparsec.passes.permutation.search.arrangement import Arrangement, Clock

Array = np.ndarray[Any, Any]
_WORK = 1 << 25  # of a class: in larger ones the exact value of a swap takes long, and a block more or less matters little
_MOST = 64  # pairs that are judged exactly before a search gives up


def pair_gains(state: Arrangement, slots: Array, tables: list[Array]) -> Array:
    """What swapping the items of two slots would gain: [slots, slots]. A swap inside a group changes nothing of it."""
    total = np.zeros((len(slots), len(slots)))
    for gain, table in zip(state.gains, tables, strict=True):
        own = np.diagonal(table)
        more = table - own[:, None]
        of = gain.groups.of[slots]
        total += np.where(of[:, None] == of, 0.0, more + more.T)
    return total


def swap_exactly(state: Arrangement, clock: Clock) -> None:
    """Swap two items while all parts together keep more, where blocks compete for rows and columns that may not be empty.

    Tables say there what a swap gains at most, up to `slack`: pairs that cannot gain are not tried.
    """
    every, changed = np.arange(state.items), state.work <= _WORK
    while changed and state.forced and not clock.over():
        state.prepare()
        slack = sum(g.slack for g in state.gains)
        worth = pair_gains(state, every, [g.table(state.order, every, state.order) for g in state.gains])
        left, right = np.nonzero(np.triu(_apart(state) & (worth + slack > state.least), 1))
        best = np.argsort(-worth[left, right], kind="stable")[:_MOST]
        changed = any(_swap(state, np.array([left[k], right[k]])) for k in best if not clock.over())


def _swap(state: Arrangement, slots: Array) -> bool:
    return state.move(slots, state.order[slots[::-1]])


def _apart(state: Arrangement) -> Array:
    """Which two slots some part has in different groups: [items, items]."""
    found = np.zeros((state.items, state.items), bool)
    for of in state.partitions:
        found |= of[:, None] != of
    return found
