"""From parts to gains: which groups of channels the pattern of a part decides about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sparsec.compiler.sparsity import NM, NMG, Block, HiNM
from sparsec.compiler.sparsity.base import padded
from sparsec.passes.permutation.search.blocks import LargestBlocks
from sparsec.passes.permutation.search.gains import (
    Gain,
    Groups,
    LargestOf,
    LargestVectors,
    Measure,
    Selected,
    Summed,
)
from sparsec.passes.permutation.search.part import OUTPUTS, Part
from sparsec.passes.pruning.masks import vector_count

Array = np.ndarray[Any, Any]


def build_gains(parts: Sequence[Part]) -> list[Gain]:
    """A gain for each part whose value depends on the order, for each of its repeats.

    Left out, and seen by the exact objective only: the inputs of n:m:g (the chunk that a column is in matters little), those of
    hierarchical n:m without lists of their own (the vectors that are kept decide which inputs meet in n:m), and items whose
    repeats share groups (a flattened image whose size the pattern does not divide).
    """
    return [gain for part in parts for gain in _gains(part)]


def _gains(part: Part) -> list[Gain]:
    found = _features(part)
    if found is None:
        return []
    width, features, kind = found
    rows = part.index // width
    if part.index.shape[1] > 1 and _shared(rows):
        return []
    return [_gain(part, repeat, width, features, kind) for repeat in range(part.index.shape[1])]


def _shared(group: Array) -> bool:
    """Whether different repeats meet in a group ([items, repeats])."""
    first = np.full(int(group.max()) + 1, -1)
    for repeat, column in enumerate(group.T):
        if (first[column] >= 0).any():
            return True
        first[column] = repeat
    return False


def _features(part: Part) -> tuple[int, Array, int | Measure] | None:
    """Width of the groups along the axis, what every entry of the axis brings [extent, D], and how much of it is kept.

    A number n: the n largest of every group. None: the order does not matter.
    """
    pattern, score = part.goal.pattern, part.saliency
    match pattern, part.axis == OUTPUTS:
        case NM(), False:
            sums = _sums(score, 0, pattern.rows)
            return pattern.m_group, _entries(sums, 2), pattern.n_keep
        case NM(), True if pattern.rows > 1:
            full = padded(score, 2, pattern.m_group)
            apart = np.moveaxis(full.reshape(*full.shape[:2], -1, pattern.m_group), -1, 1)
            return pattern.rows, _entries(apart, 0), LargestOf(pattern.n_keep, pattern.m_group)
        case NMG(), True:
            return pattern.m_group, _entries(score, 0), pattern.n_keep
        case HiNM(), True:
            count = vector_count(pattern, part.goal.sparsity, score.shape[2])
            return pattern.v, _entries(score, 0), LargestVectors(count, score.shape[1])
        case Block(), outputs:
            return _blocks(pattern, part.goal.sparsity, score, outputs)
        case _:
            return None


def _blocks(pattern: Block, sparsity: float, score: Array, outputs: bool) -> tuple[int, Array, Measure]:
    sums = _sums(score, 2, pattern.bc) if outputs else _sums(score, 0, pattern.br)
    if pattern.taps == "shared":
        sums = sums.sum(axis=1, keepdims=True)
    entries = _entries(sums if outputs else sums.swapaxes(0, 2), 0)  # taps, then the other side's blocks
    width = pattern.br if outputs else pattern.bc
    blocks = -(-len(entries) // width) * entries.shape[1]
    none = np.zeros((0, entries.shape[1]), np.float32)
    return width, entries, LargestBlocks(blocks - round(sparsity * blocks), sums.shape[1], none)


def _sums(score: Array, axis: int, width: int) -> Array:
    """Sums over `width` consecutive entries of an axis, the last ones padded."""
    return np.add.reduceat(score, np.arange(0, score.shape[axis], width), axis=axis) if width > 1 else score


def _entries(values: Array, axis: int) -> Array:
    """[entries of the axis, all others], float32 in rows."""
    moved = np.moveaxis(values, axis, 0)
    return np.ascontiguousarray(moved.reshape(len(moved), -1), dtype=np.float32)


def _gain(part: Part, repeat: int, width: int, entries: Array, kind: int | Measure) -> Gain:
    """The groups that the items' entries of one repeat are in, with what else is in them."""
    entry = part.index[:, repeat]
    number, of = np.unique(entry // width, return_inverse=True)
    owner = np.full((int(number[-1]) + 1) * width, -1)
    owner[entry] = np.arange(len(entry))
    places = number[:, None] * width + np.arange(width)
    members = owner[places]
    foreign = (members < 0) & (places < len(entries))
    members[foreign] = -2 - np.arange(np.count_nonzero(foreign))
    zero = np.zeros((1, entries.shape[1]), np.float32)
    features = np.concatenate([entries[entry], zero, entries[places[foreign]]])
    groups = Groups(of.reshape(-1), members)
    if isinstance(kind, int):
        return Selected(groups, features, kind)
    if isinstance(kind, LargestBlocks):
        untouched = np.delete(_sums(entries, 0, width), number, axis=0)
        kind = replace(kind, others=untouched)
    return Summed(groups, features, kind)
