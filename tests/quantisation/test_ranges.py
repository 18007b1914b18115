"""Histograms do not depend on batches, and chosen ranges are what their methods say."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsec.passes.quantisation.ranges import Affine, Histogram, Method, affine, choose, squared_error

Array = np.ndarray[Any, Any]
floats = st.floats(-1e6, 1e6, width=32)


def histogram(*batches: Array) -> Histogram:
    found = Histogram()
    for batch in batches:
        assert found.add(np.asarray(batch, np.float32))
    return found


@given(st.lists(st.lists(floats, max_size=6), min_size=1, max_size=5))
def test_batches_in_any_order_count_like_one(batches: list[list[float]]) -> None:
    arrays = [np.asarray(b, np.float32) for b in batches]
    whole, split, merged = histogram(np.concatenate(arrays)), histogram(*arrays[::-1]), histogram()
    for a in arrays:
        merged.merge(histogram(a))
    for other in (split, merged):
        np.testing.assert_array_equal(other.counts, whole.counts)
        assert (other.reach, other.low, other.high) == (whole.reach, whole.low, whole.high)


@given(st.lists(floats, min_size=1, max_size=50))
def test_bins_hold_what_their_edges_enclose(values: list[float]) -> None:
    x = np.asarray(values, np.float32)
    found = histogram(x)
    assert found.counts.sum() == len(x)
    if found.reach:
        edges = np.linspace(-found.reach, found.reach, len(found.counts) + 1)
        np.testing.assert_array_equal(found.counts, np.histogram(x.astype(np.float64), edges)[0])


def test_nan_and_infinity_are_refused_and_not_counted() -> None:
    found = histogram(np.ones(3))
    assert not found.add(np.array([1.0, np.nan], np.float32)) and not found.add(np.array([np.inf], np.float32))
    assert found.counts.sum() == 3 and found.high == 1


@given(st.lists(floats, min_size=1, max_size=50), st.sampled_from(list(Method)), st.booleans())
def test_zero_is_exact_and_the_bytes_hold_the_range(values: list[float], method: Method, power: bool) -> None:
    found = choose(histogram(np.asarray(values)), method, power_of_two=power)
    assert 0 <= found.zero <= 255 and found.scale > 0 and found.scale == float(np.float32(found.scale))
    assert found.low <= 0 <= found.high
    if min(values) >= 0:
        assert found.zero == 0
    if power:
        assert math.frexp(found.scale)[0] == 0.5 and found.zero % 2 == 0


def test_minmax_covers_everything() -> None:
    x = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    found = choose(histogram(x), Method.minmax)
    assert found.low <= x.min() + found.scale and found.high >= x.max() - found.scale
    assert found.scale == pytest.approx((x.max() - x.min()) / 255, rel=1e-6)


def test_percentile_leaves_the_tails_out() -> None:
    x = np.concatenate([np.linspace(0, 1, 100_000), [1000.0]])
    found = choose(histogram(x), Method.percentile, 99.9)
    assert found.high == pytest.approx(1, rel=0.2) and found.zero == 0  # as fine as a bin of 1024 / 4096


@pytest.mark.parametrize(
    "shape", [lambda r: r.standard_normal(20000), lambda r: r.laplace(size=20000), lambda r: r.exponential(size=20000)]
)
def test_mse_is_no_worse_than_any_other_method(shape: Any) -> None:
    found = histogram(shape(np.random.default_rng(0)))
    errors = {m: squared_error(found, choose(found, m)) for m in Method}
    assert errors[Method.mse] == min(errors.values()) < errors[Method.minmax]


def test_an_outlier_is_cut_off_by_entropy() -> None:
    x = np.random.default_rng(0).laplace(size=100_000)
    found = choose(histogram(np.append(x, 400.0)), Method.entropy)
    assert 4 < found.high < 100


def test_zeros_only() -> None:
    assert choose(histogram(np.zeros(5)), Method.mse) == Affine(1.0, 0)
    assert choose(histogram(np.zeros(5), np.array([-3.0])), Method.minmax).zero == 255


@given(st.floats(-1e4, 0), st.floats(1e-3, 1e4))
def test_affine_ends_within_a_step_of_both_ends(low: float, high: float) -> None:
    found = affine(low, high)
    assert found.low >= low - found.scale and found.high <= high + found.scale
