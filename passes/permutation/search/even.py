"""What n:m of blocks keeps: every row of blocks n of m, and no column of blocks may be empty."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sparsec.compiler.sparsity import Block
from sparsec.passes.permutation.search.blocks import table_beyond, worth_beyond
from sparsec.passes.permutation.search.gains import Groups, LargestOf, Measure, OfSums
from sparsec.passes.pruning.even import Even, even_blocks

Array = np.ndarray[Any, Any]


@dataclass
class EvenRows(Measure):
    """Of a class of outputs, whose groups are rows of blocks: the `n` largest of every `m` of their `columns`.

    Numbers are [m, taps, groups of columns]. `others` [..., D] are rows that the class does not touch. Rows do not depend on each
    other unless a column would be empty: what one of them keeps is then too much (`slack`), and only the total is exact.
    """

    n: int
    m: int
    taps: int
    columns: int
    others: Array
    slack: float = field(default=0.0, init=False)
    forced: bool = field(default=False, init=False)
    joint = True

    def of(self, sums: Array) -> Array:
        """As if columns could be empty."""
        return LargestOf(self.n, self.m).of(sums)

    def prepare(self, sums: Array) -> None:
        """By how much the sum of what rows keep exceeds the total."""
        worth, found = self._cover(sums)
        free = float(self.of(np.concatenate([sums, self.others])).sum())
        self.forced, self.slack = found.forced, free - float(worth.sum(where=found.kept, dtype=np.float64))

    def total(self, sums: Array) -> float:
        """What is kept, exactly."""
        worth, found = self._cover(sums)
        return float(worth.sum(where=found.kept, dtype=np.float64))

    def _cover(self, sums: Array) -> tuple[Array, Even]:
        every = np.concatenate([sums, self.others])
        apart = np.moveaxis(every.reshape(len(every), self.m, self.taps, -1), 1, -1)
        worth = apart.reshape(len(every), self.taps, -1)[..., : self.columns]
        return worth, even_blocks(worth, self.n, self.m)


@dataclass(eq=False)
class EvenColumns(OfSums):
    """Of a class of inputs, whose groups are columns of blocks, `m` consecutive ones of which share every row: `n` are kept.

    Numbers are [taps, rows of blocks]. `padding`: how many of the last columns there are not.

    With a price for each row and m columns, columns do not depend on each other (Lagrange multipliers): a block is worth what it
    holds beyond the price, the mean of the last block that is kept and the first one that is not. That is never too little.
    What all columns keep is exact.
    """

    groups: Groups
    features: Array
    n: int
    m: int
    taps: int
    padding: int
    price: Array = field(init=False)
    _slack: float = field(default=0.0, init=False)
    _forced: bool = field(default=False, init=False)
    joint, effort = True, 2

    def __post_init__(self) -> None:
        self.price = np.zeros((len(self.groups.members) // self.m, self.width), np.float32)

    @classmethod
    def of(cls, together: Groups, features: Array, pattern: Block, taps: int, padding: int) -> EvenColumns:
        """From groups of the channels that are decided on together."""
        members = together.members.reshape(-1, pattern.bc)
        column = np.empty(len(together.of), np.int64)
        own = members >= 0
        column[members[own]] = np.nonzero(own)[0]
        return cls(Groups(column, members), features, pattern.n_keep, pattern.m_group, taps, padding)

    @property
    def forced(self) -> bool:
        """Whether a column would be empty."""
        return self._forced

    @property
    def slack(self) -> float:
        """By how much the values of columns exceed what all of them keep, prices paid."""
        return self._slack

    def of_rows(self, rows: Array) -> Array:
        """By the mean prices: rows do not tell in which columns they are."""
        return worth_beyond(self.sums(rows) - self.price.mean(axis=0), self._forced)

    def values(self, order: Array, groups: Array) -> Array:
        """Worth beyond the prices."""
        return worth_beyond(self.sums(self.groups.rows(order, groups)) - self.price[groups // self.m], self._forced)

    def with_each(self, groups: Array, rest: Array, more: Array, sample: Array | None = None) -> Array:
        """max(0, rest + x - price) = max(x, price - rest) - (price - rest)."""
        return table_beyond(self.price[groups // self.m] - rest, more, self._forced)

    def all_values(self, order: Array) -> Array:
        """What every m columns keep, exactly."""
        return self._kept(order, np.arange(len(self.price)))

    def updated(self, values: Array, order: Array, groups: Array) -> Array:
        """The same for those m columns that have a group which changed."""
        after, changed = values.copy(), np.unique(groups // self.m)
        after[changed] = self._kept(order, changed)
        return after

    def prepare(self, order: Array) -> None:
        """Set the prices."""
        sums = self.all_sums(order)
        descending = -np.sort(-sums.reshape(len(self.price), self.m, -1), axis=1)
        self.price = (descending[:, self.n - 1] + descending[:, self.n]) / 2
        if self.padding >= self.m - self.n:  # the last ones are kept whatever they hold
            self.price[-1] = 0
        worth, found = self._cover(sums, np.arange(len(self.price)))
        self._forced = found.forced
        paid = self.n * float(self.price.sum(dtype=np.float64))
        values = worth_beyond(sums - self.price.repeat(self.m, axis=0), self._forced)[: worth.shape[2]]
        self._slack = float(values.sum()) + paid - float(worth.sum(where=found.kept, dtype=np.float64))

    def _kept(self, order: Array, together: Array) -> Array:
        """What some m columns keep."""
        columns = (together[:, None] * self.m + np.arange(self.m)).reshape(-1)
        worth, found = self._cover(self.sums(self.groups.rows(order, columns)), together)
        each = np.zeros(len(columns))
        each[: worth.shape[2]] = worth.sum(axis=(0, 1), where=found.kept, dtype=np.float64)
        return np.asarray(each.reshape(-1, self.m).sum(axis=1))

    def _cover(self, sums: Array, together: Array) -> tuple[Array, Even]:
        last = bool(len(together)) and together[-1] == len(self.price) - 1
        worth = sums.reshape(len(sums), self.taps, -1).transpose(2, 1, 0)[..., : len(sums) - last * self.padding]
        return worth, even_blocks(worth, self.n, self.m)
