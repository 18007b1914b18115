"""What blocks keep: groups of a class compete for the number of blocks that stay, and no row or column of blocks may be empty."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sparsec.passes.permutation.search.gains import CACHED, Measure, sum_of_larger
from sparsec.passes.pruning.cover import best_blocks

Array = np.ndarray[Any, Any]
_BIDS = 4  # a line, until every line should have found a group
_RAISE = 1e-3  # share of the price by which a bid exceeds what is needed


@dataclass
class LargestBlocks(Measure):
    """The `keep` blocks of all groups and of `others` [..., D], which the class does not touch, that hold the most together.

    The D numbers of a group are [taps, lines]: of a class of outputs, groups are rows of blocks and lines their columns; of a
    class of inputs it is the other way round. No group and no line stays empty (see `pruning.cover`).

    With a price for each block that is kept, groups do not depend on each other (Lagrange multipliers): a block is worth what it
    holds beyond the price, the mean of the last block that is kept and the first one that is not. Where lines would stay empty,
    their blocks are cheaper, so that they find a group (an auction), and a group keeps its best block whatever that is worth.
    """

    keep: int
    taps: int
    others: Array
    price: Array = field(default_factory=lambda: np.zeros(1, np.float32), init=False)
    slack: float = field(default=0.0, init=False)
    forced: bool = field(default=False, init=False)
    _level: float | None = field(default=None, init=False)
    joint = True

    def of(self, sums: Array) -> Array:
        """Worth beyond the prices."""
        return worth_beyond(sums - self.price, self.forced)

    def table(self, rest: Array, more: Array, sample: Array | None = None) -> Array:
        """max(0, rest + x - price) = max(x, price - rest) - (price - rest)."""
        return table_beyond(self.price - rest, more, self.forced)

    def prepare(self, sums: Array) -> None:
        """Set the prices, and by how much the sum of what groups are worth by them exceeds what is kept (`slack`)."""
        every = self._all(sums)
        cover = best_blocks(every, self.keep, self._level)
        self.forced, self._level = cover.forced, cover.price if cover.forced else None
        rebate = _rebates(every, cover.price) if cover.forced else np.zeros(every.shape[2])
        self.price = np.tile(cover.price - rebate, self.taps).astype(np.float32)
        paid = cover.price * int(cover.kept.sum()) - float(rebate.sum())
        worth = float(self.of(every.reshape(len(every), -1)).sum()) + paid
        self.slack = worth - float(every.sum(where=cover.kept, dtype=np.float64))

    def total(self, sums: Array) -> float:
        """What is kept, exactly."""
        every = self._all(sums)
        return float(every.sum(where=best_blocks(every, self.keep, self._level).kept, dtype=np.float64))

    def _all(self, sums: Array) -> Array:
        """[groups, taps, lines]"""
        return np.concatenate([sums, self.others]).reshape(len(sums) + len(self.others), self.taps, -1)


def worth_beyond(beyond: Array, forced: bool) -> Array:
    """What groups keep that hold so much beyond the prices [..., D]: what pays, or with `forced` one block at least."""
    found = np.asarray(np.maximum(beyond, 0).sum(axis=-1, dtype=np.float64))
    return np.asarray(found + np.minimum(beyond.max(axis=-1), 0)) if forced else found


def table_beyond(need: Array, more: Array, forced: bool) -> Array:
    """The same of more[j] - need[i], [i, j]."""
    found = np.asarray(sum_of_larger(more, need) - need.sum(axis=1, dtype=np.float64)[:, None])
    if forced:
        step = max(1, CACHED // max(1, more.size))
        for at in range(0, len(need), step):
            best = (more - need[at : at + step, None]).max(axis=-1)
            found[at : at + step] += np.minimum(best, 0)
    return found


def _rebates(worth: Array, price: float) -> Array:
    """How much cheaper the blocks of each line must be for one to be kept, with groups that take what pays, and one at least."""
    best = worth.max(axis=1)  # [groups, lines]
    rebate, step = np.zeros(worth.shape[2]), _RAISE * max(price, 1e-30)
    for _ in range(_BIDS * len(rebate)):
        pays = best - price + rebate
        taken = pays > 0
        poor = np.flatnonzero(~taken.any(axis=1))
        taken[poor, pays[poor].argmax(axis=1)] = True
        empty = np.flatnonzero(~taken.any(axis=0))
        if not len(empty):
            break
        line = empty[0]
        missing = np.minimum(pays.max(axis=1), 0.0) - pays[:, line]  # what a group's own choice is better by
        rebate[line] += max(float(missing.min()), 0.0) + step
    return rebate
