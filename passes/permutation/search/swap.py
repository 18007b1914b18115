"""Swaps of two channels, the best first (Ji et al., TETRIS, NeurIPS 2018; Pool and Yu, NeurIPS 2021)."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparsec.passes.permutation.search.arrangement import Arrangement, Clock
from sparsec.passes.permutation.search.escape import escape
from sparsec.passes.permutation.search.pairs import pair_gains

Array = np.ndarray[Any, Any]
_WORK = 1 << 32  # numbers compared a sweep: of larger classes a sweep takes random slots
_STALE = 3  # such sweeps without a gain after which a search has converged


def improve(state: Arrangement, rng: np.random.Generator, clock: Clock) -> None:
    """Sweeps over all slots, or random ones of large classes; then escapes."""
    most = max(64, int((_WORK / max(1, state.work)) ** 0.5 * state.items))
    clock.progress("swap: pairs of channels")
    failures = 0
    while failures < (_STALE if most < state.items else 1) and state.gains and not clock.over():
        slots = np.sort(rng.permutation(state.items)[:most])
        failures = 0 if swap_within(state, slots, clock) else failures + 1

    def again() -> None:
        swap_within(state, np.arange(state.items), clock)

    escape(state, rng, clock, again)


def swap_within(state: Arrangement, slots: Array, clock: Clock) -> bool:
    """Swap items of `slots` (ascending) until no swap of two keeps more; whether any did.

    Swaps that are made together share no group; what the others would gain is computed anew only for the groups that changed.
    """
    gained, dirty = False, np.arange(len(slots))
    tables = [np.zeros((len(slots), len(slots))) for _ in state.gains]
    items = state.order[slots]  # of the columns, which stay
    while not clock.over():
        state.prepare()
        for gain, table in zip(state.gains, tables, strict=True):
            rows = np.arange(len(slots)) if gain.joint else dirty
            table[rows] = gain.table(state.order, slots[rows], items)
        column = np.argsort(items)[np.searchsorted(np.sort(items), state.order[slots])]
        pairs = _disjoint(state, slots, pair_gains(state, slots, [t[:, column] for t in tables]))
        while len(pairs):
            places = pairs.reshape(-1)
            if state.move(slots[places], state.order[slots[pairs[:, ::-1].reshape(-1)]]):
                break
            pairs = pairs[: len(pairs) // 2]  # where groups compete, fewer at once can still gain
        if not len(pairs):
            return gained
        gained = True
        touched = [np.isin(of[slots], of[slots[places]]) for of in state.partitions]
        dirty = np.flatnonzero(np.any(touched, axis=0))
    return gained


def _disjoint(state: Arrangement, slots: Array, gains: Array) -> Array:
    """The best swaps of which no two share a group: [swaps, 2], places in `slots`."""
    left, right = np.nonzero(np.triu(gains > state.least, 1))
    found: list[tuple[int, int]] = []
    used = [np.zeros(int(of.max()) + 1, bool) for of in state.partitions]
    for k in np.argsort(-gains[left, right], kind="stable")[: 64 * len(slots)]:
        pair = slots[[left[k], right[k]]]
        if not any(u[of[pair]].any() for u, of in zip(used, state.partitions, strict=True)):
            found.append((int(left[k]), int(right[k])))
            for u, of in zip(used, state.partitions, strict=True):
                u[of[pair]] = True
    return np.array(found, dtype=np.int64).reshape(-1, 2)
