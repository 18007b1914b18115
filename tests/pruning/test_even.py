"""The best n of every m blocks of each row without an empty column, against an integer programme."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp

from sparsec.compiler.sparsity import Block
from sparsec.compiler.sparsity.text import parse_goal
from sparsec.passes.pruning.even import even_blocks
from sparsec.passes.pruning.masks import choose

Array = np.ndarray[Any, Any]


def by_programme(worth: Array, n: int, m: int) -> float:
    """The most that n of every m columns of each row and tap hold of which every column has one, by branch and bound."""
    index = np.arange(worth.size).reshape(worth.shape)
    constraints = []
    for first in range(0, worth.shape[2], m):
        for row in index[:, :, first : first + m].reshape(-1, min(m, worth.shape[2] - first)):
            constraints.append((row, min(n, len(row)), min(n, len(row))))
    constraints += [(index[:, :, c].reshape(-1), 1, np.inf) for c in range(worth.shape[2])]
    matrix = np.zeros((len(constraints), worth.size))
    for line, (members, _, _) in zip(matrix, constraints, strict=True):
        line[members] = 1
    bounds = LinearConstraint(matrix, [low for _, low, _ in constraints], [high for _, _, high in constraints])
    whole = np.ones(worth.size, np.int64)
    found = milp(-worth.reshape(-1), integrality=whole, bounds=Bounds(0, 1), constraints=[bounds])
    assert found.success
    return -float(found.fun)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Array, int, int]:
    n = draw(st.integers(1, 4))
    m = n + draw(st.integers(1, 4))
    taps = draw(st.sampled_from([1, 1, 3]))
    rows, columns = draw(st.integers(-(-m // (n * taps)), 6)), draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    worth = rng.uniform(0, 1, (rows, taps, columns)) * np.exp(2 * rng.standard_normal((1, 1, columns)))
    worth *= np.exp(draw(st.sampled_from([0.0, 2.0])) * rng.standard_normal((rows, 1, 1)))
    if draw(st.booleans()):
        worth = np.round(3 * worth)  # with equal ones, zeros among them
    return worth.astype(np.float32), n, m


@settings(max_examples=150)
@given(cases())
def test_every_group_keeps_n_and_no_column_is_empty_and_nothing_holds_more(case: tuple[Array, int, int]) -> None:
    worth, n, m = case
    found = even_blocks(worth, n, m)
    for first in range(0, worth.shape[2], m):
        some = found.kept[..., first : first + m]
        assert (some.sum(axis=2) == min(n, some.shape[2])).all()
    assert found.kept.any(axis=(0, 1)).all()
    held = worth.sum(where=found.kept, dtype=np.float64)
    assert held == pytest.approx(by_programme(worth.astype(np.float64), n, m), rel=1e-6, abs=1e-9)
    groups = [np.sort(worth[..., first : first + m], axis=2)[..., -n:] for first in range(0, worth.shape[2], m)]
    free = sum(float(g.sum(dtype=np.float64)) for g in groups)
    assert held <= free * (1 + 1e-6) and (found.forced or held == pytest.approx(free, rel=1e-6))


def test_a_column_is_filled_by_way_of_another_where_that_costs_less() -> None:
    """Row 0 alone has something to spare, but not in the empty column: it takes row 1's, and row 1 the empty one."""
    worth = np.array([[[9, 8, 0]], [[0, 5, 4]], [[9, 0, 0]]], np.float32)
    assert even_blocks(worth, 1, 3).kept[:, 0].tolist() == [[False, True, False], [False, False, True], [True, False, False]]


def test_as_many_columns_as_there_are_choices_are_filled() -> None:
    """Layers are not pruned so; orders of channels are judged by it."""
    assert even_blocks(np.array([[[3, 1, 2, 0]], [[3, 2, 1, 0]]], np.float32), 1, 4).kept.any(axis=(0, 1)).sum() == 2


@pytest.mark.parametrize("text", ["block:8x8/2:4", "block:16x4/1:4", "block:3x5/4:8/taps=each", "block:4x4/2:4/taps=each"])
@settings(max_examples=20)
@given(st.tuples(st.integers(20, 70), st.sampled_from([1, 4]), st.integers(1, 90)), st.integers(0, 99))
def test_masks_have_whole_blocks_and_equal_rows(text: str, shape: tuple[int, int, int], seed: int) -> None:
    goal = parse_goal(text)
    pattern = goal.pattern
    assert isinstance(pattern, Block)
    choice = choose(goal, np.random.default_rng(seed).random(shape).astype(np.float32))
    kept = pattern.kept(choice.mask)
    np.testing.assert_array_equal(pattern.spread(kept, shape), choice.mask)
    for first in range(0, kept.shape[2], pattern.m_group):
        some = kept[..., first : first + pattern.m_group]
        assert (some.sum(axis=2) == min(pattern.n_keep, some.shape[2])).all()
    assert kept.shape[0] * kept.shape[1] * pattern.n_keep < pattern.m_group or kept.any(axis=(0, 1)).all()
    assert choice.remarks == ()
