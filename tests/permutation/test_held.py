"""Layers that are sparse already and stay as they are: reordering channels leaves their patterns alone."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from sparsec.compiler.importer.api import import_model
from sparsec.compiler.pruning_report import ClassReport
from sparsec.compiler.sparsity import DENSE
from sparsec.compiler.sparsity.text import parse_goal
from sparsec.passes.permutation.held import holds_in_any_order
from sparsec.passes.pruning.masks import choose
from sparsec.passes.pruning.model import PrunedModel, prune
from sparsec.passes.pruning.recipe import make_recipe
from tests.reference import check_model, make_model, run_ort

Array = np.ndarray
RNG = np.random.default_rng(5)
X = RNG.standard_normal((6, 32)).astype(np.float32)


def chain() -> onnx.ModelProto:
    """x [6, 32] through products `a`, `b`, `c` and `d` with Relu between: three classes of 32 channels that are free."""
    nodes = []
    for name, source in zip("abcd", ("x", "ra", "rb", "rc"), strict=True):
        nodes += [
            helper.make_node("MatMul", [source, f"w{name}"], [f"p{name}"], name=name),
            helper.make_node("Relu", [f"p{name}"], [f"r{name}"], name=f"relu_{name}"),
        ]
    weights = {f"w{name}": RNG.standard_normal((32, 32)).astype(np.float32) for name in "abcd"}
    return make_model(nodes, {"x": X}, ["rd"], weights)


def rules(**patterns: str) -> dict[str, object]:
    return {"layer": [{"match": name, "pattern": pattern} for name, pattern in patterns.items()]}


def classes(pruned: PrunedModel) -> dict[str, ClassReport]:
    assert pruned.report.permutation is not None
    return {c.name: c for c in pruned.report.permutation.classes}


def weights(model: onnx.ModelProto, name: str) -> Array:
    return numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == name))


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("method", ["gyro", "swap", "stripe"])
@pytest.mark.parametrize("pattern", ["2:4", "2:4/rows=8", "block:8x8@50%", "block:8x8/2:4", "nmg:2:4:1", "hinm:8:2:4@75%"])
def test_a_second_pruning_with_permutation_leaves_sparse_layers_as_they_are(pattern: str, method: str, told: bool) -> None:
    first = prune(chain(), make_recipe(rules(b=pattern))).proto
    if not told:
        del first.metadata_props[:]
    second = prune(first, make_recipe({"pattern": "block:4x4@50%", "permute": method, "spare": [], **rules(b=pattern)}))
    assert {x.node: x.status for x in second.report.layers} == {"a": "pruned", "b": "kept", "c": "pruned", "d": "pruned"}
    goal = parse_goal(pattern)
    assert goal.pattern.holds(weights(second.proto, "wb").T[:, None, :])
    found = classes(second)
    assert found["a"].fixed == f"'b' stays as it is, and is {goal.pattern.spec} in this order of its inputs only"
    own_rows = pattern == "2:4"
    assert found["b"].fixed == (
        "" if own_rows else f"'b' stays as it is, and is {goal.pattern.spec} in this order of its outputs only"
    )
    assert not found["c"].fixed
    if not own_rows:
        np.testing.assert_array_equal(weights(second.proto, "wb"), weights(first, "wb"))
    graph = check_model(second.proto, {"x": X})
    if told:
        assert graph.types["wb"].sparsity == goal.pattern.of(weights(second.proto, "wb").T[:, None, :])


def test_zeros_anywhere_hold_in_any_order() -> None:
    first = prune(chain(), make_recipe(rules(b="unstructured@80%"))).proto
    second = prune(first, make_recipe({"pattern": "2:4", "permute": "gyro", "spare": [], **rules(b="unstructured@80%")}))
    assert not any(classes(second)[name].fixed for name in "abc")
    assert not np.array_equal(weights(second.proto, "wb"), weights(first, "wb"))
    assert str(import_model(second.proto).types["wb"].sparsity) == f"~unstructured/nnz={np.count_nonzero(weights(first, 'wb'))}"


def test_layers_that_are_not_asked_for_keep_their_patterns_too() -> None:
    first = prune(chain(), make_recipe(rules(b="block:8x8@50%"))).proto
    second = prune(first, make_recipe({"permute": "gyro", **rules(a="block:4x4@50%", c="block:4x4@50%")}))
    assert {x.node: x.status for x in second.report.layers} == {"a": "pruned", "b": "dense", "c": "pruned", "d": "dense"}
    assert classes(second)["a"].fixed and classes(second)["b"].fixed and not classes(second)["c"].fixed
    assert str(import_model(second.proto).types["wb"].sparsity) == "~block:8x8/nnz=512"


def test_layers_that_are_pruned_anew_move_and_record_what_they_become() -> None:
    """Orders are chosen for the new pattern: what was recorded of the old one is neither held on to nor left to lie."""
    first = prune(chain(), make_recipe({"pattern": "2:4", "spare": []})).proto
    second = prune(first, make_recipe({"pattern": "1:4", "permute": "gyro", "spare": []}))
    assert not any(classes(second)[name].fixed for name in "abc")
    graph = import_model(second.proto)
    assert {graph.types[f"w{name}"].sparsity.spec for name in "abcd"} == {"1:4"}
    check_model(second.proto, {"x": X})


def test_small_weights_that_import_turns_are_held_by_the_name_that_was_recorded() -> None:
    """Import folds small transposes, so that their weights have another name than those of the model as stored."""
    model = chain()
    model.graph.node[2].input[1] = "wb.t"
    model.graph.node.insert(0, helper.make_node("Transpose", ["wb"], ["wb.t"], name="turn", perm=[1, 0]))
    first = prune(model, make_recipe(rules(b="block:5x3@50%"))).proto  # no size that is recognised
    second = prune(first, make_recipe({"permute": "gyro", **rules(a="block:4x4@50%", c="block:4x4@50%")}))
    assert "block:5x3" in classes(second)["a"].fixed
    assert "~block:5x3" in {str(t.sparsity).split("/")[0] for t in import_model(second.proto).types.values()}
    want, got = (run_ort(m, {"x": X}) for m in (first, prune(first, make_recipe({"permute": "gyro", **rules(a="dense")})).proto))
    np.testing.assert_allclose(got["rd"], want["rd"], rtol=1e-4, atol=1e-3)


FORMS = [
    "2:4", "1:2", "1:4/rows=2", "block:1x3@50%", "block:3x1@50%", "block:2x2@50%", "block:1x2/1:2", "block:2x1/2:4", "nmg:2:4:1",
    "unstructured@60%", "dense",
]  # fmt: skip


@settings(deadline=None)
@given(st.sampled_from(FORMS), st.sampled_from(["outputs", "inputs"]), st.integers(0, 99))
def test_what_holds_in_any_order_does(text: str, role: str, seed: int) -> None:
    goal, rng = parse_goal(text), np.random.default_rng(seed)
    w = rng.standard_normal((12, 4, 12))
    w = np.where(choose(goal, np.abs(w)).mask, w, 0)
    axis = 0 if role == "outputs" else 2
    if goal.pattern == DENSE or holds_in_any_order(goal.pattern, role):
        moved = np.take(w, rng.permutation(12), axis=axis)
        assert goal.pattern.holds(moved)
        assert goal.pattern.pack(moved).nbytes == goal.pattern.pack(w).nbytes
