"""Models with their channels in another order: the same function, the same operators, and patterns that keep more."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import models
from sparsec.compiler.driver import compile as compile_model
from sparsec.compiler.errors import UsageError
from sparsec.compiler.feeds import random_feeds, table_rows
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.report import tensor_info
from sparsec.passes.permutation.permute import permute
from sparsec.passes.pruning.model import editor_of, prune
from sparsec.passes.pruning.recipe import Recipe, make_recipe
from tests.reference import check_model, run_ort

Array = np.ndarray
NAMES = ["tiny_cnn", "tiny_nhwc", "tiny_transformer"]


def feeds_of(model: onnx.ModelProto) -> dict[str, Array]:
    graph = import_model(model)
    return random_feeds([tensor_info(v, graph.types[v]) for v in graph.inputs], 0, table_rows(model))


def recipe(pattern: str, method: str = "gyro", **more: object) -> Recipe:
    return make_recipe({"pattern": pattern, "permute": method, **more})


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", ["gyro", "swap", "stripe"])
def test_the_unpruned_model_computes_what_it_did(name: str, method: str) -> None:
    model = models.build(name)
    editor = editor_of(model)
    report = permute(import_model(model, as_stored=True), editor, recipe("block:8x8@50%", method))
    before, after = ({t.name: numpy_helper.to_array(t) for t in m.graph.initializer} for m in (model, editor.proto))
    moved = [n for n in before if not np.array_equal(before[n], after[n])]
    assert moved
    for n in moved:
        np.testing.assert_array_equal(np.sort(before[n], axis=None), np.sort(after[n], axis=None))
    assert any(c.after is not None and c.before is not None and c.after > c.before for c in report.classes)
    assert [n.SerializeToString() for n in editor.proto.graph.node] == [n.SerializeToString() for n in model.graph.node]
    feeds = feeds_of(model)
    for value, want in run_ort(model, feeds).items():
        got = run_ort(editor.proto, feeds)[value]
        assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("pattern", ["2:4", "1:4/rows=8", "block:8x8@50%", "block:4x2/2:4", "nmg:2:4:1", "hinm:8:2:4@75%"])
def test_patterns_keep_no_less_and_the_model_stays_ordinary(name: str, pattern: str) -> None:
    model = models.build(name)
    plain, ordered = prune(model, pattern), prune(model, recipe(pattern))
    assert ordered.report.total.kept_l1 / ordered.report.total.kept >= plain.report.total.kept_l1 / plain.report.total.kept
    assert len(ordered.report.changed) == len(plain.report.changed)
    check_model(ordered.proto, feeds_of(model))


def test_same_seed_same_bytes() -> None:
    model = models.build("tiny_cnn")
    one, two, other = (prune(model, recipe("2:4", seed=seed)).proto.SerializeToString(deterministic=True) for seed in (1, 1, 2))
    assert one == two != other


def test_the_compiled_model_has_the_same_kernels(tmp_path: Path) -> None:
    model = models.build("tiny_cnn")
    plain = compile_model(model, tmp_path / "plain", name="plain", recipe=recipe("block:8x8@50%", "none"))
    ordered = compile_model(model, tmp_path / "ordered", name="ordered", recipe=recipe("block:8x8@50%"))
    assert [x.node for x in plain.report.layers] == [x.node for x in ordered.report.layers]
    assert [x.op for x in plain.report.layers] == [x.op for x in ordered.report.layers]
    feeds = feeds_of(model)
    pruned = onnx.load(tmp_path / "ordered" / "ordered.onnx")
    for value, want in run_ort(pruned, feeds).items():
        assert np.abs(ordered.run(feeds)[value] - want).max() <= 1e-5 * np.abs(want).max()


def test_external_data_is_reordered_too_and_stays_external(tmp_path: Path) -> None:
    model = models.build("tiny_transformer")
    onnx.save(models.build("tiny_transformer"), tmp_path / "m.onnx", save_as_external_data=True, size_threshold=64)
    inside, outside = prune(model, recipe("2:4")), prune(tmp_path / "m.onnx", recipe("2:4"))
    outside.save(tmp_path / "p.onnx")
    assert (tmp_path / "p.onnx.data").exists()
    feeds = feeds_of(model)
    for value, want in run_ort(inside.proto, feeds).items():
        np.testing.assert_array_equal(run_ort(onnx.load(tmp_path / "p.onnx"), feeds)[value], want)


def test_data_weighs_the_weights() -> None:
    """Inputs of which only some channels are ever large: with data, other weights matter than without."""
    model = models.build("tiny_cnn")
    rng = np.random.default_rng(0)
    samples = [{"input": rng.normal(size=(1, 3, 16, 16)).astype(np.float32) * [[[[4.0]], [[0.1]], [[0.0]]]]} for _ in range(20)]
    samples = [{k: v.astype(np.float32) for k, v in s.items()} for s in samples]
    with_data = prune(model, recipe("1:4"), data=samples)
    without = prune(model, recipe("1:4", importance="magnitude"), data=samples)
    kept = [{c.name: (c.before, c.after) for c in p.report.permutation.classes} for p in (with_data, without)]  # type: ignore[union-attr]
    assert kept[0] != kept[1]
    check_model(with_data.proto, feeds_of(model))


def test_what_changes_with_the_order_cannot_be_searched_for() -> None:
    with pytest.raises(UsageError, match="the criterion variance changes with the order of channels: permute with l1 or l2"):
        recipe("block:8x8@50%", criterion="variance")
    with pytest.raises(UsageError, match="permute"):
        recipe("2:4", "best")


@pytest.mark.parametrize(("pattern", "turns"), [("2:4", 1), ("block:8x8@50%", 2)])
def test_classes_that_share_no_layer_have_one_turn(pattern: str, turns: int) -> None:
    """2:4 looks at the order of inputs only, so that no two classes meet; blocks look at both sides of a layer."""
    model, said = models.build("tiny_cnn"), list[str]()
    permute(import_model(model, as_stored=True), editor_of(model), recipe(pattern), said.append)
    assert max(said.count(line) for line in said) == turns
