"""An order of a class's items, its value, and the moves that searches make."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np

from sparsec.passes.permutation.search.build import build_gains
from sparsec.passes.permutation.search.gains import Gain, Groups
from sparsec.passes.permutation.search.part import Part

Array = np.ndarray[Any, Any]
_LEAST = 1e-7  # share of what the parts hold: a smaller difference is rounding


@dataclass
class Clock:
    """When a search has to end: after `limit` seconds, and after `escapes` from local optima. Whom it tells how far it is."""

    limit: float | None
    progress: Callable[[str], None]
    escapes: int = 0
    start: float = field(default_factory=perf_counter)

    @property
    def seconds(self) -> float:
        """Since the start."""
        return perf_counter() - self.start

    def over(self) -> bool:
        """Whether the time is up."""
        return self.limit is not None and self.seconds >= self.limit


class Arrangement:
    """The items of a class in an order that moves improve. `order`[slot] is the item in a slot: `put` changes it."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.gains = build_gains(parts)
        self.partitions = _partitions([g.groups for g in self.gains])
        self.least = _LEAST * sum(float(p.saliency.sum(dtype=np.float64)) for p in parts) + 1e-30
        self.gained = 0.0  # by all moves
        self.put(np.arange(parts[0].items))

    @property
    def items(self) -> int:
        """Channels of the class."""
        return len(self.order)

    @property
    def work(self) -> int:
        """Numbers that are compared to judge every pair of slots: a measure of time that does not depend on the machine."""
        return self.items**2 * sum(g.width * g.effort for g in self.gains)

    @property
    def value(self) -> float:
        """What the parts keep whose value depends on the order."""
        return sum(float(v.sum()) for v in self._values)

    @property
    def forced(self) -> bool:
        """Whether blocks of some part had to be kept, when last prepared, so that no row or column of them is empty."""
        return any(g.forced for g in self.gains)

    def put(self, order: Array) -> None:
        """Take another order, whatever it is worth."""
        self.order = order
        self._values = [g.all_values(order) for g in self.gains]
        self.prepare()

    def prepare(self) -> None:
        """Before a series of moves: what depends on all groups at once."""
        for gain in self.gains:
            gain.prepare(self.order)

    def apart(self, slots: Array) -> Array:
        """Those of `slots`, the first ones first, of which no two are in one group of any part."""
        for of in self.partitions:
            first = np.unique(of[slots], return_index=True)[1]
            slots = slots[np.sort(first)]
        return slots

    def table(self, slots: Array, items: Array, sample: Callable[[Gain], Array | None] = lambda _: None) -> Array:
        """The value of the groups of each slot with each item in it, over all parts: float64 [slots, items]."""
        total = np.zeros((len(slots), len(items)))
        for gain in self.gains:
            total += gain.table(self.order, slots, items, sample(gain))
        return total

    def slot_gains(self, order: Array, slots: Array) -> Array:
        """What the groups of each slot keep more in another order: float64 [slots]."""
        more = np.zeros(len(slots))
        for gain, values in zip(self.gains, self._values, strict=True):
            of = gain.groups.of[slots]
            more += gain.values(order, of) - (gain.values(self.order, of) if gain.joint else values[of])
        return more

    def move(self, slots: Array, items: Array) -> bool:
        """Put `items` (those of the slots, in another order) into `slots` if that keeps more; whether it did."""
        order = self.order.copy()
        order[slots] = items
        after, more = [], 0.0
        for gain, values in zip(self.gains, self._values, strict=True):
            changed = gain.updated(values, order, np.unique(gain.groups.of[slots]))
            more += float(changed.sum() - values.sum())
            after.append(changed)
        if more <= self.least:
            return False
        self.order, self._values = order, after
        self.gained += more
        return True


def _partitions(groups: Sequence[Groups]) -> list[Array]:
    """The different ways in which parts group slots, the coarsest first."""
    found: dict[bytes, Array] = {g.of.tobytes(): g.of for g in groups}
    return sorted(found.values(), key=lambda of: int(of.max(initial=0)))
