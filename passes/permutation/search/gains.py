"""What a part keeps, group of channels by group of channels: the part of the objective that searches evaluate often.

Along an axis, a pattern decides about groups of consecutive channels: the m of n:m, the rows that share a choice, a block's rows
or columns, a tile. What is kept is a sum over groups of a value that depends on which channels are together, not on their places.
So a search needs the value of a slot's group with another item in the slot, for many slots and items at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from sparsec.passes.permutation.search.largest import largest, largest_sum

Array = np.ndarray[Any, Any]
CACHED = 1 << 16  # elements of temporaries that stay in a core's cache
_LINE = 1024  # features that are looked at together where there are many


@dataclass(frozen=True, eq=False)
class Groups:
    """Where the items of a class lie: slot s (its s-th place) belongs to group `of`[s].

    `members` [groups, width]: slots, or -1 - k for row k of what is added to the items' rows: row 0 is zero, the others are
    channels that the class does not own.
    """

    of: Array
    members: Array

    @property
    def width(self) -> int:
        """Channels of a group."""
        return int(self.members.shape[1])

    def rows(self, order: Array, groups: Array) -> Array:
        """Rows of the features that are together in each of `groups`: [groups, width]."""
        members = self.members[groups]
        return np.asarray(np.where(members >= 0, order[np.maximum(members, 0)], len(order) - 1 - members))

    def others(self, order: Array, slots: Array) -> Array:
        """The same for each slot's group without the slot's own item: [slots, width - 1]."""
        groups = self.of[slots]
        own = np.asarray(self.members[groups] == slots[:, None])
        place = np.argsort(own, axis=1, kind="stable")[:, :-1]
        return np.take_along_axis(self.rows(order, groups), place, axis=1)


class Gain(ABC):
    """Values of groups. `features` [items + fixed, D] float32: what each item brings, then a row of zeros and fixed channels."""

    groups: Groups
    features: Array
    joint = False  # whether what a group keeps depends on the other groups
    effort = 1  # time for a number, relative to n:m along the axis

    @property
    def forced(self) -> bool:
        """Whether blocks had to be kept, when last prepared, that are worth less than others."""
        return False

    @property
    def slack(self) -> float:
        """By how much the values of groups, when last prepared, exceed what all of them keep."""
        return 0.0

    @abstractmethod
    def of_rows(self, rows: Array) -> Array:
        """What groups of these rows of the features keep, rows [groups, width] -> float64 [groups]."""

    def values(self, order: Array, groups: Array) -> Array:
        """What each of `groups` keeps, float64 [groups]."""
        return self.of_rows(self.groups.rows(order, groups))

    def all_values(self, order: Array) -> Array:
        """What all groups keep, float64 [groups], or [1] where they compete."""
        return self.values(order, np.arange(len(self.groups.members)))

    def updated(self, values: Array, order: Array, groups: Array) -> Array:
        """`all_values` of an order, given those of one that differs in `groups` only."""
        after = values.copy()
        after[groups] = self.values(order, groups)
        return after

    @abstractmethod
    def table(self, order: Array, slots: Array, items: Array, sample: Array | None = None) -> Array:
        """What the group of each slot keeps with each of `items` in that slot, float64 [slots, items].

        `sample`: where an estimate will do, the features that are looked at, scaled to all.
        """

    def prepare(self, order: Array) -> None:  # noqa: B027 (most have nothing to do)
        """Take note of the order that searches start from (where values depend on all groups at once)."""

    @property
    def width(self) -> int:
        """Numbers that each item brings."""
        return int(self.features.shape[1])


@dataclass(eq=False)
class Selected(Gain):
    """Of every group, each feature keeps the `n` largest: n:m along the axis of the class."""

    groups: Groups
    features: Array
    n: int

    def of_rows(self, rows: Array) -> Array:
        """The n largest of every feature."""
        total = np.zeros(len(rows))
        step = max(1, CACHED // (self.groups.width * min(self.width, _LINE)))
        for at in range(0, len(rows), step):
            some = rows[at : at + step].T
            for part in _pieces(self.width, _LINE):
                together = self.features[:, part][some]
                total[at : at + step] += largest_sum(together, self.n).sum(axis=-1, dtype=np.float64)
        return total

    def table(self, order: Array, slots: Array, items: Array, sample: Array | None = None) -> Array:
        """Another item x adds max(0, x - t) to the n largest of the others, t being the least of these."""
        others = self.groups.others(order, slots).T
        found = np.zeros((len(slots), len(items)))
        step = max(64, min(512, CACHED // max(1, len(items))))
        for part in _pieces(self.width, step) if sample is None else _parts(sample, step):
            some = self.features[:, part]
            total, least = largest(some[others], self.n)
            found += (total - least).sum(axis=1, dtype=np.float64)[:, None]
            found += sum_of_larger(some[items], least)
        return found if sample is None else found * (self.width / len(sample))


class OfSums(Gain):
    """Groups keep something of the sum of their items: patterns that many channels share."""

    def sums(self, rows: Array) -> Array:
        """The sum of the items of each group, rows [groups, width] -> [groups, D]."""
        groups, width = rows.shape
        ones, begin = np.ones(rows.size, np.float32), np.arange(0, rows.size + 1, width)
        chosen = csr_array((ones, rows.reshape(-1), begin), shape=(groups, len(self.features)))
        return np.asarray(chosen @ self.features)

    @abstractmethod
    def with_each(self, groups: Array, rest: Array, more: Array, sample: Array | None = None) -> Array:
        """What groups[i] keeps of rest[i] + more[j], float64 [i, j]; `sample` as of `table`."""

    def table(self, order: Array, slots: Array, items: Array, sample: Array | None = None) -> Array:
        """Of the sum of the others and each item."""
        groups, group = np.unique(self.groups.of[slots], return_inverse=True)
        rest = self.sums(self.groups.rows(order, groups))[group] - self.features[order[slots]]
        return self.with_each(groups[group], rest, self.features[items], sample)

    def all_sums(self, order: Array) -> Array:
        """The sums of all groups."""
        return self.sums(self.groups.rows(order, np.arange(len(self.groups.members))))


@dataclass(eq=False)
class Summed(OfSums):
    """A `measure` of the sums."""

    groups: Groups
    features: Array
    measure: Measure

    def __post_init__(self) -> None:
        self.joint, self.effort = self.measure.joint, self.measure.effort

    @property
    def forced(self) -> bool:
        """As the measure says."""
        return self.measure.forced

    @property
    def slack(self) -> float:
        """As the measure says."""
        return self.measure.slack

    def of_rows(self, rows: Array) -> Array:
        """The measure of the sums."""
        step = max(1, CACHED // max(1, self.width))
        values = [self.measure.of(self.sums(rows[at : at + step])) for at in range(0, len(rows), step)]
        return np.concatenate([np.zeros(0), *values])

    def all_values(self, order: Array) -> Array:
        """One value, and exact, where groups compete."""
        return np.array([self.measure.total(self.all_sums(order))]) if self.joint else super().all_values(order)

    def updated(self, values: Array, order: Array, groups: Array) -> Array:
        """All of it where groups compete."""
        return self.all_values(order) if self.joint else super().updated(values, order, groups)

    def with_each(self, groups: Array, rest: Array, more: Array, sample: Array | None = None) -> Array:
        """By the measure."""
        return self.measure.table(rest, more, sample)

    def prepare(self, order: Array) -> None:
        """Blocks: how much the least important one that is kept holds."""
        if self.joint:
            self.measure.prepare(self.all_sums(order))


class Measure(ABC):
    """What is kept of a group's sum, a row of D numbers."""

    joint = False  # whether groups compete with each other
    effort = 2  # time for a number, relative to n:m along the axis
    slack = 0.0  # by how much the values of groups exceed what all of them keep
    forced = False  # whether something had to be kept, when last prepared, that is worth less than other things

    @abstractmethod
    def of(self, sums: Array) -> Array:
        """Float64 [...] of sums [..., D]."""

    def table(self, rest: Array, more: Array, sample: Array | None = None) -> Array:
        """The measure of rest[i] + more[j], [i, j]."""
        found = np.empty((len(rest), len(more)))
        step = max(1, CACHED // max(1, rest.shape[1]))
        for i, row in enumerate(rest):
            for at in range(0, len(more), step):
                found[i, at : at + step] = self.of(more[at : at + step] + row)
        return found

    def prepare(self, sums: Array) -> None:  # noqa: B027 (most have nothing to do)
        """Take note of the sums of all groups."""

    def total(self, sums: Array) -> float:
        """What all groups keep."""
        return float(self.of(sums).sum())


@dataclass(frozen=True)
class LargestOf(Measure):
    """The `n` largest of every `m` numbers; those that compete are D / m apart."""

    n: int
    m: int

    def of(self, sums: Array) -> Array:
        """Over groups of m."""
        apart = np.moveaxis(sums.reshape(*sums.shape[:-1], self.m, -1), -2, 0)
        return np.asarray(largest_sum(apart, self.n).sum(axis=-1, dtype=np.float64))


@dataclass(frozen=True)
class LargestVectors(Measure):
    """The `count` largest numbers of every tap: the vectors of a tile."""

    count: int
    taps: int
    effort = 8

    def of(self, sums: Array) -> Array:
        """By partial sorting."""
        each = sums.reshape(*sums.shape[:-1], self.taps, -1)
        drop = each.shape[-1] - self.count
        if drop == 0 or not self.count:
            return np.asarray(sums.sum(axis=-1, dtype=np.float64) * bool(self.count))
        return np.asarray(np.partition(each, drop, axis=-1)[..., drop:].sum(axis=(-2, -1), dtype=np.float64))

    def table(self, rest: Array, more: Array, sample: Array | None = None) -> Array:
        """For an estimate, with a price for each vector: that of the least one kept with the mean of what may come.

        Never too little (any price bounds the sum of the largest from above), and too much only by vectors near the price.
        """
        each = (rest + more.mean(axis=0)).reshape(len(rest), self.taps, -1)
        drop = each.shape[-1] - self.count
        if sample is None or drop == 0 or not self.count:
            return super().table(rest, more)
        price = np.partition(each, drop, axis=-1)[..., drop]
        need = np.repeat(price, each.shape[-1], axis=-1) - rest
        beyond = sum_of_larger(more[:, sample], need[:, sample]) - need[:, sample].sum(axis=1, dtype=np.float64)[:, None]
        found = beyond * (rest.shape[1] / len(sample)) + self.count * price.sum(axis=1, dtype=np.float64)[:, None]
        return np.asarray(found)


def sum_of_larger(x: Array, t: Array) -> Array:
    """Float64 [i, j]: the sum over d of max(x[j, d], t[i, d])."""
    found = np.empty((len(t), len(x)))
    step = max(64, min(512, CACHED // max(1, len(x))))
    for n, at in enumerate(range(0, x.shape[1], step)):
        some, other = np.ascontiguousarray(x[:, at : at + step]), t[:, at : at + step]
        larger, ones = np.empty_like(some), np.ones(some.shape[1], some.dtype)
        for i, row in enumerate(other):
            np.maximum(some, row, out=larger)
            found[i] = larger @ ones + (found[i] if n else 0.0)
    return found


def _pieces(width: int, step: int) -> list[slice]:
    return [slice(at, at + step) for at in range(0, width, step)]


def _parts(sample: Array, step: int) -> list[Array]:
    return [sample[at : at + step] for at in range(0, len(sample), step)]
