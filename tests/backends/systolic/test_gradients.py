"""Gradients of the host's operators against differences, and layers' forms as maps with a transpose."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.backends.systolic.gradients import host_gradients
from sparsec.backends.systolic.scalar_gradients import PARTIALS, program_gradients
from sparsec.backends.systolic.training_forms import ConvForm, Form, MatMulForm
from sparsec.backends.systolic.windows import Geometry
from sparsec.compiler.errors import UsageError
from sparsec.compiler.graph import Node
from sparsec.compiler.ops.base import Op
from sparsec.compiler.ops.concat import Concat
from sparsec.compiler.ops.expand import Expand
from sparsec.compiler.ops.gather import Gather
from sparsec.compiler.ops.gather_elements import GatherElements
from sparsec.compiler.ops.gather_nd import GatherND
from sparsec.compiler.ops.layer_norm import LayerNorm
from sparsec.compiler.ops.lrn import LRN
from sparsec.compiler.ops.map import Map
from sparsec.compiler.ops.pad import Pad
from sparsec.compiler.ops.pool import Pool
from sparsec.compiler.ops.reduce import Reduce
from sparsec.compiler.ops.reshape import Reshape
from sparsec.compiler.ops.resize import Resize
from sparsec.compiler.ops.slice import Slice
from sparsec.compiler.ops.softmax import Softmax
from sparsec.compiler.ops.tile import Tile
from sparsec.compiler.ops.transpose import Transpose
from sparsec.compiler.scalar import FUNCTIONS, Arg, Program

Array = np.ndarray[Any, Any]
OPS: list[tuple[Op, list[tuple[int, ...]]]] = [
    (Map(Program.parse("mul(a0,a1);add(t0,a2);gelu(t1);mul(t2,2.0)")), [(2, 3, 4), (3, 1), (4,)]),
    (Reshape((6, 4)), [(2, 3, 4)]),
    (Transpose((2, 0, 1)), [(2, 3, 4)]),
    (Concat(1), [(2, 3), (2, 5), (2, 1)]),
    (Slice((1, 0), (1, 2), (2, 3)), [(4, 6)]),
    (Pool("max", (3, 2), (2, 1), (1, 1), (1, 0, 1, 1)), [(2, 3, 7, 6)]),
    (Pool("avg", (3, 2), (2, 1), (1, 1), (1, 0, 1, 1), ceil=True), [(2, 3, 7, 6)]),
    (Pool("avg", (3,), (2,), (2,), (1, 1), include_pad=True), [(2, 3, 9)]),
    (Pool("lp", (2, 2), (2, 2), (1, 1), (0, 0, 1, 1), p=3), [(2, 3, 5, 6)]),
    (Expand((2, 3, 4)), [(3, 1)]),
    (Tile((2, 1, 3)), [(2, 3, 2)]),
    (Pad((1, 0, -1, 2), "constant", 3.0), [(3, 4)]),
    (Pad((2, 1, 0, 2), "reflect"), [(3, 4)]),
    (Resize((1, 2, 6, 5), (1.0, 1.0, 2.0, 1.25)), [(1, 2, 3, 4)]),
    (Reduce("mean", (1, 2), True), [(2, 3, 4)]),
    (Reduce("sum", (0,), False), [(2, 3, 4)]),
    (Reduce("max", (1,), False), [(2, 3, 4)]),
    (Reduce("min", (0, 2), True), [(2, 3, 4)]),
    (Softmax(1), [(2, 5, 3)]),
    (Softmax(1, log=True), [(2, 5, 3)]),
    (LayerNorm(1, 1e-5), [(3, 4, 5), (4, 5), (5,)]),
    (LayerNorm(2, 1e-5), [(3, 4, 5)]),
    (LayerNorm(2, 1e-5, rms=True), [(3, 4, 5), (5,)]),
    (LRN(3, 0.5, 0.75, 2.0), [(2, 5, 3)]),
    (LRN(4, 0.5, 0.75, 2.0), [(2, 6, 3)]),
]


def differences(op: Op, operands: list[Array], upstream: Array, which: int, along: Array) -> float:
    """Of the sum of results weighted with `upstream`."""
    found = []
    for change in (1e-6, -1e-6):
        moved = [a + change * along if i == which else a for i, a in enumerate(operands)]
        found.append(float((op.evaluate(moved)[0] * upstream).sum()))
    return (found[0] - found[1]) / 2e-6


@pytest.mark.parametrize(("op", "shapes"), OPS, ids=lambda v: v.name if isinstance(v, Op) else "")
def test_operators(op: Op, shapes: list[tuple[int, ...]]) -> None:
    rng = np.random.default_rng(2)
    operands = [rng.standard_normal(s) for s in shapes]
    (result,) = op.evaluate(operands)
    upstream = rng.standard_normal(result.shape)
    found = host_gradients(Node("n", op, tuple("abc"[: len(shapes)]), ("y",)), operands, result, upstream)
    assert len(found) == len(shapes)
    for i in range(len(shapes)):
        along = rng.standard_normal(shapes[i])
        assert found[i].shape == shapes[i]
        assert float((found[i] * along).sum()) == pytest.approx(differences(op, operands, upstream, i, along), rel=1e-5)


DOMAINS = dict.fromkeys(("sqrt", "rsqrt", "log", "pow"), (0.3, 2.0)) | {
    "acosh": (1.2, 3.0),
    **dict.fromkeys(("asin", "acos", "atanh"), (-0.9, 0.9)),
    "hard_swish": (-5.0, 5.0),
}


@pytest.mark.parametrize("fn", PARTIALS)
def test_functions(fn: str) -> None:
    rng = np.random.default_rng(4)
    low, high = DOMAINS.get(fn, (-2.0, 2.0))
    arity = FUNCTIONS[fn].arity
    operands: list[Array] = [rng.uniform(low, high, 20) for _ in range(arity)]
    if fn == "where":
        operands[0] = operands[0] > 0
    program = Program().then(fn, *(Arg(i) for i in range(arity)))
    upstream = rng.standard_normal(20)
    found = program_gradients("n", program, operands, upstream)
    for i in range(fn == "where", arity):
        along = rng.standard_normal(20)
        expected = differences(Map(program), operands, upstream, i, along)
        assert float((found[i] * along).sum()) == pytest.approx(expected, rel=1e-5)


def test_a_maximum_of_equals_goes_to_the_first() -> None:
    op = Pool("max", (2,), (2,), (1,), (0, 0))
    x = np.array([[[0.0, 0.0, 1.0, 1.0, 3.0, 2.0]]], np.float32)
    (found,) = host_gradients(Node("n", op, ("x",), ("y",)), [x], op.evaluate([x])[0], np.array([[[5, 6, 7]]], np.float32))
    np.testing.assert_array_equal(found, [[[5, 0, 6, 0, 7, 0]]])


INDEXED: list[tuple[Op, Array, Array]] = [
    (Gather(1), np.arange(24.0).reshape(2, 4, 3), np.array([[3, -4], [3, 1]])),
    (GatherElements(1), np.arange(12.0).reshape(3, 4), np.array([[0, 0, 3], [1, -1, 1]])),
    (GatherND(1), np.arange(24.0).reshape(2, 4, 3), np.array([[[3, 2], [3, 2]], [[0, 1], [2, 2]]])),
]


@pytest.mark.parametrize(("op", "x", "index"), INDEXED, ids=lambda v: v.name if isinstance(v, Op) else "")
def test_what_is_gathered_twice_gets_both_gradients(op: Op, x: Array, index: Array) -> None:
    rng = np.random.default_rng(2)
    (result,) = op.evaluate([x, index])
    upstream, along = rng.standard_normal(result.shape), rng.standard_normal(x.shape)
    found = host_gradients(Node("n", op, ("x", "i"), ("y",)), [x, index], result, upstream)
    assert float((found[0] * along).sum()) == pytest.approx(differences(op, [x, index], upstream, 0, along), rel=1e-5)
    assert not found[1].any()


def test_comparisons_and_casts_to_whole_numbers_end_gradients() -> None:
    x, upstream = np.array([0.0, 2.0, -3.0]), np.array([1.0, 2.0, 3.0])
    for text, expected in (
        ("eq(a0,0.0);div(1.0,a0);where(t0,0.0,t1)", [0, -0.5, -1 / 3]),  # not an infinity at 0
        ("cast.i64(a0);cast.f64(t0);mul(t1,a0)", [0, 4, -9]),
        ("cast.f32(a0);cast.f64(t0);mul(t1,a0)", [0, 8, -18]),
    ):
        (found,) = program_gradients("n", Program.parse(text), [x], upstream)
        np.testing.assert_allclose(found, expected)


def test_operators_without_a_gradient() -> None:
    x = np.ones((1, 1, 4), np.float32)
    with pytest.raises(UsageError, match="node 'n' is a Reduce, which has no gradient here"):
        host_gradients(Node("n", Reduce("prod", (2,)), ("x",), ("y",)), [x], x, x)
    with pytest.raises(UsageError, match="node 'n' computes floor, which has no gradient here"):
        program_gradients("n", Program.parse("floor(a0)"), [x], x)


@st.composite
def forms(draw: st.DrawFn) -> tuple[Form, tuple[int, ...], tuple[int, int, int]]:
    """A form, the shape of a batch of its data, and products, M and P."""
    batch, products, m = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 4))
    if draw(st.booleans()):
        rows, k, turned = draw(st.integers(1, 4)), draw(st.integers(1, 5)), draw(st.booleans())
        shape = (products, k, rows) if turned else (products, rows, k)
        return MatMulForm(products, shape, (products, rows, m), turned), (batch, *shape), (products, m, batch * rows)
    images, kernel = draw(st.integers(1, 2)), (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    pairs = [(draw(st.integers(1, 2)), draw(st.integers(1, 2))) for _ in range(2)]
    geometry = Geometry(draw(st.integers(1, 3)), 7, 8, kernel, *pairs, (1, 0, 2, 1))
    high, wide = geometry.out
    data = (batch, images, products * geometry.channels, 7, 8)
    return ConvForm(images, products, geometry), data, (products, m, batch * images * high * wide)


@given(forms(), st.integers(0, 2**32 - 1))
@settings(max_examples=80, deadline=None)
def test_forms_have_a_transpose_and_an_inverse(made: tuple[Form, tuple[int, ...], tuple[int, int, int]], seed: int) -> None:
    form, shape, (products, m, positions) = made
    rng = np.random.default_rng(seed)
    data = rng.integers(-9, 10, shape).astype(np.float64)
    columns = form.columns(data)
    assert columns.shape[0] == products and columns.shape[2] == positions
    other = rng.integers(-9, 10, columns.shape).astype(np.float64)
    assert form.spread(other).shape == shape
    assert float((columns * other).sum()) == float((data * form.spread(other)).sum())
    sums = rng.integers(-9, 10, (products, m, positions))
    np.testing.assert_array_equal(form.sums(form.result(sums)), sums)
