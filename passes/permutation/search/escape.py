"""Leave a local optimum: disturb a few groups, improve again, and keep what is better (iterated local search)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sparsec.passes.permutation.search.arrangement import Arrangement, Clock

_GROUPS = 2  # that are mixed: of 2, 3 and 4, the best for 2:4 on 128 x 64
_WORK = 1 << 29  # for large classes, as many escapes as this work takes
_USUAL_WIDTH = 4  # of groups: in wider ones an escape takes longer and gains less


def escape(state: Arrangement, rng: np.random.Generator, clock: Clock, improve: Callable[[], None]) -> None:
    """Mix the items of random groups of the finest partition and `improve`, `clock.escapes` times at most; the best stays."""
    width = max((g.groups.width for g in state.gains), default=1)
    count = int(min(clock.escapes, _WORK // max(1, state.work)) * min(1.0, _USUAL_WIDTH / width) ** 2)
    if not state.partitions or not count:
        return
    of = state.partitions[-1]
    best, order = state.value, state.order
    clock.progress(f"up to {count} escapes")
    for _ in range(count):
        if clock.over() or of.max() < 1:
            break
        slots = np.flatnonzero(np.isin(of, rng.choice(int(of.max()) + 1, min(_GROUPS, int(of.max()) + 1), replace=False)))
        mixed = order.copy()
        mixed[slots] = order[rng.permutation(slots)]
        state.put(mixed)
        improve()
        if (value := state.value) > best + state.least:
            best, order = value, state.order
    state.put(order)
