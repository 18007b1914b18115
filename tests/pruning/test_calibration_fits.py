"""Fits that look at what becomes of a layer's results: through a rectifier, and to a softmax; and values kept between layers."""

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from sparsec.passes.pruning.calibrated import solve
from sparsec.passes.pruning.calibrated.data import Samples
from sparsec.passes.pruning.calibrated.importance import Outputs
from sparsec.passes.pruning.calibrated.reconstruct import Settings
from sparsec.passes.pruning.calibrated.rectified import Rows, fit_rectified
from sparsec.passes.pruning.calibrated.run import Probe
from sparsec.passes.pruning.calibrated.softmax_fit import Logits, fit_softmax, log_softmax
from sparsec.passes.pruning.calibrated.solve import SupportSolver, on_support, regularised
from sparsec.passes.pruning.model import prune
from sparsec.passes.pruning.recipe import make_recipe
from tests.reference import make_model

Array = np.ndarray[Any, Any]
SEEDS = st.integers(0, 2**32)


def rows_of(rng: np.random.Generator, groups: int, columns: int, outputs: int, level: float) -> tuple[Rows, Array]:
    """Rows of a random layer with weights [groups, outputs, columns], whose results are wanted as they are."""
    x = (rng.standard_normal((300, groups, columns)) + rng.standard_normal((300, 1, 1))).astype(np.float32)
    w = rng.standard_normal((groups, outputs, columns))
    t = np.einsum("ngk,gok->ngo", x, w).reshape(len(x), -1).astype(np.float32)
    sign = np.where(rng.random(t.shape[1]) < 0.7, 1, -1).astype(np.float32)
    scale = rng.uniform(0.5, 2, t.shape[1]).astype(np.float32)
    return Rows(x, t, np.full(t.shape, level, np.float32), sign, scale), w


def linear(rows: Rows, w: Array, mask: Array, share: float) -> tuple[list[SupportSolver], Array, Array]:
    """Solvers, plain least squares on the masks, and the ridges."""
    solvers, found, ridges = [], [], []
    for g, one in enumerate(w):
        h = np.cov(rows.x[:, g].T.astype(np.float64), bias=True).reshape(one.shape[1], -1)
        a, b = regularised(h, one @ h, one, share)
        solvers.append(SupportSolver(a, mask[g]))
        found.append(on_support(a, b, mask[g], one))
        ridges.append(a[0, 0] - h[0, 0])
    return solvers, np.stack(found), np.array(ridges)


def passed(rows: Rows, w: Array, constant: Array) -> float:
    """Mean squared error of what passes the rectifier."""
    y = np.einsum("ngk,gok->ngo", rows.x, w).reshape(rows.t.shape) + constant
    ours, theirs = (np.maximum((a - rows.level) * rows.sign, 0) for a in (y, rows.t))
    return float((np.square(ours - theirs) * np.square(rows.scale)).mean())


@given(SEEDS, st.integers(1, 2), st.integers(2, 8), st.integers(1, 4), st.floats(0.3, 0.9))
@settings(max_examples=30, deadline=None)
def test_fits_through_a_rectifier_keep_zeros_and_are_no_worse(
    seed: int, groups: int, columns: int, outputs: int, density: float
) -> None:
    rng = np.random.default_rng(seed)
    rows, w = rows_of(rng, groups, columns, outputs, level=0.3)
    mask = rng.random(w.shape) < density
    solvers, plain, ridge = linear(rows, w, mask, 1e-6)
    found = fit_rectified(rows, solvers, plain, w, ridge)
    assert not found.w[~mask].any()
    means = (plain * rows.x.mean(axis=0)[:, None, :]).sum(axis=2).reshape(-1)
    y = np.einsum("ngk,gok->ngo", rows.x, plain).reshape(rows.t.shape) + rows.t.mean(axis=0) - means
    surrogate = rows.loss(rows.errors(y))  # what the fit lowers is never below what passes
    assert passed(rows, found.w, found.constant) <= surrogate + 1e-5


def test_fits_through_a_rectifier_gain_where_much_is_hidden() -> None:
    gains = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        rows, w = rows_of(rng, 1, 16, 8, level=1.0)
        mask = rng.random(w.shape) < 0.5
        solvers, plain, ridge = linear(rows, w, mask, 1e-6)
        found = fit_rectified(rows, solvers, plain, w, ridge)
        constant = rows.t.mean(axis=0) - (plain * rows.x.mean(axis=0)[:, None, :]).sum(axis=2).reshape(-1)
        gains.append(passed(rows, found.w, found.constant) / passed(rows, plain, constant))
    assert max(gains) < 0.97


def test_where_all_passes_the_fit_is_plain_least_squares() -> None:
    rng = np.random.default_rng(3)
    rows, w = rows_of(rng, 2, 6, 3, level=0.0)
    rows = Rows(rows.x, rows.t, np.full_like(rows.t, -1e3), np.ones_like(rows.sign), rows.scale)
    mask = rng.random(w.shape) < 0.6
    solvers, plain, ridge = linear(rows, w, mask, 0.01)
    found = fit_rectified(rows, solvers, plain, w, ridge)
    np.testing.assert_allclose(found.w, plain, atol=1e-4)


def test_supports_too_large_to_factor_take_steps_that_lower_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    x = rng.standard_normal((200, 30))
    a, b, mask = x.T @ x / 200, rng.standard_normal((7, 30)), rng.random((7, 30)) < 0.5
    exact = SupportSolver(a, mask).solve(b)
    np.testing.assert_allclose(exact, on_support(a, b, mask, b), atol=1e-10)
    monkeypatch.setattr(solve, "_BYTES", 0)
    rough = SupportSolver(a, mask).solve(b)
    assert not rough[~mask].any()
    losses = [((v @ a - 2 * b) * v).sum() for v in (exact, rough, np.zeros_like(b))]
    assert losses[0] <= losses[1] < losses[2]


def logits_of(seed: int, samples: int, columns: int, classes: int) -> tuple[Logits, Array]:
    """Inputs that lack some of what the dense logits were computed from, and least squares to these."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((samples, columns + 3)) + 1
    dense = 2 * x @ rng.standard_normal((columns + 3, classes))
    one = np.concatenate([x[:, :columns], np.ones((samples, 1))], axis=1)
    return Logits(x[:, :columns], dense), np.linalg.lstsq(one, dense, rcond=None)[0].T


@given(SEEDS, st.integers(8, 400), st.integers(1, 12), st.integers(2, 6))
@settings(max_examples=25, deadline=None)
def test_fitted_logits_stay_finite_and_are_no_further_from_the_dense_softmax(
    seed: int, samples: int, columns: int, classes: int
) -> None:
    """Over the samples that it was fitted to, but for what the held-out ones cost when all are taken."""
    logits, start = logits_of(seed, samples, columns, classes)
    found = fit_softmax(logits, start, 0.01)
    assert found.shape == start.shape
    assert np.isfinite(found).all()
    assert logits.divergence(found) <= logits.divergence(start) + 1e-6


def test_fitted_logits_predict_new_samples_better() -> None:
    """By divergence, on samples drawn alike that the fit has not seen."""
    both, _ = logits_of(0, 4000, 8, 5)
    some, others = (Logits(both.x[half], both.dense[half]) for half in (slice(2000), slice(2000, None)))
    one = np.concatenate([some.x, np.ones((2000, 1))], axis=1)
    start = np.linalg.lstsq(one, some.dense, rcond=None)[0].T
    found = fit_softmax(some, start, 0.01)
    assert others.divergence(found) < 0.9 * others.divergence(start)


def test_logits_that_are_right_stay() -> None:
    logits, _ = logits_of(1, 100, 4, 3)
    w = np.random.default_rng(1).standard_normal((3, 5))
    exact = Logits(logits.x, np.concatenate([logits.x, np.ones((100, 1))], axis=1) @ w.T)
    np.testing.assert_allclose(fit_softmax(exact, w, 0.01), w, atol=1e-4)


def classifier(*tail: onnx.NodeProto, output: str) -> onnx.ModelProto:
    rng = np.random.default_rng(2)
    weights = {n: rng.standard_normal(s).astype(np.float32) for n, s in (("w", (8, 32)), ("v", (32, 4)), ("b", (4,)))}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], name="hidden"), helper.make_node("Relu", ["m"], ["r"]),
        helper.make_node("Gemm", ["r", "v", "b"], ["y"], name="last"), *tail,
    ]  # fmt: skip
    return make_model(nodes, {"x": (TensorProto.FLOAT, ["n", 8])}, [output], weights, opset=17)


@pytest.mark.parametrize("softmax", [False, True])
def test_a_pruned_classifier_is_closer_in_softmax_and_further_in_values(softmax: bool) -> None:
    tail = [helper.make_node("Softmax", ["y"], ["p"])] if softmax else []
    model = classifier(*tail, output="p" if softmax else "y")
    x = np.random.default_rng(3).standard_normal((1000, 8)).astype(np.float32)
    samples, probe = Samples(({"x": x[500:]},)), Probe(model, 1)
    ((dense,),) = probe.batches(samples, ["y"])
    divergence, error = {}, {}
    for outputs in Outputs:
        pruned = prune(model, "1:4", data={"x": x[:500]}, settings=Settings(outputs=outputs, threads=1))
        ((y,),) = Probe(pruned.proto, 1).batches(samples, ["y"])
        assert ("fitted to the dense softmax" in pruned.report.layers[-1].remarks) == (outputs is Outputs.softmax)
        p, q = log_softmax(dense), log_softmax(y)
        divergence[outputs], error[outputs] = float((np.exp(p) * (p - q)).sum(axis=1).mean()), float(np.square(y - dense).mean())
    assert divergence[Outputs.softmax] < divergence[Outputs.values]
    assert error[Outputs.softmax] > error[Outputs.values]


def test_a_classifier_that_is_pruned_keeps_its_pattern() -> None:
    recipe = make_recipe({"pattern": "2:4", "spare": []})
    x = np.random.default_rng(3).standard_normal((300, 8)).astype(np.float32)
    pruned = prune(classifier(output="y"), recipe, data={"x": x}, settings=Settings(threads=1))
    assert [layer.kept / layer.elements for layer in pruned.report.layers] == [0.5, 0.5]


def test_what_is_not_given_as_logits_is_fitted_by_value() -> None:
    """A layer whose results something else reads: both ways of comparing outputs do the same."""
    model = classifier(helper.make_node("Sigmoid", ["y"], ["s"]), output="s")
    x = np.random.default_rng(3).standard_normal((200, 8)).astype(np.float32)
    one, two = (
        prune(model, "1:4", data={"x": x}, settings=Settings(outputs=outputs, threads=1)).proto.SerializeToString()
        for outputs in Outputs
    )
    assert one == two


def test_values_that_are_kept_are_not_computed_again() -> None:
    model = classifier(output="y")
    rng = np.random.default_rng(5)
    samples = Samples(tuple({"x": rng.standard_normal((3, 8)).astype(np.float32)} for _ in range(2)))
    probe = Probe(model, 1)
    before = [arrays[0] for arrays in probe.batches(samples, ["r"], keep=["r"])]
    wanted = [arrays[0] for arrays in Probe(model, 1).batches(samples, ["y"])]
    zero = next(t for t in model.graph.initializer if t.name == "w")
    zero.CopyFrom(numpy_helper.from_array(np.zeros((8, 32), np.float32), "w"))
    after = list(probe.batches(samples, ["r", "y"]))
    for old, y, (r, new) in zip(before, wanted, after, strict=True):
        np.testing.assert_array_equal(r, old)
        np.testing.assert_allclose(new, y, atol=1e-5)
    ((small,), _) = Probe(model, 1, memory=0).batches(samples, ["r"], keep=["r"])
    assert not small.any()


def test_values_that_do_not_fit_are_computed_again() -> None:
    model = classifier(output="y")
    samples = Samples(({"x": np.ones((3, 8), np.float32)},))
    probe = Probe(model, 1, memory=100)
    ((before,),) = probe.batches(samples, ["r"], keep=["r"])
    next(t for t in model.graph.initializer if t.name == "w").CopyFrom(
        numpy_helper.from_array(np.zeros((8, 32), np.float32), "w")
    )
    ((after,),) = probe.batches(samples, ["r"], keep=["r"])
    assert before.any()
    assert not after.any()


def test_both_operands_of_a_sum_can_be_asked_for() -> None:
    """Convolutions of 9 channels of a concatenation: onnxruntime, with all of its optimisations, loses one of them."""
    rng = np.random.default_rng(6)
    shapes = {"c": (9, 16, 1, 1), "a": (9, 18, 1, 1), "b": (9, 18, 3, 3), "bias": (9,)}
    weights = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    nodes = [
        helper.make_node("Conv", ["x", "c"], ["h"]),
        helper.make_node("Concat", ["h", "h"], ["k"], axis=1),
        helper.make_node("Conv", ["k", "a", "bias"], ["p"]),
        helper.make_node("Conv", ["k", "b"], ["q"], pads=[1] * 4),
        helper.make_node("Add", ["p", "q"], ["s"]),
    ]
    x = rng.standard_normal((1, 16, 6, 6)).astype(np.float32)
    model = make_model(nodes, {"x": x}, ["s"], weights)
    samples = Samples(({"x": x},))
    ((p, s),) = Probe(model, 1).batches(samples, ["p", "s"])
    ((q,),) = Probe(model, 1).batches(samples, ["q"])
    np.testing.assert_allclose(p + q, s, atol=1e-4)
