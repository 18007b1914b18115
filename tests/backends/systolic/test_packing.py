"""Merged columns."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.backends.systolic.packing import merge_columns, merged_counts


@given(st.integers(1, 80), st.integers(1, 60), st.integers(1, 70), st.integers(1, 8), st.floats(0, 1), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_groups_hold_every_column_once_and_no_conflict(
    rows: int, columns: int, side: int, lanes: int, density: float, seed: int
) -> None:
    mask = np.random.default_rng(seed).random((rows, columns)) < density
    merged = merge_columns(mask, side, lanes)
    assert [len(groups) for groups in merged] == merged_counts(mask, side, lanes)
    for i, groups in enumerate(merged):
        strip = mask[i * side : (i + 1) * side]
        assert sorted(c for g in groups for c in g) == list(np.flatnonzero(strip.any(axis=0)))
        assert groups == sorted(groups)
        for group in groups:
            assert len(group) <= lanes and group == sorted(group)
            assert strip[:, group].sum(axis=1).max() <= 1


def test_disjoint_columns_are_packed_full() -> None:
    mask = np.tile(np.eye(8, dtype=bool), (1, 6))  # 48 columns of one row each
    assert merged_counts(mask, 8, 4) == [12]
    assert merged_counts(mask, 8, 8) == [6]
    assert merged_counts(mask, 8, 1) == [48]
    assert merged_counts(np.ones((8, 5), bool), 8, 4) == [5]
    assert merged_counts(np.zeros((8, 5), bool), 8, 4) == [0]
