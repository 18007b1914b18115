"""Budgets: they are met, shared out so that the network loses less than with equal shares, and mistakes are named."""

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from sparsec.compiler.errors import UsageError
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.sparsity import DENSE
from sparsec.compiler.sparsity.text import Goal, parse_goal
from sparsec.passes.pruning.budget import budget
from sparsec.passes.pruning.calibrated.data import Samples, model_inputs, read_samples
from sparsec.passes.pruning.calibrated.metric import Distance, Metric, held_out
from sparsec.passes.pruning.calibrated.reconstruct import Settings
from sparsec.passes.pruning.exchange import Shares, search
from sparsec.passes.pruning.model import prune
from sparsec.passes.pruning.recipe import make_recipe
from sparsec.passes.pruning.strengths import Adjustable, Counted, Strength, adjustable_layers, strengths
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


@pytest.mark.parametrize(
    ("pattern", "target"), [("unstructured@50%", 0.5), ("2:4", 0.5), ("block:4x4@50%", 0.5), ("hinm:8:2:4@75%", 0.3)]
)
def test_the_layer_that_matters_keeps_more_within_the_budget(pattern: str, target: float) -> None:
    found = budget(branches(), pattern, rows_of(), target, metric=Metric.mse, evaluations=8, settings=QUICK)
    assert found.report.loss < found.report.uniform
    assert found.report.density <= target + 1e-5 and found.report.layers == 2 and found.report.evaluations <= 8
    kept = {r.match: r.pattern.sparsity for r in found.recipe.layer}
    assert kept["loud"] < kept["quiet"]
    pruned = {x.node: x for x in prune(branches(), found.recipe, data=rows_of(), settings=QUICK).report.layers}
    macs_left = (pruned["loud"].kept + pruned["quiet"].kept) / (pruned["loud"].elements + pruned["quiet"].elements)
    assert macs_left == pytest.approx(found.report.density, abs=1e-6)
    assert pruned["classifier"].status == "spared"


def rows_of() -> dict[str, Array]:
    return {"x": rows()}


def test_same_seed_same_recipe_and_nothing_said_means_what_the_recipe_leaves() -> None:
    recipe = make_recipe({"pattern": "unstructured@75%", "layer": [{"match": "q*", "pattern": "2:4"}], "seed": 3})
    first, second = (budget(branches(), recipe, rows_of(), evaluations=5, settings=QUICK) for _ in range(2))
    assert first == second
    assert first.report.target == pytest.approx((0.25 + 0.5) / 2)
    assert [str(r.pattern).partition("@")[0] for r in first.recipe.layer if r.match == "loud"] in (["unstructured"], ["dense"])


def test_weights_or_multiply_accumulates_are_counted() -> None:
    rng = np.random.default_rng(0)
    arrays = {k: rng.standard_normal(s).astype(np.float32) for k, s in (("a", (8, 8, 1, 1)), ("b", (32, 8, 1, 1)))}
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["h"], name="a"),
        helper.make_node("Conv", ["h", "b"], ["y"], name="b", strides=[4, 4]),
    ]
    model = make_model(nodes, {"x": (TensorProto.FLOAT, ["n", 8, 8, 8])}, ["y"], arrays, opset=17)
    graph = import_model(model, input_shapes={"x": (1, 8, 8, 8)})
    recipe = make_recipe({"pattern": "unstructured@50%", "spare": []})
    sizes = {c: [x.size for x in adjustable_layers(graph, recipe, 0.5, c)] for c in Counted}
    assert sizes == {Counted.macs: [64 * 64, 256 * 4], Counted.weights: [64, 256]}


def test_the_sparsest_budget_within_a_loss() -> None:
    found = [
        budget(branches(), "unstructured@50%", rows_of(), max_drop=x, metric=Metric.mse, settings=QUICK) for x in (0.2, 0.01)
    ]
    few, many = (f.report for f in found)
    assert few.loss <= 0.2 and many.loss <= 0.01 and few.density < many.density < 1
    with pytest.raises(UsageError, match=r"within 1e-12, the lowest is .* allow more"):
        budget(branches(), "2:4", rows_of(), max_drop=1e-12, settings=QUICK)
    with pytest.raises(UsageError, match="two budgets"):
        budget(branches(), "2:4", rows_of(), 0.5, max_drop=0.1)
    with pytest.raises(UsageError, match="largest drop is 0"):
        budget(branches(), "2:4", rows_of(), max_drop=0)


def test_one_evaluation_is_equal_shares() -> None:
    found = budget(branches(), "unstructured@90%", rows_of(), 0.3, evaluations=1, settings=QUICK)
    assert {r.match: r.pattern.sparsity for r in found.recipe.layer} == {"loud": pytest.approx(0.7), "quiet": pytest.approx(0.7)}
    assert found.report.loss == found.report.uniform


@pytest.mark.parametrize(
    ("density", "pattern", "message"),
    [
        (0.2, "2:4", r"0\.2 cannot be reached: the strongest patterns leave 0\.2500 of what the 2 layers"),
        (1.5, "2:4", "target density is 1.5"),
        (0.5, "block:64x64@50%", "the recipe prunes no layer of this model"),
    ],
)
def test_budgets_out_of_reach_are_refused(density: float, pattern: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        budget(branches(), pattern, rows_of(), density, settings=QUICK)


def test_other_mistakes_are_named() -> None:
    with pytest.raises(UsageError, match="give more"):
        budget(branches(), "2:4", {"x": rows(1)}, 0.5)
    with pytest.raises(UsageError, match="no strengths"):
        strengths(Goal(DENSE, 0.0))
    with pytest.raises(UsageError, match="takes 2 steps"):
        budget(branches(), make_recipe({"pattern": "2:4", "steps": 2}), rows_of(), 0.5)
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

    def loss(state: tuple[int, ...]) -> float:
        seen.append(state)
        assert share.density(state) <= target + 2e-6
        return -sum(w * x.strengths[i].density for w, x, i in zip(worth, made, state, strict=True))

    found = search(share, share.uniform(), loss, 25, seed, lambda _: None)
    assert len(set(seen)) == len(seen) == found.evaluations <= 25
    assert found.loss == min(map(loss, list(seen))) <= found.first


def test_losses_by_their_definitions() -> None:
    model = make_model([helper.make_node("Identity", ["x"], ["y"])], {"x": (TensorProto.FLOAT, ["n", 3])}, ["y"], {}, opset=17)
    doubled = make_model([helper.make_node("Add", ["x", "x"], ["y"])], {"x": (TensorProto.FLOAT, ["n", 3])}, ["y"], {}, opset=17)
    x = np.array([[0.0, 1, 2], [3, -1, 0]], np.float32)
    samples = read_samples({"x": x}, model_inputs(model), 1)
    p, q = (np.exp(k * x) / np.exp(k * x).sum(axis=1, keepdims=True) for k in (1, 2))
    expected = {Metric.kl: (p * np.log(p / q)).sum(axis=1).mean(), Metric.mse: np.square(x).mean() / x.var(), Metric.cosine: 0}
    for metric, value in expected.items():
        distance = Distance(model, samples, metric, 1)
        assert distance.of(doubled) == pytest.approx(value, abs=1e-6)
        assert distance.of(model) == pytest.approx(0, abs=1e-9)
    shares = read_samples({"x": p.astype(np.float32)}, model_inputs(model), 1)  # probabilities are taken as they are
    squared = make_model([helper.make_node("Softmax", ["x"], ["y"])], {"x": (TensorProto.FLOAT, ["n", 3])}, ["y"], {}, opset=17)
    again = np.exp(p) / np.exp(p).sum(axis=1, keepdims=True)
    assert Distance(model, shares, Metric.kl, 1).of(squared) == pytest.approx(
        (p * np.log(p / again)).sum(axis=1).mean(), abs=1e-5
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 60), st.integers(1, 700), st.integers(1, 700), st.integers(0, 3))
def test_samples_held_out_are_others(batches: int, fit: int, measure: int, seed: int) -> None:
    samples = Samples(tuple({"x": np.full((10, 1), i)} for i in range(batches)))
    first, second = held_out(samples, fit, measure, seed)
    numbers = [{int(b["x"][0, 0]) for b in part} for part in (first, second)]
    assert not numbers[0] & numbers[1] and all(numbers)
    assert len(first) <= -(-fit // 10) and len(second) <= -(-measure // 10)
