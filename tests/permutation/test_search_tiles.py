"""The order of inputs of every tile of hierarchical n:m."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.compiler.sparsity import HiNM
from sparsec.compiler.sparsity.text import Goal, parse_goal
from sparsec.passes.permutation.search.tiles import kept_lists, search_tiles, tile_mask
from sparsec.passes.pruning.masks import choose, vector_count

Array = np.ndarray[Any, Any]


def saliency(shape: tuple[int, int, int], seed: int) -> Array:
    return np.abs(np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


@settings(max_examples=60)
@given(
    st.tuples(st.integers(1, 20), st.sampled_from([1, 4]), st.integers(1, 40)),
    st.sampled_from([(4, 2, 4), (8, 1, 4), (3, 1, 2), (32, 2, 4)]),
    st.sampled_from([0.0, 0.25, 0.5]),
    st.integers(0, 999),
)
def test_lists_hold_the_best_vectors_and_never_keep_less(
    shape: tuple[int, int, int], form: tuple[int, int, int], vectors: float, seed: int
) -> None:
    pattern = HiNM(*form)
    goal = Goal(pattern, 1 - (1 - vectors) * pattern.n_keep / pattern.m_group)
    w = saliency(shape, seed)
    found = search_tiles(w, goal)
    ascending = kept_lists(pattern, goal.sparsity, w)
    assert ascending.shape[2] == vector_count(pattern, goal.sparsity, shape[2])
    assert np.array_equal(np.sort(found.lists, axis=-1), ascending)
    assert found.before == pytest.approx(w[choose(goal, w).mask].sum(dtype=np.float64), rel=1e-6)
    assert found.after == w.sum(where=found.mask, dtype=np.float64)
    assert found.after >= found.before * (1 - 1e-6)
    each = np.repeat(found.lists, pattern.v, axis=0)[: shape[0]]
    inside = np.take_along_axis(found.mask, each, axis=-1)
    assert inside.sum() == found.mask.sum()  # nothing is kept outside the lists
    full = np.pad(inside, ((0, 0), (0, 0), (0, -inside.shape[2] % pattern.m_group)))
    assert (full.reshape(*full.shape[:2], -1, pattern.m_group).sum(axis=-1) <= pattern.n_keep).all()


def test_ascending_lists_give_the_mask_that_pruning_in_place_gives() -> None:
    goal, w = parse_goal("hinm:8:2:4@75%"), saliency((20, 3, 32), 0)
    assert isinstance(goal.pattern, HiNM)
    mask = tile_mask(goal.pattern, w, kept_lists(goal.pattern, goal.sparsity, w))
    assert np.array_equal(mask, choose(goal, w).mask)


def test_two_groups_are_shared_out_nearly_in_the_best_way() -> None:
    goal = parse_goal("hinm:8:2:4@50%")
    assert isinstance(goal.pattern, HiNM)
    for seed in range(5):
        w = saliency((8, 1, 8), seed)
        ways = [[*a, *(i for i in range(8) if i not in a)] for a in combinations(range(8), 4)]
        best = max(float(w[tile_mask(goal.pattern, w, np.array(way).reshape(1, 1, 8))].sum()) for way in ways)
        assert search_tiles(w, goal).after > 0.98 * best


def test_the_same_seed_finds_the_same_lists() -> None:
    goal, w = parse_goal("hinm:8:2:4@75%"), saliency((16, 2, 64), 0)
    assert np.array_equal(search_tiles(w, goal, seed=3).lists, search_tiles(w, goal, seed=3).lists)


def test_lists_are_worth_what_the_paper_gains() -> None:
    """256 x 512 normal weights, V = 32, 75 %: .407 in ascending order, .425 ordered."""
    goal, w = parse_goal("hinm:32:2:4@75%"), saliency((256, 1, 512), 0)
    found, total = search_tiles(w, goal), float(w.sum(dtype=np.float64))
    assert found.before / total == pytest.approx(0.407, abs=0.01)
    assert found.after / total >= 0.425 - 0.002


def test_no_time_leaves_the_lists_ascending() -> None:
    goal, w = parse_goal("hinm:8:2:4@75%"), saliency((16, 1, 64), 0)
    found = search_tiles(w, goal, time_limit_s=0.0)
    assert not found.finished and found.after == found.before
    assert (np.diff(found.lists, axis=-1) > 0).all()
