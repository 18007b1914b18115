"""Budgets: they are met, shared out so that the network loses less than with equal shares, and mistakes are named."""

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from sparsec.compiler.errors import UsageError
from sparsec.compiler.graph import Graph
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.pruning_report import BudgetReport
from sparsec.compiler.sparsity import DENSE
from sparsec.compiler.sparsity.text import Goal, parse_goal
from sparsec.passes.pruning.budget import Budget
from sparsec.passes.pruning.calibrated.data import Samples, model_inputs, read_samples
from sparsec.passes.pruning.calibrated.metric import Distance, Loss, Metric
from sparsec.passes.pruning.calibrated.parts import divide
from sparsec.passes.pruning.calibrated.reconstruct import Settings
from sparsec.passes.pruning.exchange import Shares, search, sparsest
from sparsec.passes.pruning.model import PrunedModel
from sparsec.passes.pruning.recipe import Recipe, make_recipe
from sparsec.passes.pruning.strengths import Adjustable, Counted, Strength, sharing, strengths
from sparsec.passes.pruning.within import prune_within
from tests.reference import make_model

Array = np.ndarray[Any, Any]
QUICK = Settings(threads=1)


def branches(fragile: float = 4.0) -> onnx.ModelProto:
    """Two products of the same size whose results are added, one of them much louder, and a classifier."""
    rng = np.random.default_rng(0)
    weights = {
        "w1": fragile * rng.standard_normal((32, 32)),
        "w2": rng.standard_normal((32, 32)) / 4,
        "wc": rng.standard_normal((32, 6)) / 4,
        "bc": np.zeros(6),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["loud"], name="loud"),
        helper.make_node("MatMul", ["x", "w2"], ["quiet"], name="quiet"),
        helper.make_node("Add", ["loud", "quiet"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["r"]),
        helper.make_node("Gemm", ["r", "wc", "bc"], ["y"], name="classifier"),
    ]
    arrays = {k: v.astype(np.float32) for k, v in weights.items()}
    return make_model(nodes, {"x": (TensorProto.FLOAT, ["n", 32])}, ["y"], arrays, opset=17)


def rows(n: int = 200) -> Array:
    return np.random.default_rng(1).standard_normal((n, 32)).astype(np.float32)


def within(recipe: Recipe | str, density: float | None = None, n: int = 200, **more: Any) -> PrunedModel:
    """The branches pruned within a budget of multiply-accumulates by `n` samples."""
    return prune_within(branches(), recipe, {"x": rows(n)}, Budget(density, **more), settings=QUICK)


def shares(pruned: PrunedModel) -> dict[str, float]:
    """What is left of the layers that share the budget."""
    return {x.node: x.density for x in pruned.report.layers if x.status != "spared"}


def budget_of(pruned: PrunedModel) -> BudgetReport:
    assert pruned.report.budget is not None
    return pruned.report.budget


@pytest.mark.parametrize(
    ("pattern", "target"),
    [("unstructured@50%", 0.5), ("2:4", 0.5), ("block:4x4@50%", 0.5), ("block:4x4/2:4", 0.5), ("hinm:8:2:4@75%", 0.3)],
)
def test_the_layer_that_matters_keeps_more_within_the_budget(pattern: str, target: float) -> None:
    pruned = within(pattern, target, metric="mse", evaluations=8)
    found, left = budget_of(pruned), shares(pruned)
    assert found.loss < found.uniform
    assert found.density <= target + 1e-5 and found.layers == 2 and found.evaluations <= 8
    assert left["loud"] > left["quiet"]
    assert (left["loud"] + left["quiet"]) / 2 == pytest.approx(found.density, abs=1e-6)
    assert pruned.report.layers[-1].status == "spared" and found.dense is None and found.check is None


def test_same_seed_same_model_and_nothing_said_means_what_the_recipe_leaves() -> None:
    recipe = make_recipe({"pattern": "unstructured@75%", "layer": [{"match": "q*", "pattern": "2:4"}], "seed": 3})
    first, second = (within(recipe, evaluations=5) for _ in range(2))
    assert first.report == second.report and first.proto == second.proto
    assert budget_of(first).target == pytest.approx((0.25 + 0.5) / 2)
    assert {x.node: x.asked.partition("@")[0] for x in first.report.layers}["loud"] in ("unstructured", "dense")


def strided() -> onnx.ModelProto:
    """Two convolutions, the second with few output positions."""
    rng = np.random.default_rng(0)
    arrays = {k: rng.standard_normal(s).astype(np.float32) for k, s in (("a", (8, 8, 1, 1)), ("b", (32, 8, 1, 1)))}
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["h"], name="a"),
        helper.make_node("Conv", ["h", "b"], ["y"], name="b", strides=[4, 4]),
    ]
    return make_model(nodes, {"x": (TensorProto.FLOAT, ["n", 8, 8, 8])}, ["y"], arrays, opset=17)


def test_weights_multiply_accumulates_or_time_are_counted() -> None:
    graph = import_model(strided(), input_shapes={"x": (1, 8, 8, 8)})
    recipe = make_recipe({"pattern": "unstructured@50%", "spare": []})
    found = {c: sharing(graph, recipe, 0.5, c) for c in (Counted.macs, Counted.weights)}
    assert {c: [x.size for x in s.layers] for c, s in found.items()} == {
        Counted.macs: [64 * 64, 256 * 4],
        Counted.weights: [64, 256],
    }
    with pytest.raises(UsageError, match="takes a cost model"):
        sharing(graph, recipe, 0.5, Counted.time)

    def predict(pruned: Graph) -> list[tuple[tuple[str, ...], float]]:
        """Zeros of `a` save time from 70 % on, those of `b` always, and 7 us are no layer's."""
        zeros = {name: float((pruned.constants[name] == 0).mean()) for name in "ab"}
        return [(("a", "relu"), 10.0 if zeros["a"] < 0.7 else 5.0), (("b",), 3.0 - 2 * zeros["b"]), ((), 7.0)]

    timed = sharing(graph, recipe, 0.5, Counted.time, predict=predict)
    assert timed.rest == 7 and [x.size for x in timed.layers] == [10, 3]
    a, b = timed.layers
    assert [s.density for s in a.strengths] == [1, 0.5] and a.strengths[1].goal.sparsity >= 0.7 and a.left == 1
    assert b.left == pytest.approx(2 / 3, abs=0.01) and b.strengths[-1].density == pytest.approx((3 - 2 * 0.9375) / 3, abs=0.02)
    share = Shares(timed.layers, 0.8, timed.rest)
    assert share.density((0, 0)) == 1 and share.density((1, 0)) == pytest.approx(15 / 20) and share.least < 0.75
    assert share.density(share.uniform()) <= 0.8 + 1e-6
    with pytest.raises(UsageError, match=r"of what the 2 layers that share it and the rest of the network take"):
        Shares(timed.layers, 0.5, timed.rest)


def test_the_sparsest_budget_within_a_loss() -> None:
    few, many = (budget_of(within("unstructured@50%", max_drop=x, metric="mse")) for x in (0.2, 0.01))
    assert few.loss <= 0.2 and many.loss <= 0.01 and few.density < many.density < 1
    for x in (few, many):
        assert x.check is not None and x.max_drop is not None and x.check.loss <= x.max_drop and x.check.dense is None
    with pytest.raises(UsageError, match=r"within 1e-12, the lowest is .* allow more"):
        within("2:4", max_drop=1e-12, metric="kl")


def test_one_evaluation_is_equal_shares() -> None:
    pruned = within("unstructured@90%", 0.3, evaluations=1)
    assert shares(pruned) == {"loud": pytest.approx(0.3, abs=1e-3), "quiet": pytest.approx(0.3, abs=1e-3)}
    assert budget_of(pruned).loss == budget_of(pruned).uniform


@pytest.mark.parametrize(
    ("pattern", "budget", "message"),
    [
        ("2:4", Budget(0.2), r"0\.2 cannot be reached: the strongest patterns leave 0\.2500 of what the 2 layers"),
        ("2:4", Budget(1.5), "target density is 1.5"),
        ("2:4", Budget(0.5, max_drop=0.1), "two budgets"),
        ("2:4", Budget(max_drop=0, metric="kl"), "largest drop is 0"),
        ("2:4", Budget(max_drop=0.01), "of what is not said: give a metric"),
        ("2:4", Budget(0.5, metric="top5"), "metric 'top5' is not known: expected kl, mse, cosine, accuracy"),
        ("2:4", Budget(0.5, counted="flops"), "counted 'flops' is not known: expected macs, weights, time"),
        ("2:4", Budget(0.5, labels=[1, 2]), "the metric kl compares outputs without labels"),
        ("2:4", Budget(0.5, evaluations=0), "0 evaluations are too few"),
        ("2:4", Budget(0.5, counted="time"), "takes a cost model"),
        ("block:64x64@50%", Budget(0.5), "the recipe prunes no layer of this model"),
        (make_recipe({"pattern": "2:4", "steps": 2}), Budget(0.5), "takes 2 steps"),
    ],
)
def test_budgets_that_cannot_be_are_refused(pattern: str | Recipe, budget: Budget, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        prune_within(branches(), pattern, {"x": rows()}, budget, settings=QUICK)


def test_other_mistakes_are_named() -> None:
    with pytest.raises(UsageError, match="1 sample cannot be divided into 2 parts"):
        within("2:4", 0.5, n=1)
    with pytest.raises(UsageError, match="2 samples cannot be divided into 3 parts"):
        within("2:4", n=2, max_drop=0.1, metric="kl")
    with pytest.raises(UsageError, match="no strengths"):
        strengths(Goal(DENSE, 0.0))
    single = make_model([helper.make_node("ReduceSum", ["x"], ["y"])], {"x": (TensorProto.FLOAT, ["n", 4])}, ["y"], {}, opset=17)
    with pytest.raises(UsageError, match="a softmax over one number compares nothing"):
        Distance(single, Samples(({"x": np.ones((2, 4), np.float32)},)), Metric.kl, 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2:4/rows=8", ["dense", "3:4/rows=8", "2:4/rows=8", "1:4/rows=8"]),
        ("nmg:1:3:4", ["dense", "nmg:2:3:4", "nmg:1:3:4"]),
    ],
)
def test_strengths_of_n_m(text: str, expected: list[str]) -> None:
    assert [str(g) for g in strengths(parse_goal(text))] == expected


def test_hierarchical_strengths_stay_below_their_n_m() -> None:
    found = strengths(parse_goal("hinm:8:2:4@80%"), 0.3)
    assert found[1].sparsity == 0.5 and any(g.sparsity == pytest.approx(0.8) for g in found)
    assert any(g.sparsity == pytest.approx(0.7) for g in found) and all(str(parse_goal(str(g))) == str(g) for g in found)


def layer_of(name: str, size: int, densities: list[float]) -> Adjustable:
    goal = parse_goal("unstructured@50%")
    return Adjustable(name, size, densities[-1], tuple(Strength(goal, d) for d in [1.0, *densities]))


ladders = st.lists(st.integers(1, 99), min_size=1, max_size=6, unique=True).map(
    lambda d: sorted((x / 100 for x in d), reverse=True)
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 1000), ladders), min_size=1, max_size=5), st.floats(0.05, 1), st.integers(0, 5))
def test_searches_stay_within_the_budget_and_never_lose(layers: list[tuple[int, list[float]]], target: float, seed: int) -> None:
    made = [layer_of(f"l{i}", size, densities) for i, (size, densities) in enumerate(layers)]
    try:
        share = Shares(made, target)
    except UsageError:
        assert sum(x.size * x.strengths[-1].density for x in made) > target * sum(x.size for x in made)
        return
    worth = np.random.default_rng(seed).random(len(made))
    seen: list[tuple[int, ...]] = []

    def loss(state: tuple[int, ...]) -> Loss:
        seen.append(state)
        assert share.density(state) <= target + 2e-6
        return Loss(-sum(w * x.strengths[i].density for w, x, i in zip(worth, made, state, strict=True)))

    found = search(share, share.uniform(), loss, 25, seed, lambda _: None)
    assert len(set(seen)) == len(seen) == found.evaluations <= 25
    assert found.loss == min(map(loss, list(seen))) <= found.first


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 1000), ladders), min_size=1, max_size=5), st.floats(0.01, 1), st.integers(0, 500))
def test_bisection_keeps_within_the_loss(layers: list[tuple[int, list[float]]], allowed: float, rest: int) -> None:
    made = [layer_of(f"l{i}", size, densities) for i, (size, densities) in enumerate(layers)]
    weight = np.random.default_rng(rest).random(len(made))
    seen: list[tuple[int, ...]] = []

    def loss(state: tuple[int, ...]) -> Loss:
        seen.append(state)
        lost = [w * (1 - x.strengths[i].density) ** 2 for w, x, i in zip(weight, made, state, strict=True)]
        return Loss(sum(lost) / weight.sum())

    try:
        within, tried = sparsest(made, rest, loss, allowed, 18, 0, lambda _: None)
    except UsageError:
        assert all(loss(s).value > allowed for s in list(seen))
        return
    assert tried == len(seen) <= 18
    shares_found = [share.target for share, _ in within]
    assert shares_found == sorted(shares_found, reverse=True)
    for share, found in within:
        assert found.loss.value <= allowed and share.density(found.state) <= share.target + 2e-6


def test_losses_by_their_definitions() -> None:
    model = make_model([helper.make_node("Identity", ["x"], ["y"])], {"x": (TensorProto.FLOAT, ["n", 3])}, ["y"], {}, opset=17)
    doubled = make_model([helper.make_node("Add", ["x", "x"], ["y"])], {"x": (TensorProto.FLOAT, ["n", 3])}, ["y"], {}, opset=17)
    x = np.array([[0.0, 1, 2], [3, -1, 0]], np.float32)
    samples = read_samples({"x": x}, model_inputs(model), 1)
    p, q = (np.exp(k * x) / np.exp(k * x).sum(axis=1, keepdims=True) for k in (1, 2))
    expected = {Metric.kl: (p * np.log(p / q)).sum(axis=1).mean(), Metric.mse: np.square(x).mean() / x.var(), Metric.cosine: 0}
    for metric, value in expected.items():
        distance = Distance(model, samples, metric, 1)
        assert distance.of(doubled).value == pytest.approx(value, abs=1e-6)
        assert distance.of(model).value == pytest.approx(0, abs=1e-9)
    shares = read_samples({"x": p.astype(np.float32)}, model_inputs(model), 1)  # probabilities are taken as they are
    squared = make_model([helper.make_node("Softmax", ["x"], ["y"])], {"x": (TensorProto.FLOAT, ["n", 3])}, ["y"], {}, opset=17)
    again = np.exp(p) / np.exp(p).sum(axis=1, keepdims=True)
    assert Distance(model, shares, Metric.kl, 1).of(squared).value == pytest.approx(
        (p * np.log(p / again)).sum(axis=1).mean(), abs=1e-5
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 60), st.integers(1, 700), st.integers(1, 700), st.integers(0, 3))
def test_parts_share_no_samples(batches: int, measure: int, check: int, seed: int) -> None:
    samples = Samples(tuple({"x": np.arange(10 * i, 10 * i + 10)[:, None]} for i in range(batches)))
    parts = divide(samples, (None, measure, check), seed)
    for part in parts:
        seen = np.concatenate([b["x"][:, 0] for b in part.samples])
        assert np.array_equal(seen, part.numbers) and len(seen)
    assert sorted(np.concatenate([p.numbers for p in parts])) == list(range(10 * batches))  # without bound: the rest
    assert len(parts[1].numbers) <= -(-measure // 10) * 10 and len(parts[2].numbers) <= -(-check // 10) * 10
    assert len(parts[1].numbers) >= min(measure, batches // 3 * 10)
    first = parts[0].first(20)
    assert first.batches == parts[0].batches[: len(first.batches)] and len(first.numbers) <= 20
