"""Scales that are powers of two: the graph's float32 products are rounding shifts, to the last bit."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsec.compiler.dtypes import DType
from sparsec.compiler.ops.map import Map
from sparsec.compiler.ops.quantize import RANGES
from sparsec.compiler.ops.shift import requantise_by_shift, rounding_shift
from sparsec.compiler.scalar import Program
from tests.quantised import shifts_of

Array = np.ndarray[Any, Any]
LARGEST = 2**24 - 1  # up to which float32 holds all integers


def by_float(acc: Array, k: int, zero: int, dtype: DType) -> Array:
    """As the graph says it."""
    low, high = RANGES[dtype]
    limits = f"max(t3,{float(low)});min(t4,{float(high)})"
    text = f"cast.f32(a0);mul(t0,a1);round(t1);add(t2,{float(zero)});{limits};cast.{dtype.value}(t5)"
    return Map(Program.parse(text)).evaluate([acc, np.float32(2.0**-k)])[0]


def edges(k: int) -> list[int]:
    """Sums beside halfway points, and beside where results saturate."""
    half = 2 ** max(k - 1, 0)
    places = [m * 2**k + half + d for m in (0, 1, 2, 3, 126, 127, 128, 254, 255, 256) for d in (-1, 0, 1)]
    return [s * p for p in places for s in (1, -1)]


@given(
    st.integers(-8, 40),
    st.lists(st.integers(-LARGEST, LARGEST), min_size=1, max_size=40),
    st.sampled_from([DType.U8, DType.I8]),
    st.data(),
)
def test_products_by_powers_of_two_are_shifts(k: int, sums: list[int], dtype: DType, data: st.DataObject) -> None:
    zero = data.draw(st.sampled_from([*RANGES[dtype], 0]) | st.integers(*RANGES[dtype]))
    acc = np.array([*sums, *(e for e in edges(k) if abs(e) <= LARGEST)], np.int32)
    np.testing.assert_array_equal(requantise_by_shift(acc, k, zero, dtype), by_float(acc, k, zero, dtype))


@given(
    st.integers(0, 16), st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=40), st.sampled_from([DType.U8, DType.I8])
)
def test_shifts_up_to_16_hold_for_all_sums(k: int, sums: list[int], dtype: DType) -> None:
    acc = np.array([*sums, 2**24, -(2**24), 2**31 - 1, -(2**31)], np.int64).astype(np.int32)
    for zero in (*RANGES[dtype], 0):
        np.testing.assert_array_equal(requantise_by_shift(acc, k, zero, dtype), by_float(acc, k, zero, dtype))


@given(st.integers(17, 30), st.lists(st.integers(2**24, 2**31 - 1), min_size=1, max_size=60))
def test_larger_shifts_of_larger_sums_are_one_unit_apart_at_most(k: int, sums: list[int]) -> None:
    near = [m * 2**k + 2 ** (k - 1) + d for m in range(200) for d in (-1, 0, 1)]
    acc = np.array([*sums, *(n for n in near if 2**24 <= n < 2**31)], np.int32)
    apart = by_float(acc, k, 0, DType.U8).astype(int) - requantise_by_shift(acc, k, 0, DType.U8).astype(int)
    assert np.abs(apart).max() <= 1


def test_a_sum_that_float32_rounds_to_halfway_comes_out_one_unit_apart() -> None:
    acc = np.array([128 * 2**17 + 2**16 + 1], np.int32)
    assert requantise_by_shift(acc, 17, 0, DType.U8) == 129 and by_float(acc, 17, 0, DType.U8) == 128


@given(st.integers(-(2**31), 2**31 - 1), st.integers(-31, 62))
def test_rounding_is_to_even(value: int, k: int) -> None:
    got = rounding_shift(np.array([value]), k)
    assert got.tolist() == [round(Fraction(value) / Fraction(2) ** k)]


def test_shifts_of_scales() -> None:
    found = shifts_of(np.array([1.0, 0.25, 8.0, 2.0**-30], np.float32))
    assert found is not None and found.tolist() == [0, 2, -3, 30]
    assert shifts_of(np.array([0.5, 0.3], np.float32)) is None
    each = rounding_shift(np.array([[6, 6], [-6, -10]]), np.array([2, -1]))
    assert each.tolist() == [[2, 12], [-2, -20]]


@pytest.mark.parametrize("dtype", [DType.U8, DType.I8, DType.I16])
def test_results_saturate(dtype: DType) -> None:
    low, high = RANGES[dtype]
    acc = np.array([-(2**31), 2**31 - 1], np.int32)
    assert requantise_by_shift(acc, 1, 0, dtype).tolist() == [low, high]
