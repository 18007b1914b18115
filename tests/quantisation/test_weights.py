"""int8 weights and int32 biases."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from sparsec.passes.quantisation.weights import quantise_bias, quantise_weights

elements = st.floats(-1e3, 1e3, width=32)


@given(
    arrays(np.float32, array_shapes(min_dims=2, max_dims=4, max_side=5), elements=elements),
    st.integers(0, 1),
    st.booleans(),
    st.booleans(),
)
def test_errors_are_at_most_half_a_step_and_zeros_stay(w: np.ndarray, axis: int, per_channel: bool, power: bool) -> None:  # type: ignore[type-arg]
    found = quantise_weights(w, axis, per_channel=per_channel, power_of_two=power)
    assert found.data.dtype == np.int8 and found.data.min(initial=0) >= -127
    assert found.scale.shape == ((w.shape[axis],) if per_channel else ())
    assert not found.data[w == 0].any()
    column = found.scale.reshape([-1 if i == axis else 1 for i in range(w.ndim)]) if per_channel else found.scale
    if power:
        assert (np.frexp(found.scale)[0] == 0.5).all()
    else:
        assert (np.abs(found.real - w) <= 0.5001 * column + 1e-30).all()


def test_the_largest_weight_of_a_channel_is_127() -> None:
    w = np.array([[0.5, -2.0], [0.25, 0.125]], np.float32)
    assert quantise_weights(w, 0).data.tolist() == [[32, -127], [127, 64]]
    assert quantise_weights(w, 1).data.tolist() == [[127, -127], [64, 8]]
    assert quantise_weights(w, 0, per_channel=False).data.tolist() == [[32, -127], [16, 8]]


@pytest.mark.parametrize("largest", [0.0, 1e-30, 1e-12, 1e-3, 1.0])
@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("power", [True, False])
def test_a_bias_fits_whatever_the_weights(largest: float, per_channel: bool, power: bool) -> None:
    w, bias = np.full((3, 4), largest, np.float32), np.array([-5.0, 0.0, 1e-3], np.float32)
    found = quantise_weights(w, 0, per_channel=per_channel, power_of_two=power, bias=bias, x_scale=0.01)
    data, scale = quantise_bias(bias, 0.01, found.scale)
    assert data.dtype == np.int32 and np.abs(data.astype(np.int64)).max() <= 2**30
    np.testing.assert_array_equal(scale, np.float32(0.01) * found.scale)
    np.testing.assert_allclose(data * scale.astype(np.float64), bias, atol=np.maximum(scale, 1e-7).max())
