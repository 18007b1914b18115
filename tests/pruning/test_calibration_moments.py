"""Moments are those that numpy gives of all rows, whatever the layer and the batches."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.compiler.graph import Node
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.matmul import MatMul
from sparsec.passes.pruning.calibrated.moments import Moments, RowSampler, input_rows, output_positions, output_rows


@given(st.integers(0, 2**32), st.integers(1, 3), st.integers(1, 5), st.integers(1, 3), st.floats(-50, 50))
@settings(max_examples=40, deadline=None)
def test_moments_of_batches_are_those_of_all_rows(seed: int, groups: int, columns: int, outputs: int, offset: float) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((60, groups, columns)) + offset).astype(np.float32)
    t = (rng.standard_normal((60, groups * outputs)) - offset).astype(np.float32)
    m = Moments(groups, columns, groups * outputs)
    for part in np.split(np.arange(60), [1, 17, 40]):
        m.add(x[part], t[part])
    x64, t64 = x.astype(np.float64), t.astype(np.float64).reshape(60, groups, outputs)
    dx, dt = x64 - x64.mean(axis=0), t64 - t64.mean(axis=0)
    np.testing.assert_allclose(m.mean, x64.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(m.target_mean, t64.mean(axis=0).reshape(-1), atol=1e-4)
    np.testing.assert_allclose(m.target_variance, t64.var(axis=0).reshape(-1), atol=1e-4)
    np.testing.assert_allclose(m.covariance, np.einsum("ngi,ngj->gij", dx, dx) / 60, atol=1e-4)
    np.testing.assert_allclose(m.cross_covariance, np.einsum("ngo,ngi->goi", dt, dx) / 60, atol=1e-4)


@given(st.integers(0, 2**32), st.integers(1, 2), st.data())
@settings(max_examples=60, deadline=None)
def test_filters_times_input_rows_are_the_convolution(seed: int, rank: int, data: st.DataObject) -> None:
    def draw(low: int, high: int) -> tuple[int, ...]:
        return tuple(data.draw(st.integers(low, high)) for _ in range(rank))

    rng = np.random.default_rng(seed)
    groups, per_group, outputs = (data.draw(st.integers(1, 3)) for _ in range(3))
    kernel, strides, dilations, pads = draw(1, 3), draw(1, 2), draw(1, 2), (*draw(0, 2), *draw(0, 2))
    size = tuple((k - 1) * d + 1 + data.draw(st.integers(0, 3)) for k, d in zip(kernel, dilations, strict=True))
    node = Node("conv", Conv(strides, dilations, pads, groups), ("x", "w"), ("y",))
    x = rng.standard_normal((2, groups * per_group, *size)).astype(np.float32)
    w = rng.standard_normal((groups * outputs, per_group, *kernel)).astype(np.float32)
    (y,) = node.op.evaluate([x, w])
    positions = output_positions(node, y.shape)
    rows = RowSampler(5, 1, seed).rows(0, positions)
    assert len(rows) == min(5, positions)
    patches = input_rows(node, x, kernel, y.shape[2:], rows)
    filters = np.moveaxis(w.reshape(groups, outputs, per_group, -1), 2, 3).reshape(groups, outputs, -1)
    got = np.einsum("ngk,gok->ngo", patches, filters).reshape(len(rows), -1)
    np.testing.assert_allclose(got, output_rows(node, y, rows), rtol=1e-4, atol=1e-4)


def test_rows_of_a_product_are_all_but_the_last_dimension() -> None:
    node = Node("product", MatMul(), ("x", "w"), ("y",))
    x, w = (np.random.default_rng(0).standard_normal(s).astype(np.float32) for s in ((2, 3, 4, 5), (5, 6)))
    y = x @ w
    rows = np.array([0, 7, 23])
    assert output_positions(node, y.shape) == 24
    np.testing.assert_allclose(input_rows(node, x, (), (), rows)[:, 0] @ w, output_rows(node, y, rows), rtol=1e-5)


def test_sampled_rows_differ_by_seed_and_batch_only() -> None:
    first, second = (RowSampler(100, 4, seed) for seed in (0, 1))
    np.testing.assert_array_equal(first.rows(2, 500), RowSampler(100, 4, 0).rows(2, 500))
    assert len(first.rows(0, 500)) == 25
    assert (first.rows(0, 500) != first.rows(1, 500)).any()
    assert (first.rows(0, 500) != second.rows(0, 500)).any()
    np.testing.assert_array_equal(first.rows(0, 7), np.arange(7))
