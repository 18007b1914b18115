"""Blocks of single taps by optimal brain surgery: greedy elimination, then exchanges while they lower the layer's error.

A row of blocks shares one support, and rows are independent given the inputs' second moments; only the number of blocks that stay
is common to all rows. With n:m of blocks, each group of m keeps n by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsec.compiler.sparsity import Block
from sparsec.compiler.sparsity.base import padded
from sparsec.passes.pruning.calibrated.obs import LARGEST, drop, inverse

Array = np.ndarray[Any, Any]
_GAIN = 1e-4  # share of what an exchange costs that it must win at least


@dataclass(frozen=True)
class Blocks:
    """A layer in blocks: w [block rows, br, K] and a [K, K], K padded with columns that are never read."""

    w: Array
    a: Array
    width: int

    @classmethod
    def of(cls, w: Array, a: Array, taps: int, pattern: Block) -> Blocks:
        """From w [rows, taps * channels] and a of as many columns."""
        channels = w.shape[1] // taps
        rows = padded(padded(w.reshape(len(w), taps, channels), 0, pattern.br), 2, pattern.bc)
        real = padded(np.ones((taps, channels), bool), 1, pattern.bc).reshape(-1)
        full = np.eye(real.size) * float(np.diagonal(a).mean())
        full[np.ix_(real, real)] = a
        return cls(rows.reshape(-1, pattern.br, real.size), full, pattern.bc)

    @property
    def columns(self) -> Array:
        """[blocks of a row, width] column numbers."""
        return np.arange(self.a.shape[0]).reshape(-1, self.width)


def elimination_order(blocks: Blocks, group_of: Array | None = None, n: int = 0) -> Array:
    """How late each block goes, [block rows, blocks of a row], 0 for the first one.

    Every row loses the block that costs least, again and again; rows merge in order of what that costs. With `group_of` each
    block of a row, groups of which `n` are left lose no more: these go last. Layers of many columns are compared once, as they
    are.
    """
    inv = inverse(blocks.a)
    group_of = np.arange(len(blocks.columns)) if group_of is None else group_of
    costs = np.stack([_costs_in_turn(w.copy(), inv.copy(), blocks.columns, group_of, n) for w in blocks.w])
    ranks = np.empty(costs.size, np.int64)
    ranks[np.argsort(costs.reshape(-1), kind="stable")] = np.arange(costs.size)
    return ranks.reshape(costs.shape)


def _costs_in_turn(w: Array, inv: Array, columns: Array, group_of: Array, n: int) -> Array:
    """What each block of a row costs when its turn comes, made ascending in that order; infinite where its turn never comes.

    `w` and `inv` are overwritten.
    """
    if inv.shape[0] > LARGEST:
        return block_costs(w, inv, columns)
    costs, width = np.full(len(columns), np.inf), columns.shape[1]
    alive, highest, members = np.arange(len(columns)), 0.0, np.bincount(group_of)
    for left in range(len(columns), 0, -1):  # blocks that are left stand in front, so that products get smaller
        end = left * width
        w, inv = w[:, :end], inv[:end, :end]
        free = members[group_of[alive[:left]]] > n
        if not free.any():
            break
        found = np.where(free, block_costs(w, inv, columns[:left]), np.inf)
        first = int(found.argmin())
        members[group_of[alive[first]]] -= 1
        highest = max(highest, float(found[first]))
        costs[alive[first]] = highest
        drop(w, inv, columns[first])
        last, place = slice(end - width, end), slice(first * width, (first + 1) * width)
        alive[first], w[:, place] = alive[left - 1], w[:, last]
        inv[place], inv[:, place] = inv[last], inv[:, last]
    return costs


def block_costs(w: Array, inv: Array, columns: Array) -> Array:
    """w_B (Hinv_BB)^-1 w_B' of every block B in columns [blocks, width]."""
    inner = inv[columns[:, :, None], columns[:, None, :]]
    parts = w[:, columns].transpose(1, 2, 0)  # [blocks, width, rows]
    return np.asarray((parts * np.linalg.solve(inner, parts)).sum(axis=(1, 2)))


class Exchange:
    """Trades a kept block for a dropped one, of the same row of blocks or another, while the layer's error falls.

    No row and no column of blocks (`column_of` says which one each block of a row is in) is emptied. With `group_of` each block
    of a row, trades are within a group of a row, and one that does not pay is not tried again until its row changes.
    """

    def __init__(self, blocks: Blocks, kept: Array, column_of: Array, group_of: Array | None = None) -> None:
        """`kept` [block rows, blocks of a row] is where the search starts, and is not changed."""
        self._blocks, self.kept, self._column_of, self._group_of = blocks, kept.copy(), column_of, group_of
        self._vain = np.zeros(kept.shape, bool)
        self._targets = blocks.w @ blocks.a
        self._gains, self._costs = np.zeros(kept.shape), np.zeros(kept.shape)
        for row in range(len(kept)):
            self._weigh(row)

    def run(self, limit: int) -> Array:
        """At most `limit` exchanges, those tried in vain included; the blocks that stay."""
        for _ in range(limit):
            if not self._once():
                break
        return self.kept

    def _once(self) -> bool:
        """Bring the block back that wins most, and drop the one that then costs least; undo that where it does not pay.

        False when there is nothing more to try.
        """
        gains = np.where(self.kept | self._vain, -np.inf, self._gains)
        come = np.unravel_index(gains.argmax(), gains.shape)
        gain = gains[come]
        if not gain > 0:
            return False
        self._set(come, True)
        costs = np.where(self.kept & self._spare() & self._partners(come), self._costs, np.inf)
        costs[come] = np.inf
        go = np.unravel_index(costs.argmin(), costs.shape)
        if not costs[go] < gain * (1 - _GAIN):
            self._set(come, False)
            self._vain[come] = True
            return self._group_of is not None
        self._set(go, False)
        self._vain[go[0]] = False
        return True

    def _set(self, block: tuple[Any, ...], kept: bool) -> None:
        self.kept[block] = kept
        self._weigh(int(block[0]))

    def _partners(self, block: tuple[Any, ...]) -> Array:
        """Which blocks may go for one that comes back."""
        if self._group_of is None:
            return np.ones(self.kept.shape, bool)
        found = np.zeros(self.kept.shape, bool)
        found[block[0]] = self._group_of == self._group_of[block[1]]
        return found

    def _spare(self) -> Array:
        """Which blocks are not the last ones of their row or column."""
        columns = np.zeros(int(self._column_of.max()) + 1, np.int64)
        np.add.at(columns, np.broadcast_to(self._column_of, self.kept.shape)[self.kept], 1)
        return np.asarray((self.kept.sum(axis=1, keepdims=True) > 1) & (columns[self._column_of] > 1))

    def _weigh(self, row: int) -> None:
        """What dropping each kept block of a row costs, and what each dropped one would win, refitted."""
        a, columns, kept = self._blocks.a, self._blocks.columns, self.kept[row]
        inside, outside = columns[kept].reshape(-1), columns[~kept]
        inv = inverse(a[np.ix_(inside, inside)])
        w = self._targets[row][:, inside] @ inv
        self._costs[row, kept] = block_costs(w, inv, np.arange(len(inside)).reshape(-1, self._blocks.width))
        if len(outside):
            across = a[np.ix_(inside, outside.reshape(-1))]
            missing = (self._targets[row][:, outside.reshape(-1)] - w @ across).reshape(len(w), *outside.shape)
            parts = across.reshape(len(inside), *outside.shape).transpose(1, 0, 2)  # [blocks, inside, width]
            inner = a[outside[:, :, None], outside[:, None, :]] - parts.transpose(0, 2, 1) @ (inv @ parts)
            residual = missing.transpose(1, 2, 0)
            self._gains[row, ~kept] = (residual * np.linalg.solve(inner, residual)).sum(axis=(1, 2))
