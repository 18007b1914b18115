"""Vector patterns: masks have their form and are the best of it, and pruning a model leaves them."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

import models
from benchmarks.vector_patterns import SELECTED, Vectors, parse, prune_vectors
from sparsec.compiler.sparsity.text import parse_goal
from sparsec.passes.pruning.calibrated.importance import Importance
from sparsec.passes.pruning.calibrated.reconstruct import Settings

shapes = st.tuples(st.integers(1, 40), st.integers(1, 4), st.integers(1, 5))


@settings(max_examples=40, deadline=None)
@given(shapes, st.integers(1, 32), st.sampled_from([0.5, 0.75]), st.integers(0, 9))
def test_ovw_keeps_the_best_columns_of_every_tile(shape: tuple[int, int, int], v: int, sparsity: float, seed: int) -> None:
    oc, taps, groups = shape
    score = np.random.default_rng(seed).random((oc, taps, 4 * groups))
    mask = Vectors(v, sparsity).mask(score)
    kept = round((1 - sparsity) * taps * 4 * groups)
    for begin in range(0, oc, v):
        tile, sums = mask[begin : begin + v], score[begin : begin + v].sum(axis=0)
        assert (tile == tile[0]).all()
        assert sorted(sums[tile[0]]) == sorted(np.sort(sums.reshape(-1))[::-1][:kept])


@settings(max_examples=40, deadline=None)
@given(shapes, st.integers(1, 32), st.sampled_from([(2, 5), (2, 8), (1, 6)]), st.integers(0, 9))
def test_vnm_keeps_four_columns_and_n_of_them(shape: tuple[int, int, int], v: int, nm: tuple[int, int], seed: int) -> None:
    (oc, taps, groups), (n, m) = shape, nm
    score = np.random.default_rng(seed).random((oc, taps, m * groups))
    mask = Vectors(v, 1 - n / m, n, m).mask(score)
    assert mask.mean() == pytest.approx(n / m)
    for begin in range(0, oc, v):
        for tap in range(taps):
            for group in range(0, m * groups, m):
                part, kept = (a[begin : begin + v, tap, group : group + m] for a in (score, mask))
                best = max(combinations(range(m), SELECTED), key=lambda c: part[:, list(c)].sum())
                rows = [sorted(best, key=lambda c: -row[c])[:n] for row in part]
                assert [set(np.flatnonzero(k)) for k in kept] == [set(r) for r in rows]


def test_texts() -> None:
    assert parse("ovw:32@75%") == Vectors(32, 0.75)
    assert parse("vnm:16:2:8") == Vectors(16, 0.75, 2, 8)
    assert parse("2:4") is None and parse("block:8x8@50%") is None
    nearest = [parse_goal(p.nearest) for t in ("ovw:32@75%", "vnm:16:2:8", "ovw:4@50%") if (p := parse(t))]
    assert [g.sparsity for g in nearest] == [0.75, 0.5, 0.5]
    with pytest.raises(ValueError, match="12 input channels are no multiple of 8"):
        Vectors(16, 0.75, 2, 8).mask(np.ones((16, 1, 12)))


@pytest.mark.parametrize("use", [None, Settings(Importance.obs, refit=True, threads=1)], ids=["plain", "calibrated"])
@pytest.mark.parametrize("reorder", [False, True], ids=["", "permuted"])
def test_a_pruned_model_has_the_pattern(use: Settings | None, reorder: bool) -> None:
    model = models.build("tiny_cnn")
    layers = [n for n in model.graph.node if n.op_type == "Conv"]
    target = layers[1]
    feeds = {name: np.repeat(a, 8, axis=0) for name, a in models.inputs(model).items()}
    if model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1:
        feeds = models.inputs(model)
    pattern = Vectors(4, 0.5)
    done = prune_vectors(
        model, pattern, lambda text: {"layer": [{"match": target.name, "pattern": text}]}, feeds, use, reorder=reorder
    )
    assert done.density == 0.5
    w = _weights(done.proto, target.input[1])
    mask = (w != 0).reshape(len(w), -1)
    for begin in range(0, len(w), 4):
        assert (mask[begin : begin + 4] == mask[begin]).all() and mask[begin].mean() == 0.5
    same = np.array_equal(w[w != 0], _weights(model, target.input[1])[w != 0])
    assert same == (use is None and not reorder)


def _weights(proto: onnx.ModelProto, name: str) -> np.ndarray:
    return numpy_helper.to_array(next(t for t in proto.graph.initializer if t.name == name))
