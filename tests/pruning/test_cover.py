"""The best blocks without an empty row or column, against an integer programme."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp

from sparsec.passes.pruning.cover import best_blocks

Array = np.ndarray[Any, Any]


def by_programme(worth: Array, keep: int) -> float:
    """The most that `keep` blocks hold of which every row and column has one, by branch and bound."""
    index = np.arange(worth.size).reshape(worth.shape)
    lines = [*index, *(index[:, :, c] for c in range(worth.shape[2]))]
    covers = np.zeros((len(lines), worth.size))
    for row, line in zip(covers, lines, strict=True):
        row[line.reshape(-1)] = 1
    found = milp(
        -worth.reshape(-1),
        integrality=np.ones(worth.size, np.int64),
        bounds=Bounds(0, 1),
        constraints=[LinearConstraint(covers, 1, np.inf), LinearConstraint(np.ones((1, worth.size)), keep, keep)],
    )
    assert found.success
    return -float(found.fun)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Array, int]:
    rows, taps, columns = draw(st.integers(1, 6)), draw(st.sampled_from([1, 1, 3])), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    worth = rng.uniform(0, 1, (rows, taps, columns))
    worth *= np.exp(draw(st.sampled_from([0.0, 2.0])) * rng.standard_normal((rows, 1, 1)))
    worth *= np.exp(draw(st.sampled_from([0.0, 2.0])) * rng.standard_normal((1, 1, columns)))
    if draw(st.booleans()):
        worth = np.round(3 * worth)  # with equal ones, zeros among them
    return worth.astype(np.float32), draw(st.integers(0, worth.size))


@settings(max_examples=150)
@given(cases())
def test_no_row_or_column_is_empty_and_nothing_holds_more(case: tuple[Array, int]) -> None:
    worth, keep = case
    cover = best_blocks(worth, keep)
    found = cover.kept
    assert found.any(axis=(1, 2)).all() and found.any(axis=(0, 1)).all()
    expected = max(keep, worth.shape[0], worth.shape[2])
    assert found.sum() == expected
    best = by_programme(worth.astype(np.float64), expected)
    for price in (0.0, 0.9 * cover.price, 1e3):  # wherever the search begins
        near = best_blocks(worth, keep, price).kept
        assert worth.sum(where=near, dtype=np.float64) == pytest.approx(best, rel=1e-6, abs=1e-9)
    assert worth.sum(where=found, dtype=np.float64) == pytest.approx(best, rel=1e-6, abs=1e-9)


def test_one_block_covers_a_row_and_a_column_at_once() -> None:
    """The best block of row 1 lies in column 0, but the one in column 1 covers both."""
    worth = np.array([[9, 8, 0], [5, 4, 0], [0, 0, 3]], np.float32)[:, None]
    assert np.argwhere(best_blocks(worth, 3).kept[:, 0]).tolist() == [[0, 0], [1, 1], [2, 2]]
    assert np.argwhere(best_blocks(worth, 4).kept[:, 0]).tolist() == [[0, 0], [0, 1], [1, 0], [2, 2]]


def test_many_blocks_without_differences() -> None:
    found = best_blocks(np.ones((40, 1, 30), np.float32), 50).kept
    assert found.sum() == 50 and found.any(axis=(1, 2)).all() and found.any(axis=(0, 1)).all()
    assert best_blocks(np.zeros((3, 1, 5), np.float32), 0).kept.sum() == 5
