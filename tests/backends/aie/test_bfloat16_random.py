"""Random layers of bfloat16 on the array: emitted files, executed, equal to the interpreter on whole numbers."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.backends.aie.bfloat16_layers import convolution, equal, maximum, product

CUTS = st.sampled_from(["", "relu(t-1)", "relu(t-1);min(t-1,20.0)", "max(t-1,-3.0)", "min(t-1,11.0)"])
TARGETS = st.sampled_from(["aie2:2x2", "aie2:2x2", "aie2:npu1"])  # what cores compute depends little on how many there are


@settings(max_examples=4, deadline=None)
@given(data=st.data())
def test_any_convolution_of_whole_numbers_is_exact(data: st.DataObject) -> None:
    draw = data.draw
    kernel = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    top, left, bottom, right = (draw(st.integers(0, k - 1)) for k in (*kernel, *kernel))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    graph = convolution(
        rng,
        (draw(st.integers(1, 30)), draw(st.integers(1, 40))),
        (draw(st.integers(kernel[0], 14)), draw(st.integers(kernel[1], 14))),
        kernel,
        stride=draw(st.integers(1, 2)),
        pads=(top, left, bottom, right),
        residual=draw(st.booleans()),
        cut=draw(CUTS),
        density=draw(st.sampled_from([1.0, 0.5, 0.1])),
    )
    equal(graph, rng, target=draw(TARGETS))


@settings(max_examples=5, deadline=None)
@given(
    st.tuples(st.integers(1, 70), st.integers(1, 90), st.integers(1, 90)),
    st.booleans(),
    CUTS,
    st.sampled_from([1.0, 0.5, 0.1]),
    st.integers(0, 99),
    TARGETS,
)
def test_any_product_of_whole_numbers_is_exact(
    sizes: tuple[int, int, int], residual: bool, cut: str, density: float, seed: int, target: str
) -> None:
    rng = np.random.default_rng(seed)
    equal(product(rng, sizes, residual=residual, cut=cut, density=density), rng, target=target)


@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_any_depthwise_convolution_of_whole_numbers_is_exact(data: st.DataObject) -> None:
    draw = data.draw
    kernel = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    top, left, bottom, right = (draw(st.integers(0, k - 1)) for k in (*kernel, *kernel))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    graph = convolution(
        rng,
        (draw(st.integers(2, 60)), 0),
        (draw(st.integers(kernel[0], 20)), draw(st.integers(kernel[1], 20))),
        kernel,
        stride=draw(st.integers(1, 3)),
        pads=(top, left, bottom, right),
        residual=draw(st.booleans()),
        cut=draw(CUTS),
        depthwise=True,
    )
    equal(graph, rng, target=draw(TARGETS))


@settings(max_examples=4, deadline=None)
@given(data=st.data())
def test_any_maximum_of_windows_is_exact(data: st.DataObject) -> None:
    draw = data.draw
    kernel = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    top, left, bottom, right = (draw(st.integers(0, k - 1)) for k in (*kernel, *kernel))
    shape = 1, draw(st.integers(1, 50)), draw(st.integers(kernel[0], 17)), draw(st.integers(kernel[1], 17))
    graph = maximum(shape, kernel, draw(st.integers(1, 3)), (top, left, bottom, right))
    equal(graph, np.random.default_rng(draw(st.integers(0, 99))), target=draw(TARGETS))
