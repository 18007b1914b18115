"""Stripe groups: the best shares of the channels of two or three groups, wherever they are (Pool and Yu, NeurIPS 2021).

A stripe is a group of the finest partition: the m channels of n:m, a block's rows. The channels of two stripes, then of three,
are shared out in every possible way; where there are too many ways, single channels are swapped between the stripes.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import combinations
from math import comb, factorial
from typing import Any

import numpy as np

from sparsec.passes.permutation.search.arrangement import Arrangement, Clock
from sparsec.passes.permutation.search.escape import escape
from sparsec.passes.permutation.search.swap import swap_within

Array = np.ndarray[Any, Any]
_MOST_WAYS = 7000  # to share out: 35 for 8 channels in 2 stripes, 5,775 for 12 in 3, 6,435 for 16 in 2
_MOST_SETS = 20_000  # stripes taken together in a sweep, random ones of more
_WORK = 1 << 26  # numbers compared before the best of what was found is done


def improve(state: Arrangement, rng: np.random.Generator, clock: Clock) -> None:
    """Two stripes at a time, then three; then escapes."""
    stripes = _stripes(state)
    if len(stripes) < 2:
        return
    for count in (2, 3):
        if len(stripes) >= count and (count == 2 or _ways(count, stripes.shape[1]) <= _MOST_WAYS):
            clock.progress(f"stripe: groups of {count * stripes.shape[1]} channels")
            _share_out(state, stripes, count, rng, clock)
    escape(state, rng, clock, lambda: _share_out(state, stripes, 2, rng, clock))


def _stripes(state: Arrangement) -> Array:
    """Slots of the full groups of the finest partition, [stripes, width]."""
    if not state.gains:
        return np.zeros((0, 1), np.int64)
    gain = min(state.gains, key=lambda g: g.groups.width)
    members = gain.groups.members
    return members[(members >= 0).all(axis=1)]


def _ways(count: int, width: int) -> int:
    return int(factorial(count * width) // factorial(width) ** count // factorial(count))


def _share_out(state: Arrangement, stripes: Array, count: int, rng: np.random.Generator, clock: Clock) -> None:
    """Until no `count` stripes can be shared out better."""
    changed: Array = np.ones(len(stripes), np.int64)  # turn in which a stripe last changed
    seen: dict[tuple[int, ...], int] = {}  # turn in which stripes were last looked at in vain
    turn = 1
    while not clock.over():
        turn += 1
        state.prepare()
        todo = [s for s in _sets(len(stripes), count, rng) if changed[list(s)].max() > seen.get(s, 0)]
        before = changed.copy()
        for some in _batches(state, todo, stripes.shape[1], count):
            if clock.over():
                return
            for members in _do_best(state, stripes, some, clock):
                changed[list(members)] = turn
            for s in some:
                if changed[list(s)].max() < turn:
                    seen[s] = turn - 1
        if np.array_equal(before, changed):
            return


def _sets(stripes: int, count: int, rng: np.random.Generator) -> list[tuple[int, ...]]:
    if comb(stripes, count) <= _MOST_SETS:
        return list(combinations(range(stripes), count))
    drawn = np.sort(rng.integers(stripes, size=(_MOST_SETS, count)), axis=1)
    distinct = np.unique(drawn[(np.diff(drawn, axis=1) > 0).all(axis=1)], axis=0)
    return [tuple(map(int, s)) for s in rng.permutation(distinct)]


def _batches(state: Arrangement, sets: list[tuple[int, ...]], width: int, count: int) -> Iterator[list[tuple[int, ...]]]:
    enumerated = _ways(count, width) <= _MOST_WAYS
    each = sum(g.width for g in state.gains) * (comb(count * width, width) * width if enumerated else (count * width) ** 2)
    step = max(1, _WORK // max(1, each))
    for at in range(0, len(sets), step):
        yield sets[at : at + step]


def _do_best(state: Arrangement, stripes: Array, sets: list[tuple[int, ...]], clock: Clock) -> list[tuple[int, ...]]:
    """Share out the stripes of those `sets` that gain most and have none in common; which sets they are."""
    width, count = stripes.shape[1], len(sets[0])
    if _ways(count, width) > _MOST_WAYS:
        return [s for s in sets if not clock.over() and swap_within(state, np.sort(stripes[list(s)].reshape(-1)), clock)]
    slots = stripes[np.array(sets)].reshape(len(sets), -1)
    worth = _subset_values(state, state.order[slots], width)
    ways = _partitions(count, width)
    total = worth[:, ways[:, 0]]
    for column in ways.T[1:]:
        total += worth[:, column]
    best = total.argmax(axis=1)
    more = total[np.arange(len(sets)), best] - total[:, 0]
    done: list[tuple[int, ...]] = []
    used = np.zeros(len(stripes), bool)
    for k in np.argsort(-more, kind="stable"):
        if more[k] <= state.least:
            break
        if not used[list(sets[k])].any():
            places = _subsets(count * width, width)[ways[best[k]]].reshape(-1)
            if state.move(slots[k], state.order[slots[k]][places]):
                used[list(sets[k])] = True
                done.append(sets[k])
    return done


def _subset_values(state: Arrangement, items: Array, width: int) -> Array:
    """What each subset of a stripe's width of the items [sets, channels] keeps in the parts that have these stripes."""
    rows = items[:, _subsets(items.shape[1], width)].reshape(-1, width)
    lead = min(state.gains, key=lambda g: g.groups.width).groups.of
    alike = [g for g in state.gains if np.array_equal(g.groups.of, lead)]
    return np.asarray(np.sum([g.of_rows(rows) for g in alike], axis=0)).reshape(len(items), -1)


@cache
def _subsets(channels: int, width: int) -> Array:
    return np.array(list(combinations(range(channels), width)))


@cache
def _partitions(count: int, width: int) -> Array:
    """All ways to part count * width channels into subsets, as numbers of `_subsets`: [ways, count]; the first is as it is."""
    number = {s: i for i, s in enumerate(combinations(range(count * width), width))}

    def parts(left: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        if not left:
            yield ()
            return
        for others in combinations(left[1:], width - 1):
            mine = (left[0], *others)
            for rest in parts(tuple(c for c in left if c not in mine)):
                yield (number[mine], *rest)

    return np.array(list(parts(tuple(range(count * width)))))
