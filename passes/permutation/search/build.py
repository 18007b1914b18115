"""From parts to gains: which groups of channels the pattern of a part decides about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sparsec.compiler.sparsity import NM, NMG, Block, HiNM
from sparsec.compiler.sparsity.base import padded
from sparsec.passes.permutation.search.blocks import LargestBlocks
from sparsec.passes.permutation.search.even import EvenColumns, EvenRows
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


def _features(part: Part) -> tuple[int, Array, int | Measure | Block] | None:
    """Width of the groups along the axis, what every entry of the axis brings [extent, D], and how much of it is kept.

    A number n: the n largest of every group. Blocks: n of every group's m blocks. None: the order does not matter.
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
        case Block(), True if pattern.m_group:
            return pattern.br, *_even_rows(pattern, score)
        case Block(), False if pattern.m_group:
            return pattern.columns_together, _block_features(pattern, score, outputs=False), pattern
        case Block(), outputs:
            return _blocks(pattern, part.goal.sparsity, score, outputs)
        case _:
            return None


def _blocks(pattern: Block, sparsity: float, score: Array, outputs: bool) -> tuple[int, Array, Measure]:
    entries = _block_features(pattern, score, outputs)
    width = pattern.br if outputs else pattern.bc
    blocks = -(-len(entries) // width) * entries.shape[1]
    none = np.zeros((0, entries.shape[1]), np.float32)
    return width, entries, LargestBlocks(blocks - round(sparsity * blocks), _taps(pattern, score), none)


def _block_features(pattern: Block, score: Array, outputs: bool) -> Array:
    """Sums over the other side's blocks: [entries, taps and these blocks]."""
    sums = _block_sums(pattern, score, outputs)
    return _entries(sums if outputs else sums.swapaxes(0, 2), 0)


def _block_sums(pattern: Block, score: Array, outputs: bool) -> Array:
    sums = _sums(score, 2, pattern.bc) if outputs else _sums(score, 0, pattern.br)
    return sums.sum(axis=1, keepdims=True) if pattern.taps == "shared" else sums


def _taps(pattern: Block, score: Array) -> int:
    return 1 if pattern.taps == "shared" else int(score.shape[1])


def _even_rows(pattern: Block, score: Array) -> tuple[Array, Measure]:
    """Sums over the blocks of inputs, those that compete apart as of `LargestOf`."""
    sums = _block_sums(pattern, score, outputs=True)
    full = padded(sums, 2, pattern.m_group)
    apart = np.moveaxis(full.reshape(*full.shape[:2], -1, pattern.m_group), -1, 1)
    entries = _entries(apart, 0)
    none = np.zeros((0, entries.shape[1]), np.float32)
    return entries, EvenRows(pattern.n_keep, pattern.m_group, sums.shape[1], sums.shape[2], none)


def _sums(score: Array, axis: int, width: int) -> Array:
    """Sums over `width` consecutive entries of an axis, the last ones padded."""
    return np.add.reduceat(score, np.arange(0, score.shape[axis], width), axis=axis) if width > 1 else score


def _entries(values: Array, axis: int) -> Array:
    """[entries of the axis, all others], float32 in rows."""
    moved = np.moveaxis(values, axis, 0)
    return np.ascontiguousarray(moved.reshape(len(moved), -1), dtype=np.float32)


def _gain(part: Part, repeat: int, width: int, entries: Array, kind: int | Measure | Block) -> Gain:
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
    if isinstance(kind, Block):
        padding = max((int(number[-1]) + 1) * kind.m_group - -(-len(entries) // kind.bc), 0)
        return EvenColumns.of(groups, features, kind, _taps(kind, part.saliency), padding)
    if isinstance(kind, LargestBlocks | EvenRows):
        untouched = np.delete(_sums(entries, 0, width), number, axis=0)
        kind = replace(kind, others=untouched)
    return Summed(groups, features, kind)
