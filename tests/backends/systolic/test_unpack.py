"""Weights out of streams: what every dataflow and format encodes is decoded again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.backends.systolic import SEVEN, Dataflow, Machine, Mapping, lower, product
from sparsec.backends.systolic.isa import Format
from sparsec.backends.systolic.layers import Arrangement, parted
from sparsec.backends.systolic.lower import dense_image
from sparsec.backends.systolic.stream_error import StreamError
from sparsec.backends.systolic.unpack import unpack
from tests.backends.systolic.cases import Case, cases


@pytest.mark.parametrize("dataflow", SEVEN, ids=lambda d: d.value)
@given(case=cases(), form=st.sampled_from([None, Format.BITMAP, Format.COLUMNS]))
@settings(max_examples=25, deadline=None)
def test_weights_of_seven(dataflow: Dataflow, case: Case, form: Format | None) -> None:
    made = case.lowered(case.mapping(dataflow, form))
    found = unpack(made.stream, made.weights, *case.w.shape)
    assert found.dtype == case.w.dtype
    np.testing.assert_array_equal(found, case.w[None])


@pytest.mark.parametrize("dataflow", [Dataflow.NMOS, Dataflow.NMWS], ids=lambda d: d.value)
@given(case=cases(n_m=True))
@settings(max_examples=25, deadline=None)
def test_weights_of_groups(dataflow: Dataflow, case: Case) -> None:
    made = case.lowered(case.mapping(dataflow))
    np.testing.assert_array_equal(unpack(made.stream, made.weights, *case.w.shape), case.w[None])


@pytest.mark.parametrize("dataflow", [Dataflow.DOS, Dataflow.DWS, Dataflow.DIS], ids=lambda d: d.value)
@given(case=cases())
@settings(max_examples=25, deadline=None)
def test_images_of_computed_weights_are_those_of_constants(dataflow: Dataflow, case: Case) -> None:
    assert dense_image(case.machine, dataflow, case.w[None]) == case.lowered(case.mapping(dataflow)).weights


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 4), st.integers(1, 6), st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_arrangements_go_back(groups: int, rows: int, channels: int, taps: int, seed: int) -> None:
    value = np.random.default_rng(seed).integers(-9, 9, (groups * rows, channels, taps)).astype(np.int8)
    arrangement = Arrangement((groups, rows, channels, taps), (0, 1, 3, 2))
    matrices = arrangement.matrices(value)
    assert matrices.shape == (groups, rows, taps * channels)
    assert matrices[-1, 0, 0] == value[(groups - 1) * rows, 0, 0] and matrices[0, -1, -1] == value[rows - 1, -1, -1]
    np.testing.assert_array_equal(arrangement.value(matrices, value.shape), value)
    diagonal = np.zeros((groups, rows, taps, groups, channels), np.int8)
    for g in range(groups):
        diagonal[g, :, :, g] = matrices[g].reshape(rows, taps, channels)
    np.testing.assert_array_equal(parted(diagonal.reshape(groups * rows, -1), groups, channels), matrices)


def test_weights_outside_of_the_product() -> None:
    w = np.ones((3, 5), np.int8)
    made = lower(Machine("flexisaga", 2, 2, 1), [(product(w, np.ones((5, 1), np.int8)), Mapping(Dataflow.DWS))])
    with pytest.raises(StreamError, match=r"the strip has elements outside of W\[3, 4\]"):
        unpack(made.stream, made.weights, 3, 4)
