"""Leave a local optimum: disturb a few groups, improve again, and keep what is better (iterated local search)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sparsec.passes.permutation.search.arrangement import Arrangement, Clock
from sparsec.passes.permutation.search.pairs import swap_exactly

_GROUPS = 2  # that are mixed: of 2, 3 and 4, the best for 2:4 on 128 x 64
_SMALL = 1 << 19  # work of a class up to which it gets all escapes; of more work they cost more and gain less
_EACH = 10  # escapes for a pair of groups, of which small classes have few
_USUAL_WIDTH = 4  # of groups: in wider ones an escape takes longer and gains less


def escape(state: Arrangement, rng: np.random.Generator, clock: Clock, improve: Callable[[], None]) -> None:
    """Mix the items of random groups of the finest partition and `improve`, `clock.escapes` times at most; the best stays.

    Where blocks may not leave rows and columns empty, swaps that are judged exactly follow, here and at first.
    """
    if not state.partitions:
        return
    swap_exactly(state, clock)
    of, width = state.partitions[-1], max(g.groups.width for g in state.gains)
    count = min(clock.escapes, _EACH * int(of.max()) ** 2)
    count = int(count * min(1.0, _SMALL / max(1, state.work)) ** 2 * min(1.0, _USUAL_WIDTH / width) ** 2)
    if not count:
        return
    best, order = state.value, state.order
    clock.progress(f"up to {count} escapes")
    for _ in range(count):
        if clock.over():
            break
        slots = np.flatnonzero(np.isin(of, rng.choice(int(of.max()) + 1, _GROUPS, replace=False)))
        mixed = order.copy()
        mixed[slots] = order[rng.permutation(slots)]
        state.put(mixed)
        improve()
        swap_exactly(state, clock)
        if (value := state.value) > best + state.least:
            best, order = value, state.order
    state.put(order)
