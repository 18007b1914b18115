"""Orders in which cores that share a layer's blocks of weights wait little for one another: a search that swaps two at a time.

Cores take blocks of outputs in turns, and those of a chain have parts of the inputs each, so that they wait, at every block of
outputs, for the one that has most. Which of these a layer's cores will do is not known yet: what they wait for is the mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import exp
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
_SHARED = {1: (4, 8, 16), 2: (2, 4, 8), 4: (1, 2, 4)}  # by cores of a chain, in how many turns they take blocks of outputs
_SWAPS, _MOST_SWAPS = 50, 2000  # that are tried for each item, and at most
_WARM = 2e-4  # of the blocks, that a swap may make worse when the search begins (simulated annealing)


def even(counts: Array) -> Array:
    """Numbers of blocks as cores take them: in pairs."""
    found: Array = counts + counts % 2
    return found


def waited(counts: Array) -> float:
    """The blocks that a layer's cores take or wait for, of its nonzero ones `counts` float [blocks of outputs, of inputs]: the
    mean of the ways to share them that it has enough blocks for."""
    return _mean(_most(counts))


def _most(counts: Array) -> dict[int, Array]:
    """By cores of a chain the blocks of the one that has most, for each block of outputs."""
    rows, inputs = counts.shape
    chains = [n for n in _SHARED if inputs % n == 0 and inputs >= 2 * n]
    return {n: even(counts.reshape(rows, n, -1).sum(axis=2)).max(axis=1) for n in chains}


def _mean(most: Mapping[int, Array]) -> float:
    """Blocks, where by cores of a chain the one that has most has so many, for each block of outputs."""
    found = []
    for chain, each in most.items():
        for n in _SHARED[chain]:
            if len(each) > n:
                turns = each if len(each) % n == 0 else np.pad(each, (0, -len(each) % n))
                found.append(chain * n * turns.reshape(-1, n).sum(axis=0).max())
    return float(sum(found) / len(found)) if found else 0.0


@dataclass(frozen=True, eq=False)
class Share:
    """A layer's nonzero blocks, `counts` float [blocks of outputs, of inputs]; items are its `outputs`, or its inputs, several
    blocks each if `at` int [items, n] says so."""

    counts: Array
    at: Array
    outputs: bool

    def ordered(self, order: Array) -> Array:
        """The blocks where place i has item order[i]."""
        blocks = np.arange(self.counts.shape[0 if self.outputs else 1])
        blocks[self.at.reshape(-1)] = self.at[order].reshape(-1)
        return self.counts[blocks] if self.outputs else self.counts[:, blocks]

    def waited(self, order: Array) -> float:
        """See `waited`."""
        if self.at.shape[1] > 1:
            return waited(self.ordered(order))
        most = self._most
        if self.outputs:
            blocks = np.arange(len(self.counts))
            blocks[self.at[:, 0]] = self.at[order, 0]
            return _mean({chain: each[blocks] for chain, each in most.items()})
        work = self._work[order]
        parts = {chain: even(self._others[chain] + members @ work).max(axis=0) for chain, members in self._members.items()}
        return _mean({chain: parts.get(chain, each) for chain, each in most.items()})

    @cached_property
    def _most(self) -> dict[int, Array]:
        """See `_most`: in the present order."""
        return _most(self.counts)

    @cached_property
    def _work(self) -> Array:
        """Of items that are inputs, their blocks for each block of outputs."""
        return np.ascontiguousarray(self.counts[:, self.at[:, 0]].T)

    @cached_property
    def _members(self) -> dict[int, Array]:
        """By cores of a chain, if these are several, which items are inputs of each, [cores, items]."""
        inputs = self.counts.shape[1]
        return {n: (self.at[:, 0] * n // inputs == np.arange(n)[:, None]).astype(float) for n in self._most if n > 1}

    @cached_property
    def _others(self) -> dict[int, Array]:
        """The same of inputs that are no items: their blocks, [cores, blocks of outputs]."""
        rows = len(self.counts)
        every = {n: self.counts.reshape(rows, n, -1).sum(axis=2).T for n in self._members}
        return {n: found - self._members[n] @ self._work for n, found in every.items()}


def shared(items: int, shares: Sequence[Share], rng: np.random.Generator) -> Array:
    """An order of so many items, int [items], in which cores wait least for one another, of those that were tried: from the
    present one on, swaps of two are made that let them wait less, and some that do not, fewer and fewer (simulated annealing;
    Kirkpatrick, Gelatt, Vecchi, Science 220, 1983)."""
    order = np.arange(items)
    best, now = order.copy(), sum(share.waited(order) for share in shares)
    least = now
    if now <= sum(float(share.counts.sum()) for share in shares):  # no core waits
        return best
    count = min(_SWAPS * items, _MOST_SWAPS)
    warm = _WARM * now
    for i, (a, b) in enumerate(rng.integers(0, items, (count, 2)).tolist()):
        order[[a, b]] = order[[b, a]]
        then = sum(share.waited(order) for share in shares)
        if then <= now or rng.random() < exp((now - then) / (warm * (1 - i / count) ** 2)):
            now = then
            if now < least:
                least, best = now, order.copy()
        else:
            order[[a, b]] = order[[b, a]]
    return best
