"""Which inputs meet in the n:m of hierarchical n:m: an order of the kept channels for every tile and tap.

The input-channel step of gyro-permutation (Yu et al., arXiv 2407.20496): one channel is taken out of every group of m, and what
was taken goes back by linear assignment. The order costs nothing: kernels read lists of channels anyway.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from sparsec.compiler.sparsity import HiNM
from sparsec.compiler.sparsity.text import Goal
from sparsec.passes.permutation.search.arrangement import Clock
from sparsec.passes.permutation.search.largest import largest
from sparsec.passes.pruning.masks import Choice, choose, vector_count

Array = np.ndarray[Any, Any]
_STALE, _LUCK = 4, 64  # rounds after which a list has converged; of g groups, luck / g more: a round of few draws little
_SLIGHT = 1e-4  # share of the value: a round that gains less counts as stale, and the list as converged after a few
_ROUNDING = 1e-6
_AT_ONCE = 1 << 17  # elements of the tables of the lists that are worked on together
_IN_CACHE = 1 << 15  # sums that are made together


@dataclass(frozen=True)
class TileOrders:
    """`lists` [tiles, taps, channels of a tile]: consecutive m are a group. `mask` [OC, taps, IC] is what is kept so."""

    lists: Array
    mask: Array
    before: float
    after: float
    seconds: float
    finished: bool


def search_tiles(
    score: Array,
    goal: Goal,
    *,
    seed: int = 0,
    time_limit_s: float | None = None,
    progress: Callable[[str], None] | None = None,
) -> TileOrders:
    """The order of each tile's kept input channels at each tap of hierarchical n:m that keeps the most of `score` [OC, taps, IC].

    The channels are those that keep the most before n:m, as in `choose`. Never keeps less than these in ascending order does; the
    same for the same seed unless the time is up first (`finished`).
    """
    pattern, clock = goal.pattern, Clock(time_limit_s, progress or (lambda _: None))
    assert isinstance(pattern, HiNM)
    lists = kept_lists(pattern, goal.sparsity, score)
    first = choose(goal, score).mask
    before = after = float(score.sum(where=first, dtype=np.float64))
    flat, mask = lists.reshape(lists.shape[0] * lists.shape[1], lists.shape[2]), first
    groups = lists.shape[2] // pattern.m_group
    if groups > 1:
        clock.progress(f"gyro: {len(flat)} lists of {lists.shape[2]} channels")
        rng, step = np.random.default_rng(seed), max(1, _AT_ONCE // groups**2)
        for at in range(0, len(flat), step):
            if not clock.over():
                _improve(pattern, _columns(pattern, score, lists, at, step), flat[at : at + step], rng, clock)
        mask = tile_mask(pattern, score, lists)
        after = float(score.sum(where=mask, dtype=np.float64))
    return TileOrders(lists, mask, before, after, clock.seconds, not clock.over())


def choose_with_lists(goal: Goal, score: Array, seed: int | None) -> tuple[Choice, Array | None]:
    """`choose`, or with a seed and for hierarchical n:m, what tiles with orders of their own keep, and these `lists`."""
    if seed is None or not isinstance(goal.pattern, HiNM):
        return choose(goal, score), None
    found = search_tiles(score, goal, seed=seed)
    return Choice(found.mask, score), found.lists


def kept_lists(pattern: HiNM, sparsity: float, score: Array) -> Array:
    """The input channels that every tile keeps at every tap, ascending: [tiles, taps, count]."""
    count = vector_count(pattern, sparsity, score.shape[2])
    sums = np.add.reduceat(score, np.arange(0, score.shape[0], pattern.v), axis=0)
    return np.sort(np.argsort(-sums, axis=-1, kind="stable")[..., :count], axis=-1)


def tile_mask(pattern: HiNM, score: Array, lists: Array) -> Array:
    """The n most important weights of every output among m consecutive entries of its tile's list: [OC, taps, IC]."""
    each = np.repeat(lists, pattern.v, axis=0)[: score.shape[0]]
    inside = np.take_along_axis(score, each, axis=-1)
    missing = -inside.shape[2] % pattern.m_group
    full = np.pad(inside, ((0, 0), (0, 0), (0, missing)), constant_values=-1)  # padding is less important than anything
    grouped = full.reshape(*full.shape[:2], -1, pattern.m_group)
    kept = np.zeros(grouped.shape, bool)
    np.put_along_axis(kept, np.argsort(-grouped, axis=-1, kind="stable")[..., : pattern.n_keep], True, axis=-1)
    mask = np.zeros(score.shape, bool)
    np.put_along_axis(mask, each, kept.reshape(full.shape)[..., : lists.shape[2]], axis=-1)
    return mask


def _columns(pattern: HiNM, score: Array, lists: Array, at: int, count: int) -> Array:
    """The importance of the channels of some lists, [lists, groups, m, v]; a last group that is not full is left out."""
    taps, length = lists.shape[1], lists.shape[2] // pattern.m_group * pattern.m_group
    found = np.zeros((min(count, len(lists) * taps - at), length, pattern.v), np.float32)
    for i in range(len(found)):
        tile, tap = divmod(at + i, taps)
        rows = score[tile * pattern.v : (tile + 1) * pattern.v, tap]
        found[i, :, : len(rows)] = rows[:, lists[tile, tap, :length]].T
    return found.reshape(len(found), -1, pattern.m_group, pattern.v)


def _improve(pattern: HiNM, columns: Array, lists: Array, rng: np.random.Generator, clock: Clock) -> None:
    """Reorder the `lists` [lists, length] (in place) until rounds gain nothing; `columns` [lists, groups, m, v] move along."""
    m, n, groups = pattern.m_group, pattern.n_keep, columns.shape[1]
    length = groups * m
    order = np.broadcast_to(np.arange(length).reshape(groups, m), (len(lists), groups, m)).copy()
    stale, enough = np.zeros(len(lists), np.int64), _STALE + _LUCK // groups
    while (busy := np.flatnonzero(stale < enough)).size and not clock.over():
        place = rng.integers(m, size=(len(busy), groups))
        for i, gain in zip(busy, _round(columns, order, busy, place, n), strict=True):
            stale[i] = 0 if gain else stale[i] + 1
    for row, one in zip(lists, order.reshape(len(lists), length), strict=True):
        row[:length] = row[one]


def _round(columns: Array, order: Array, busy: Array, place: Array, n: int) -> list[bool]:
    """Assign the channels at `place` [busy, groups], one of every group, anew (in place); which lists gained enough to go on."""
    some = columns[busy]
    own = np.take_along_axis(some, place[:, :, None, None], axis=2)[:, :, 0]
    m = some.shape[2]
    others = (place[:, :, None] + np.arange(1, m)) % m
    rest = np.take_along_axis(some, others[..., None], axis=2)
    total, least = largest(np.moveaxis(rest, 2, 0), n)
    worth = _worth(own, least) + (total - least).sum(axis=-1)[:, :, None]
    gained = []
    for i, number in enumerate(busy):
        rows, chosen = linear_sum_assignment(worth[i], maximize=True)
        before = float(np.trace(worth[i]))
        more = float(worth[i, rows, chosen].sum()) - before
        gained.append(more > _SLIGHT * before)
        if more > _ROUNDING * before:
            columns[number, rows, place[i]] = own[i, chosen]
            order[number, rows, place[i]] = order[number, chosen, place[i, chosen]]
    return gained


def _worth(own: Array, least: Array) -> Array:
    """[lists, i, j]: the sum over the rows of max(own[j], least[i])."""
    found = np.zeros((len(own), own.shape[1], own.shape[1]), np.float32)
    some = max(1, _IN_CACHE // found[0].size)
    rows = np.ascontiguousarray(own.transpose(2, 0, 1)), np.ascontiguousarray(least.transpose(2, 0, 1))
    for at in range(0, len(own), some):
        part = found[at : at + some]
        larger = np.empty_like(part)
        for mine, other in zip(*(r[:, at : at + some] for r in rows), strict=True):
            np.maximum(mine[:, None, :], other[:, :, None], out=larger)
            part += larger
    return found
