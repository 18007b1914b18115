"""Axis maps keep their word: the coupling of channels rests on it (test_onnx_corpus.py checks them on ONNX's own cases)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.compiler.axes import AxisMap, Dim, Iter
from sparsec.compiler.ops.arg_reduce import ArgReduce
from sparsec.compiler.ops.base import Op
from sparsec.compiler.ops.batch_norm import BatchNorm
from sparsec.compiler.ops.concat import Concat
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.conv_transpose import ConvTranspose
from sparsec.compiler.ops.group_norm import GroupNorm
from sparsec.compiler.ops.lrn import LRN
from sparsec.compiler.ops.map import Map
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.ops.pad import Pad
from sparsec.compiler.ops.pool import Pool
from sparsec.compiler.ops.reduce import Reduce
from sparsec.compiler.ops.reshape import Reshape
from sparsec.compiler.ops.resize import Resize
from sparsec.compiler.ops.softmax import Softmax
from sparsec.compiler.ops.transpose import Transpose
from sparsec.compiler.scalar import Program
from tests.compiler.ops.permutation import check_permutations, types_of

BIAS = Program.parse("add(a0,a1);relu(t0)")

# op, shapes of its float32 operands, the iteration dimensions that must be permutable (so that no map silently promises less)
CASES: list[tuple[Op, list[tuple[int, ...]], set[str]]] = [
    (Conv((1, 1), (1, 1), (1, 1, 1, 1)), [(2, 3, 5, 4), (6, 3, 3, 3)], {"N", "OC", "IC"}),
    (Conv((2,), (1,), (0, 0), epilogue=BIAS), [(2, 3, 9), (4, 3, 3), (4, 1)], {"N", "OC", "IC"}),
    (Conv((1, 1), (1, 1), (0,) * 4, 2, BIAS), [(2, 6, 4, 4), (8, 3, 2, 2), (2, 8, 3, 3)], {"N", "OC", "IC", "G"}),
    (Conv((1, 1), (1, 1), (1, 1, 1, 1), 4), [(1, 4, 5, 5), (4, 1, 3, 3)], {"N", "OC", "IC", "G"}),
    (ConvTranspose((2, 2), (1, 1), (1, 1, 1, 1), (1, 1)), [(2, 3, 4, 4), (3, 5, 3, 3)], {"N", "OC", "IC"}),
    (ConvTranspose((2,), (1,), (0, 0), (0,), 2, BIAS), [(2, 6, 5), (6, 4, 3), (8, 1)], {"N", "OC", "IC", "G"}),
    (MatMul(), [(2, 1, 3, 5), (4, 5, 6)], {"B0", "B1", "M", "N", "K"}),
    (MatMul(True, True, BIAS), [(5, 3), (6, 5), (6,)], {"M", "N", "K"}),
    (Map(Program.parse("add(a0,a1);mul(t0,a2)")), [(2, 3, 4), (3, 1), (4,)], {"d0", "d1", "d2"}),
    (BatchNorm(1e-5), [(2, 5, 3, 3), (5,), (5,), (5,), (5,)], {"N", "C", "d2", "d3"}),
    (GroupNorm(5, 1e-5), [(2, 5, 3, 3), (5,), (5,)], {"N", "G", "C", "d2", "d3"}),
    (GroupNorm(2, 1e-5), [(2, 6, 7), (6,), (6,)], {"N", "G", "C", "d2"}),
    (GroupNorm(1, 1e-5), [(2, 6, 7), (6,), (6,)], {"N", "G", "C", "d2"}),
    (LRN(3, 1e-2, 0.75, 1.0), [(2, 5, 3, 4)], {"d0", "d2", "d3"}),
    (Pool("max", (3, 3), (2, 2), (1, 1), (1, 1, 1, 1)), [(2, 3, 7, 6)], {"N", "C"}),
    (Pool("avg", (2,), (1,), (1,), (0, 1), include_pad=True), [(2, 3, 7)], {"N", "C"}),
    (Reduce("sum", (1,), True), [(2, 3, 4)], {"d0", "d1", "d2"}),
    (Reduce("max", (0, 2), False), [(2, 3, 4)], {"d0", "d1", "d2"}),
    (ArgReduce("max", 1, False), [(2, 3, 4)], {"d0", "d2"}),
    (Softmax(1), [(2, 5, 3)], {"d0", "d1", "d2"}),
    (Softmax(2, log=True), [(2, 5, 3)], {"d0", "d1", "d2"}),
    (Concat(1), [(2, 3, 4), (2, 5, 4), (2, 1, 4)], {"d0", "d1", "d2"}),
    (Transpose((2, 0, 1)), [(2, 3, 4)], {"d0", "d1", "d2"}),
    (Pad((0, 1, 0, 0, 2, 0), "constant", 3.0), [(2, 5, 4)], {"d0", "d1", "d2"}),
    (Pad((0, 1, 0, 0, 2, 0), "reflect"), [(2, 5, 4)], {"d0", "d2"}),
    (Pad((0, -1, 0, 0, 2, 0)), [(2, 5, 4)], {"d0", "d2"}),
    (Resize((2, 3, 8, 5), (1.0, 1.0, 2.0, 1.0), "linear"), [(2, 3, 4, 5)], {"d0", "d1", "d3"}),
    (Reshape((2, 12)), [(2, 3, 4)], {"r0", "r1", "r2"}),
    (Reshape((2, 2, 3, 4)), [(2, 6, 4)], {"r0", "r1", "r2", "r3"}),
    (Reshape((2, 2, 12)), [(2, 4, 6)], {"r0", "r1", "r2", "r3"}),  # positions behind one another: mergers on both sides
    (Reshape((2, 6, 4)), [(2, 4, 6)], {"r0"}),  # 4 and 6 do not divide each other
]


def _data(rng: np.random.Generator, shapes: list[tuple[int, ...]]) -> list[Any]:
    return [(np.abs(rng.standard_normal(s)) + 0.1 * rng.random(s)).astype(np.float32) for s in shapes]


@pytest.mark.parametrize(("op", "shapes", "permutable"), CASES, ids=lambda v: type(v).name if isinstance(v, Op) else None)
def test_permuting_what_the_map_declares_commutes_with_the_op(
    op: Op, shapes: list[tuple[int, ...]], permutable: set[str]
) -> None:
    rng = np.random.default_rng(0)
    assert check_permutations(op, _data(rng, shapes), rng) == permutable


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-5), (np.float16, 1e-2), (ml_dtypes.bfloat16, 5e-2)])
@pytest.mark.parametrize(("op", "shapes", "permutable"), CASES, ids=lambda v: type(v).name if isinstance(v, Op) else None)
def test_other_float_types_compute_the_same(
    op: Op, shapes: list[tuple[int, ...]], permutable: set[str], dtype: Any, tolerance: float
) -> None:
    data = _data(np.random.default_rng(0), shapes)
    for got, want in zip(op.evaluate([a.astype(dtype) for a in data]), op.evaluate(data), strict=True):
        assert got.dtype == (dtype if want.dtype == np.float32 else want.dtype)
        atol = tolerance * float(np.abs(want).max())
        np.testing.assert_allclose(got.astype(np.float64), want.astype(np.float64), rtol=0, atol=atol)


@settings(max_examples=40)
@given(st.data())
def test_axis_maps_hold_for_any_extents(data: st.DataObject) -> None:
    extent = st.integers(1, 5)
    n, c, g, h, w, k = (data.draw(extent) for _ in range(6))
    s, d, p = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 2)), data.draw(st.integers(0, 2))
    span = (k - 1) * d + 1
    h += span
    makers: list[Callable[[], tuple[Op, list[tuple[int, ...]]]]] = [
        lambda: (Conv((s, 1), (d, 1), (p, 0, p, 0), g, BIAS), [(n, g * c, h, w), (g * 2, c, k, 1), (g * 2, 1, 1)]),
        lambda: (ConvTranspose((s, 1), (d, 1), (0, 0, 0, 0), (0, 0), g), [(n, g * c, h, w), (g * c, 2, k, 1)]),
        lambda: (MatMul(data.draw(st.booleans())), [(n, c, c), (c, w)]),
        lambda: (Map(Program.parse("sub(a0,a1)")), [(n, c, h), data.draw(st.sampled_from([(c, 1), (h,), (1, 1, 1), (n, 1, h)]))]),
        lambda: (GroupNorm(g, 1e-3), [(n, g * c, w), (g * c,), (g * c,)]),
        lambda: (Pool("avg", (k, 1), (s, 1), (d, 1), (0, 0, 0, 0)), [(n, c, h, w)]),
        lambda: (Reduce("mean", data.draw(st.sampled_from([(0,), (1, 2), (0, 1, 2)])), data.draw(st.booleans())), [(n, c, w)]),
        lambda: (Concat(1), [(n, c, w), (n, g, w)]),
        lambda: (Pad((0, p, 0, 0, s, 0)), [(n, c, w)]),
        lambda: (
            Reshape(data.draw(st.sampled_from([(n * c, w), (n, c * w), (n * c * w,), (1, n, c, 1, w), (w * c, n), (n * w, c)]))),
            [(n, c, w)],
        ),
    ]
    op, shapes = data.draw(st.sampled_from(makers))()
    rng = np.random.default_rng(data.draw(st.integers(0, 2**16)))
    check_permutations(op, _data(rng, shapes), rng, tolerance=1e-4)


def test_a_wrong_map_is_found() -> None:
    """The check has teeth: a pool that claims its window dimension to be plain fails it."""

    class Lying(Pool):
        def axes(self, inputs: Any) -> AxisMap:
            line = tuple(Iter(f"d{i}") for i in range(3))
            return AxisMap(tuple(Dim(f"d{i}", n) for i, n in enumerate(inputs[0].shape)), (line,), (line,))

    op = Lying("max", (3,), (1,), (1,), (1, 1))
    rng = np.random.default_rng(0)
    data = _data(rng, [(2, 3, 8)])
    assert op.infer(types_of(data))[0].shape == (2, 3, 8)
    with pytest.raises(AssertionError, match="along"):
        check_permutations(op, data, rng)
