"""The measure of error, and the verification of a runner against a reference."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsec.compiler.errors import VerificationError
from sparsec.compiler.verify_model import compare, relative_error, verify_model

F = np.float32
INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("value", "reference", "error"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 2.5], [1.0, 2.0], 0.25),
        ([0.0, -3.0], [0.5, -4.0], 0.25),
        ([0.0], [0.0], 0.0),
        ([1e-9], [0.0], INF),
        ([INF, 1.0], [INF, 1.0], 0.0),
        ([-INF, 1.0], [INF, 1.0], INF),
        ([NAN, 1.0], [NAN, 1.5], 1 / 3),
        ([NAN], [1.0], INF),
        ([INF], [1.0], INF),
        ([1.0], [NAN], INF),
        ([NAN, NAN], [NAN, NAN], 0.0),
        ([], [], 0.0),
    ],
)
def test_relative_error(value: list[float], reference: list[float], error: float) -> None:
    assert relative_error(np.array(value, F), np.array(reference, F)) == pytest.approx(error)


def test_another_shape_is_infinitely_wrong() -> None:
    assert relative_error(np.zeros((2, 1), F), np.zeros(2, F)) == INF


def test_integers_and_booleans_are_compared_as_numbers() -> None:
    assert relative_error(np.array([3, 5]), np.array([3, 4])) == 0.25
    assert relative_error(np.array([True]), np.array([True])) == 0.0
    assert relative_error(np.array([False, True]), np.array([True, True])) == 1.0


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=8), st.floats(1e-6, 10.0))
def test_the_error_does_not_depend_on_the_scale(values: list[float], scale: float) -> None:
    reference = np.array(values, np.float64)
    value = reference + 0.25
    assert relative_error(value * scale, reference * scale) == pytest.approx(relative_error(value, reference), rel=1e-6)


def test_a_check_says_where() -> None:
    check = compare("y", np.array([[1.0, 2.0], [3.0, 9.0]], F), np.array([[1.0, 2.0], [4.0, 4.0]], F), sample=2)
    assert (check.where, check.value, check.reference, check.error, check.sample) == (3, 9.0, 4.0, 1.25, 2)
    nan = compare("y", np.array([1.0, NAN], F), np.array([7.0, 1.0], F))
    assert nan.where == 1 and np.isnan(nan.value)


def test_a_wrong_output_is_named_with_its_element() -> None:
    feeds = [{"x": np.array([1.0, 2.0], F)}, {"x": np.array([4.0, 8.0], F)}]
    right = verify_model(lambda f: {"y": f["x"]}, lambda f: {"y": f["x"]}, feeds)
    assert right.ok
    right.require()
    wrong = verify_model(lambda f: {"y": f["x"] + 1, "z": f["x"]}, lambda f: {"y": f["x"], "z": f["x"]}, feeds)
    assert not wrong.ok and wrong.worst.sample == 0 and wrong.worst.error == 0.5
    with pytest.raises(VerificationError, match=r"output 'y' .* is 0\.5 on input set 0, more than 0\.0001 \(element 0: 2,"):
        wrong.require()
