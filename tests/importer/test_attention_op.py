"""The Attention op: both storage forms, grouped queries, masks, axis map."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.compiler.axes import DimKind
from sparsec.compiler.dtypes import DType
from sparsec.compiler.errors import ModelError
from sparsec.compiler.ops.attention import Attention, split_heads
from sparsec.compiler.types import TensorType

Array = np.ndarray[Any, Any]


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return np.asarray(e / e.sum(-1, keepdims=True))


@settings(max_examples=15)
@given(
    b=st.integers(1, 3), g=st.integers(1, 3), r=st.integers(1, 2), s=st.integers(1, 5), length=st.integers(1, 6),
    d=st.integers(1, 4), dv=st.integers(1, 4), mask=st.sampled_from([None, (0,), (2,), (0, 1), (0, 1, 2), ()]),
)  # fmt: skip
def test_forms_agree(b: int, g: int, r: int, s: int, length: int, d: int, dv: int, mask: tuple[int, ...] | None) -> None:
    """Rank 3, rank 4 and the definition by loops agree; `mask` lists the mask's dimensions that are broadcast."""
    rng = np.random.default_rng(0)
    h = g * r
    q, k, v = (
        rng.standard_normal((b, s, h * d)),
        rng.standard_normal((b, length, g * d)),
        rng.standard_normal((b, length, g * dv)),
    )
    operands = [q, k, v]
    if mask is not None:
        operands.append(rng.standard_normal([1 if i in mask else n for i, n in enumerate((b, h, s, length))]))
    op = Attention(h, g, 0.3)
    types = [TensorType(DType.F64, a.shape) for a in operands]
    flat = op.evaluate(operands)[0]
    assert flat.shape == op.infer(types)[0].shape == (b, s, h * dv)
    q4, k4, v4 = split_heads(q, h), split_heads(k, g), split_heads(v, g)
    heads = op.evaluate([q4, k4, v4, *operands[3:]])[0]
    np.testing.assert_allclose(split_heads(flat, h), heads, rtol=1e-12)
    bias = np.broadcast_to(operands[3], (b, h, s, length)) if mask is not None else np.zeros((b, h, s, length))
    for i in range(b):
        for j in range(h):
            scores = q4[i, j] @ k4[i, j // r].T * 0.3 + bias[i, j]
            np.testing.assert_allclose(heads[i, j], softmax(scores) @ v4[i, j // r], rtol=1e-9)
    axes = op.axes(types)
    assert axes.dim("L").kind is axes.dim("D").kind is DimKind.REDUCED and axes.dim("DV").kind is DimKind.PARALLEL
    assert [len(a) for a in axes.inputs] == [a.ndim for a in operands]
    assert op.macs(types) == b * h * s * length * (d + dv)


@pytest.mark.parametrize(
    "heads, shapes, message",
    [
        ((3, 2), [(1, 2, 6), (1, 2, 4), (1, 2, 4)], "3 query heads cannot share 2"),
        ((2, 2), [(1, 2, 6), (1, 2, 4), (1, 2, 4)], "does not fit queries"),
        ((2, 2), [(1, 2, 4), (1, 3, 4), (1, 2, 4)], "does not fit queries"),
        ((2, 2), [(1, 2, 4), (1, 2, 4), (1, 2, 4), (3, 2)], "mask"),
        ((2, 2), [(2, 4), (2, 4), (2, 4)], "rank 3 or 4"),
    ],
)
def test_operands_must_fit(heads: tuple[int, int], shapes: list[tuple[int, ...]], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Attention(*heads, 1.0).infer([TensorType(DType.F32, s) for s in shapes])
