"""The helpers of searches: sums of the largest, and clusters of equal size."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sparsec.passes.permutation.search.clusters import balanced_clusters
from sparsec.passes.permutation.search.gains import LargestVectors
from sparsec.passes.permutation.search.largest import largest, largest_sum


@given(st.integers(1, 9), st.data())
def test_the_largest_are_those_that_sorting_finds(m: int, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, m))
    values = np.random.default_rng(data.draw(st.integers(0, 99))).integers(-5, 9, (m, 4, 3)).astype(np.float32)
    ordered = np.sort(values, axis=0)[::-1]
    total, least = largest(values, n)
    assert np.array_equal(total, ordered[:n].sum(axis=0))
    assert np.array_equal(least, ordered[n - 1])
    assert np.array_equal(largest_sum(values, n), total)


def test_clusters_are_equal_and_find_groups() -> None:
    rng = np.random.default_rng(0)
    centres = 10 * rng.standard_normal((4, 300)).astype(np.float32)  # wide enough to be projected
    group = rng.permutation(np.arange(32) % 4)
    rows = centres[group] + rng.standard_normal((32, 300)).astype(np.float32)
    found = [balanced_clusters(rows, 4, np.random.default_rng(seed)) for seed in range(5)]
    assert all(sorted(f.reshape(-1)) == list(range(32)) and f.shape == (4, 8) for f in found)
    assert any(all(len(set(group[c])) == 1 for c in f) for f in found)  # random centres need not find them


@given(st.sampled_from([1, 3]), st.integers(4, 15), st.integers(0, 99))
def test_the_estimate_of_vectors_is_close_and_never_too_little(taps: int, count: int, seed: int) -> None:
    """Tiles of 32 outputs with one of them exchanged: the price of the least vector hardly changes."""
    rng = np.random.default_rng(seed)
    rest = np.abs(rng.standard_normal((4, 31, taps * 16))).sum(axis=1, dtype=np.float32)
    more = np.abs(rng.standard_normal((5, taps * 16))).astype(np.float32)
    measure = LargestVectors(count, taps)
    exact, estimate = measure.table(rest, more), measure.table(rest, more, np.arange(taps * 16))
    assert (estimate >= exact * (1 - 1e-6)).all()
    assert (estimate <= exact * 1.02).all()
