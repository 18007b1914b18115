"""Tiles of hierarchical n:m that take their inputs in orders of their own: recorded, checked, and kept through compilation."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import models
from sparsec.compiler.driver import compile as compile_model
from sparsec.compiler.errors import ModelError
from sparsec.compiler.feeds import random_feeds
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.importer.claims import METADATA_KEY
from sparsec.compiler.importer.orders import ORDER_KEY
from sparsec.compiler.passing.runner import run_pipeline
from sparsec.compiler.report import tensor_info
from sparsec.compiler.sparsity import DENSE, HiNM
from sparsec.compiler.sparsity.facts import weight_facts
from sparsec.compiler.text.parser import parse_graph
from sparsec.compiler.text.printer import print_graph
from sparsec.compiler.text.store import ConstantStore
from sparsec.passes.pipelines import DEFAULT
from sparsec.passes.pruning.dense_form import fill_zeros
from sparsec.passes.pruning.model import PrunedModel, prune
from sparsec.passes.pruning.recipe import Recipe, make_recipe
from tests.machine import needs
from tests.reference import check_model, make_model, run_ort

Array = np.ndarray
RNG = np.random.default_rng(3)


def recipe(pattern: str = "hinm:16:2:4@75%", **more: object) -> Recipe:
    return make_recipe({"pattern": pattern, "permute": "gyro", **more})


def feeds_of(model: onnx.ModelProto) -> dict[str, Array]:
    graph = import_model(model)
    return random_feeds([tensor_info(v, graph.types[v]) for v in graph.inputs], 0)


def product(dtype: type = np.float32, *, transposed: bool = False) -> onnx.ModelProto:
    """x [3, 64] times w [64, 64], or its transpose."""
    w = RNG.standard_normal((64, 64)).astype(dtype)
    body = [helper.make_node("Transpose", ["w"], ["w.t"], perm=[1, 0])] if transposed else []
    body.append(helper.make_node("MatMul", ["x", "w.t" if transposed else "w"], ["y"], name="dot"))
    return make_model(body, {"x": RNG.standard_normal((3, 64)).astype(dtype)}, ["y"], {"w": w})


@pytest.fixture
def pruned() -> onnx.ModelProto:
    return prune(product(), recipe(spare=[])).proto


def patterns(model: onnx.ModelProto | Path) -> dict[str, HiNM]:
    graph = import_model(model)
    found = {v: graph.types[v].sparsity for v in graph.constants}
    return {v: p for v, p in found.items() if isinstance(p, HiNM)}


def metadata(model: onnx.ModelProto) -> dict[str, str]:
    return {p.key: p.value for p in model.metadata_props}


def changed(model: onnx.ModelProto, **entries: str | None) -> onnx.ModelProto:
    """The model with other metadata, None for none."""
    again = onnx.ModelProto()
    again.CopyFrom(model)
    kept = {**metadata(model), **{f"sparsec.{k}": v for k, v in entries.items()}}
    del again.metadata_props[:]
    helper.set_model_props(again, {k: v for k, v in kept.items() if v is not None})
    return again


def assert_recognised(result: PrunedModel) -> None:
    """Every pruned layer is hierarchical n:m when imported and when optimised, and some need their order for it."""
    changed_layers = {x.weights for x in result.report.changed}
    found = patterns(result.proto)
    assert set(found) == changed_layers
    assert any(p.order is not None for p in found.values())
    final = run_pipeline(import_model(result.proto), DEFAULT)
    kinds = [t.sparsity for v, t in final.types.items() if v in final.constants and t.sparsity != DENSE]
    assert len(kinds) >= len(changed_layers) and all(isinstance(p, HiNM) for p in kinds)
    assert {f.pattern for f in weight_facts(final).values() if f.sparse} == {"hinm:16:2:4"}
    for value, pattern in found.items():
        assert result.graph.types[value].sparsity == pattern


@pytest.mark.parametrize("name", ["tiny_cnn", "tiny_nhwc"])
def test_orders_survive_saving_and_optimising(name: str, tmp_path: Path) -> None:
    model = models.build(name)
    result = prune(model, recipe())
    assert_recognised(result)
    result.save(tmp_path / "p.onnx")
    assert patterns(tmp_path / "p.onnx") == patterns(result.proto)
    check_model(result.proto, feeds_of(model))


def test_calibrated_masks_record_theirs_too() -> None:
    model = models.build("tiny_cnn")
    data = [{"input": RNG.normal(size=(1, 3, 16, 16)).astype(np.float32)} for _ in range(40)]
    for importance in ("obs", "activation", "magnitude"):
        result = prune(model, recipe(importance=importance), data=data)
        assert_recognised(result)
        check_model(result.proto, feeds_of(model))


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_orders_follow_weights_that_are_converted_and_turned(dtype: type, transposed: bool) -> None:
    assert_recognised(prune(product(dtype, transposed=transposed), recipe(spare=[])))


@pytest.mark.parametrize("sizes", [(64, 32, 40), (64, 48, 24), (20, 40, 76)])
def test_parts_of_a_product_that_is_split_keep_the_order_of_their_tiles(sizes: tuple[int, ...]) -> None:
    w = RNG.standard_normal((64, 136)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["xw"], name="dot")]
    nodes += [helper.make_node("Split", ["xw", "sizes"], ["a", "b", "c"], axis=-1)]
    nodes += [helper.make_node("Relu", [v], [f"r{v}"]) for v in "abc"]
    weights = {"w": w, "sizes": np.array(sizes)}
    pruned = prune(make_model(nodes, {"x": w[:3, :64]}, ["ra", "rb", "rc"], weights), recipe("hinm:8:2:4@75%", spare=[])).proto
    graph = import_model(pruned)
    assert isinstance(graph.types["w"].sparsity, HiNM) and graph.types["w"].sparsity.order is not None
    final = run_pipeline(graph, DEFAULT)
    found = {t.shape[1]: t.sparsity for v, t in final.types.items() if v in final.constants and t.rank == 2}
    assert len(found) == 3
    for size, pattern in found.items():
        assert isinstance(pattern, HiNM) == (sizes[0] % 8 == 0), size
        assert pattern.nnz == np.count_nonzero(next(c for c in final.constants.values() if c.shape == (64, size)))


@needs("cc")
def test_the_library_computes_what_onnxruntime_does_and_packs_the_same_without_metadata(tmp_path: Path) -> None:
    result = prune(models.build("tiny_cnn"), recipe())
    result.save(tmp_path / "p.onnx")
    told = compile_model(tmp_path / "p.onnx", tmp_path / "told", name="net")
    onnx.save(changed(result.proto, sparsity=None, order=None), tmp_path / "q.onnx")
    untold = compile_model(tmp_path / "q.onnx", tmp_path / "untold", name="net")
    feeds = feeds_of(result.proto)
    for value, want in run_ort(result.proto, feeds).items():
        assert np.abs(told.run(feeds)[value] - want).max() <= 1e-5 * np.abs(want).max()
    assert (tmp_path / "told" / "net_weights.bin").read_bytes() == (tmp_path / "untold" / "net_weights.bin").read_bytes()
    found = {x.node: x.pattern for x in told.report.layers if x.pattern}
    assert set(found.values()) == {"hinm:16:2:4"}
    assert {x.node: x.pattern for x in untold.report.layers if x.pattern} != found


def test_the_text_form_keeps_the_order(pruned: onnx.ModelProto) -> None:
    graph, store = import_model(pruned), ConstantStore()
    text = print_graph(graph, store)
    (pattern,) = patterns(pruned).values()
    assert pattern.order is not None
    assert f"~hinm:16:2:4/order={pattern.order.digest}/nnz=" in text
    again = parse_graph(text, store)
    assert again.types["w"] == graph.types["w"] and print_graph(again, store) == text
    with pytest.raises(ModelError, match="is not in the store"):
        parse_graph(text)


@pytest.mark.parametrize("lost", [{"order": None}, {"sparsity": None}, {"order": '{"version": 1, "orders": {}}'}])
def test_what_is_lost_is_recognised_again(pruned: onnx.ModelProto, lost: dict[str, str | None]) -> None:
    model = changed(pruned, **lost)
    assert patterns(model) == {}
    final = run_pipeline(import_model(model), DEFAULT)
    (kind,) = {t.sparsity for v, t in final.types.items() if v in final.constants}
    assert kind != DENSE and kind.nnz == np.count_nonzero(weights(pruned))


def weights(model: onnx.ModelProto) -> Array:
    return numpy_helper.to_array(model.graph.initializer[0])


def test_a_lie_about_the_order_names_the_weights(pruned: onnx.ModelProto) -> None:
    other = prune(product(), recipe(spare=[])).proto
    message = r"node 'dot': the model's metadata says that weights 'w' are hinm:16:2:4, but output \d+ keeps .*: prune the model"
    with pytest.raises(ModelError, match=message) as found:
        import_model(changed(pruned, **{k.removeprefix("sparsec."): v for k, v in metadata(other).items()}))
    assert (found.value.node, found.value.tensor) == ("dot", "w")


def test_stale_orders_of_other_shapes_are_lies(pruned: onnx.ModelProto) -> None:
    model = changed(pruned)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.zeros((64, 48), np.float32), "w"))
    with pytest.raises(ModelError, match="weights 'w' are hinm:16:2:4, but its order has 128 channels, not 3 x 1 lists"):
        import_model(model)


@pytest.mark.parametrize("spec", ["hinm:999999:2:4", "1:4/rows=999999", "1:999999/rows=999", "block:999999x8", "nmg:2:4:999999"])
def test_tiles_far_larger_than_weights_are_not_padded(spec: str) -> None:
    model = product()
    helper.set_model_props(model, {METADATA_KEY: json.dumps({"w": spec})})
    with pytest.raises(ModelError, match=r"weights 'w' are .*, but its tiles of [0-9,]+ x [0-9,]+ would pad 4,096 weights to"):
        import_model(model)


def test_editing_weights_leaves_no_stale_order(pruned: onnx.ModelProto) -> None:
    filled = fill_zeros(pruned).proto
    assert metadata(filled) == {}
    again = prune(pruned, make_recipe({"pattern": "1:8", "spare": []})).proto
    assert set(metadata(again)) == {METADATA_KEY} and import_model(again).types["w"].sparsity.spec == "1:8"
    same = prune(pruned, recipe(spare=[]))
    assert same.report.changed == () and metadata(same.proto) == metadata(pruned)  # has it already: nothing is lost
    np.testing.assert_array_equal(weights(same.proto), weights(pruned))


def test_steps_record_the_order_with_the_last() -> None:
    model = product()
    for step in (1, 2, 3):
        pruned = prune(model, recipe(spare=[], steps=3))
        model = pruned.proto
        assert pruned.report.layers[0].remarks == (f"step {step} of 3",)
        assert (ORDER_KEY in metadata(model), len(patterns(model))) == (step == 3, step == 3)
    (pattern,) = patterns(model).values()
    assert pattern.order is not None


def test_a_layer_that_stays_keeps_its_order_while_others_are_permuted() -> None:
    """Its inputs and outputs are held; the class beyond is free."""
    nodes, shapes = [], {}
    for i, name in enumerate("abcd"):
        nodes.append(helper.make_node("MatMul", ["x" if i == 0 else f"y{i - 1}", name], [f"y{i}"], name=f"dot_{name}"))
        shapes[name] = RNG.standard_normal((64, 64)).astype(np.float32)
    model = make_model(nodes, {"x": RNG.standard_normal((3, 64)).astype(np.float32)}, ["y3"], shapes)
    first = prune(model, make_recipe({"layer": [{"match": "dot_b", "pattern": "hinm:16:2:4@75%"}], "permute": "gyro"})).proto
    held = patterns(first)["b"]
    assert held.order is not None
    others = [{"match": f"dot_{name}", "pattern": "block:4x4@50%"} for name in "acd"]
    second = prune(first, make_recipe({"layer": others, "permute": "gyro"}))
    assert patterns(second.proto) == {"b": held}
    assert second.report.permutation is not None
    fixed = {c.name: c.fixed for c in second.report.permutation.classes}
    assert "hinm:16:2:4 in this order of its inputs only" in fixed["dot_a"]
    assert "hinm:16:2:4 in this order of its outputs only" in fixed["dot_b"]
    assert fixed["dot_c"] == ""
