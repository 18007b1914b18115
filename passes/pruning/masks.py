"""Which weights a pattern keeps, given how much each matters."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from sparsec.compiler.sparsity import NM, NMG, Block, HiNM, Unstructured
from sparsec.compiler.sparsity.base import padded
from sparsec.compiler.sparsity.nmg import pattern_matrix
from sparsec.compiler.sparsity.text import Goal
from sparsec.passes.pruning.cover import best_blocks
from sparsec.passes.pruning.even import even_blocks
from sparsec.passes.pruning.groups import in_groups, largest_in

Array = np.ndarray[Any, Any]
_EXACT = 1_000_000  # n:m:g chunks times columns squared up to which the best assignment is searched (about a second)


@dataclass(frozen=True)
class Choice:
    """`mask` [OC, taps, IC]: what is kept. `unit`: the importance of what each weight is dropped with. Remarks in words."""

    mask: Array
    unit: Array
    remarks: tuple[str, ...] = ()


def choose(goal: Goal, score: Array) -> Choice:
    """The most important weights in the goal's pattern; `score` [OC, taps, IC] is not negative."""
    match goal.pattern:
        case NM():
            return _nm(goal.pattern, score)
        case Block():
            return _blocks(goal.pattern, goal.sparsity, score)
        case NMG():
            return Choice(nmg_mask(goal.pattern, score), score)
        case HiNM():
            return _hierarchical(goal.pattern, goal.sparsity, score)
        case Unstructured():
            return _unstructured(goal.sparsity, score)
        case _:
            return Choice(np.ones(score.shape, bool), score)


def vector_count(pattern: HiNM, sparsity: float, channels: int) -> int:
    """Input channels that a tile keeps a tap: all, or a multiple of m, so that at least `sparsity` is reached with n:m."""
    share = (1 - sparsity) * pattern.m_group / pattern.n_keep
    return channels if share >= 1 - 1e-9 else floor(share * channels / pattern.m_group + 1e-9) * pattern.m_group


def _row_sums(score: Array, rows: int) -> Array:
    full = padded(score, 0, rows)
    return np.asarray(full.reshape(-1, rows, *score.shape[1:]).sum(axis=1)) if rows > 1 else score


def _nm(pattern: NM, score: Array) -> Choice:
    sums = _row_sums(score, pattern.rows)
    kept = largest_in(in_groups(sums, pattern.m_group), pattern.n_keep).reshape(*sums.shape[:2], -1)[..., : score.shape[2]]
    mask, unit = (np.repeat(a, pattern.rows, axis=0)[: score.shape[0]] for a in (kept, sums))
    return Choice(mask, unit)


def _blocks(pattern: Block, sparsity: float, score: Array) -> Choice:
    sums = pattern.split(score).sum(axis=(1, 4))  # [block rows, taps, block columns]
    if pattern.taps == "shared":
        sums = sums.sum(axis=1, keepdims=True)
    if pattern.m_group:
        kept = even_blocks(sums, pattern.n_keep, pattern.m_group).kept
    else:
        kept = best_blocks(sums, sums.size - round(sparsity * sums.size)).kept
    return Choice(pattern.spread(kept, score.shape), pattern.spread(sums, score.shape), excess_of(pattern, kept, sparsity))


def excess_of(pattern: Block, kept: Array, sparsity: float) -> tuple[str, ...]:
    """A remark where more blocks are kept than the sparsity asks for, else none (n:m of blocks keeps n whatever is empty)."""
    if pattern.m_group:
        return ()
    excess = int(kept.sum()) - (kept.size - round(sparsity * kept.size))
    if excess <= 0:
        return ()
    share, what = 100 * (1 - kept.mean()), "block" if excess == 1 else "blocks"
    return (f"{excess} {what} kept so that no row or column of blocks is empty: {share:.1f} % dropped",)


def _unstructured(sparsity: float, score: Array) -> Choice:
    drop = round(sparsity * score.size)
    mask = np.ones(score.size, bool)
    if drop:
        mask[np.argpartition(score.reshape(-1), drop - 1)[:drop]] = False
    return Choice(mask.reshape(score.shape), score)


def _hierarchical(pattern: HiNM, sparsity: float, score: Array) -> Choice:
    count = vector_count(pattern, sparsity, score.shape[2])
    best = np.argsort(-_row_sums(score, pattern.v), axis=-1, kind="stable")[..., :count]
    vectors = np.repeat(np.sort(best, axis=-1), pattern.v, axis=0)[: score.shape[0]]
    inside = np.take_along_axis(score, vectors, axis=-1)
    kept = largest_in(in_groups(inside, pattern.m_group), pattern.n_keep).reshape(*inside.shape[:2], -1)[..., :count]
    mask = np.zeros(score.shape, bool)
    np.put_along_axis(mask, vectors, kept, axis=-1)
    return Choice(mask, score)


def nmg_mask(pattern: NMG, score: Array, exact: bool | None = None) -> Array:
    """Mask of n:m:g: by the best assignment (linear assignment, Jonker-Volgenant) or by STen's greedy one.

    `exact` None: the best one where there are few chunks, since it takes the cube of their columns.
    """
    table = pattern_matrix(pattern.n_keep, pattern.m_group)
    parts = pattern.chunks(score)
    gain = (parts @ table.T).reshape(-1, pattern.chunk, len(table))
    if exact is None:
        exact = len(gain) * pattern.chunk**2 <= _EXACT
    chosen = _assign(gain, pattern.g) if exact else _assign_greedily(gain, pattern.g)
    return pattern.whole(table[chosen].reshape(parts.shape) > 0, score.shape)


def _assign(gain: Array, g: int) -> Array:
    """Pattern of every column, [chunks, columns]: the largest total gain with g columns a pattern."""
    chosen = np.empty(gain.shape[:2], np.int64)
    for i, one in enumerate(gain):
        chosen[i] = linear_sum_assignment(np.repeat(one, g, axis=1), maximize=True)[1] // g
    return chosen


def _assign_greedily(gain: Array, g: int) -> Array:
    """The same by taking (column, pattern) pairs in order of gain where the column is free and the pattern has room."""
    chunks, columns, patterns = gain.shape
    order = np.argsort(-gain.reshape(chunks, -1), axis=1, kind="stable")
    chosen, room, every = np.full((chunks, columns), -1), np.full((chunks, patterns), g), np.arange(chunks)
    for pair in order.T:
        column, pattern = np.divmod(pair, patterns)
        taken = (chosen[every, column] < 0) & (room[every, pattern] > 0)
        at = every[taken]
        chosen[at, column[taken]] = pattern[taken]
        room[at, pattern[taken]] -= 1
    return chosen
