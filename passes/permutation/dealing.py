"""Orders in which work is dealt out evenly: a search that swaps two items at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
_LEAST = 1e-9  # of the sum of squares, that a swap has to gain


@dataclass(frozen=True, eq=False)
class Deal:
    """Places dealt out to groups, `groups` int [items] by place, and what each item brings to its group: `work` float [items, n],
    n kinds of work that have to be even each."""

    groups: Array
    work: Array

    def sums(self, order: Array) -> Array:
        """The work of each group, [groups, n], where place i has item order[i]."""
        found = np.zeros((int(self.groups.max()) + 1, self.work.shape[1]))
        np.add.at(found, self.groups, self.work[order])
        return found

    def unevenness(self, order: Array) -> float:
        """The sum of squares of the groups' work: least where groups of one size have the same."""
        return float(np.square(self.sums(order)).sum())

    @cached_property
    def _gram(self) -> Array:
        """The work of each item beside that of each, [items, items]: as many kinds of work as there are, once for all swaps."""
        return np.asarray(self.work @ self.work.T)

    def gains(self, order: Array) -> Array:
        """By how much the sum of squares changes when two places swap their items, float [items, items].

        With d = work[b] - work[a] and sums S of the groups, the change is 2 d . (S[group a] - S[group b]) + 2 d . d.
        """
        gram, groups = self._gram[order[:, None], order], self.groups
        members = (groups[:, None] == np.arange(groups.max() + 1)).astype(float)
        seen = (gram @ members)[:, groups]  # [i, j]: the work of place i beside that of the group of place j
        own = np.diagonal(seen)
        apart = seen + seen.T - own[:, None] - own[None, :]
        squares = np.diagonal(gram)[:, None] + np.diagonal(gram)[None, :] - 2 * gram
        found: Array = np.where(groups[:, None] == groups[None, :], 0.0, 2 * (apart + squares))
        return found


def dealt(deals: Sequence[Deal]) -> Array:
    """An order of the items, int [items]: place i has item order[i]. From the present one on, the swap that makes the work of all
    groups most even is made, until none does."""
    items = len(deals[0].groups)
    order, whole = np.arange(items), max(sum(deal.unevenness(np.arange(items)) for deal in deals), 1.0)
    while True:
        gains = sum((deal.gains(order) for deal in deals), np.zeros((items, items)))
        a, b = divmod(int(gains.argmin()), items)
        if gains[a, b] > -_LEAST * whole:
            return order
        order[[a, b]] = order[[b, a]]
