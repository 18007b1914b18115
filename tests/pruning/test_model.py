"""Pruned models: ordinary ONNX that onnxruntime runs to the same values, with the zeros that were asked for."""

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import models
from sparsec.compiler.errors import ModelError
from sparsec.compiler.feeds import random_feeds, table_rows
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.importer.claims import METADATA_KEY
from sparsec.compiler.passing.runner import run_pipeline
from sparsec.compiler.pruning_report import LayerReport
from sparsec.compiler.report import tensor_info
from sparsec.compiler.sparsity import DENSE, NM, Block
from sparsec.passes.pipelines import DEFAULT
from sparsec.passes.pruning.model import PrunedModel, prune
from sparsec.passes.pruning.recipe import make_recipe
from tests.reference import assert_close, check_model, make_model, run_ort

Array = np.ndarray
RNG = np.random.default_rng(11)


def feeds_of(model: onnx.ModelProto, **dims: int) -> dict[str, Array]:
    graph = import_model(model, dims=dims)
    return random_feeds([tensor_info(v, graph.types[v]) for v in graph.inputs], 0, table_rows(model))


def by_name(pruned: PrunedModel) -> dict[str, LayerReport]:
    return {x.node: x for x in pruned.report.layers}


def initializer(model: onnx.ModelProto, name: str) -> Array:
    return numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == name))


PATTERNS = [
    "2:4", "1:4/rows=8", "block:8x8@50%", "block:4x4@75%/taps=each", "block:4x2/2:4", "nmg:2:4:1", "hinm:8:2:4@75%",
    "unstructured@90%",
]  # fmt: skip


@pytest.mark.parametrize("name", ["tiny_cnn", "tiny_nhwc", "tiny_transformer"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_onnxruntime_runs_what_the_interpreter_runs(name: str, pattern: str) -> None:
    model = models.build(name)
    pruned = prune(model, pattern)
    onnx.checker.check_model(pruned.proto)
    assert len(pruned.report.changed) >= 3
    feeds = feeds_of(model)
    graph = check_model(pruned.proto, feeds)
    before, after = (next(iter(run_ort(m, feeds).values())) for m in (model, pruned.proto))
    assert not np.allclose(before, after)
    assert [n.name for n in pruned.proto.graph.node] == [n.name for n in model.graph.node]
    optimised = run_pipeline(graph, DEFAULT)
    sparse = [t.sparsity for v, t in optimised.types.items() if v in optimised.constants and t.sparsity != DENSE]
    assert len(sparse) >= len(pruned.report.changed)  # a product of attention may be split


def test_the_first_convolution_depthwise_layers_and_the_classifier_are_spared_unless_told() -> None:
    model = models.build("tiny_cnn")
    layers = by_name(prune(model, "unstructured@50%"))
    assert {n: x.remarks for n, x in layers.items() if x.status == "spared"} == {
        "/stem/conv/Conv": ("the first convolution",),
        "/depthwise/conv/Conv": ("depthwise",),
        "/fc/Gemm": ("the classifier: the last Gemm or MatMul",),
    }
    told = {"pattern": "2:4", "layer": [{"match": n, "pattern": "unstructured@50%"} for n in ("/stem/*", "/depthwise/*")]}
    status = {n: x.status for n, x in by_name(prune(model, make_recipe(told))).items()}
    assert (status["/stem/conv/Conv"], status["/depthwise/conv/Conv"], status["/fc/Gemm"]) == ("pruned", "pruned", "spared")
    everything = prune(model, make_recipe({"pattern": "unstructured@50%", "spare": []}))
    assert {x.status for x in everything.report.layers} == {"pruned"}


def test_the_report_sums_what_was_kept() -> None:
    model = models.build("tiny_cnn")
    pruned = prune(model, "2:4")
    layer = by_name(pruned)["/block/first/conv/Conv"]
    before, after = (initializer(m, layer.weights).astype(np.float64) for m in (model, pruned.proto))
    assert (layer.elements, layer.kept) == (before.size, np.count_nonzero(after))
    largest = np.sort(np.abs(before).ravel())[-layer.kept :]
    expected = [np.abs(after).sum() / np.abs(before).sum(), (after**2).sum() / (before**2).sum()]
    expected += [largest.sum() / np.abs(before).sum(), (largest**2).sum() / (before**2).sum()]
    assert layer.ratios() == pytest.approx(expected, rel=1e-5)
    total = pruned.report.total
    assert total.kept == sum(x.kept for x in pruned.report.layers) and total.density == total.kept / total.elements
    assert [x.ratios() for x in pruned.report.layers if x.status == "spared"] == [(1.0, 1.0, 1.0, 1.0)] * 3


def test_kept_weights_can_be_scaled_to_the_norm_that_was() -> None:
    model = models.build("tiny_cnn")
    pruned = prune(model, make_recipe({"pattern": "1:4", "preserve_norm": True}))
    for layer in pruned.report.changed:
        before, after = (
            np.square(initializer(m, layer.weights)).reshape(layer.shape[0], -1).sum(1) for m in (model, pruned.proto)
        )
        np.testing.assert_allclose(after, before, rtol=1e-5)
        assert layer.kept_l1 < layer.l1  # what was retained is told of the weights as they were


def linear(w: Array, *, transposed: bool = False, extra: Mapping[str, Array] | None = None, nodes: int = 1) -> onnx.ModelProto:
    """Products of x with w, or with Transpose(w)."""
    name = "w.t" if transposed else "w"
    body = [helper.make_node("Transpose", ["w"], ["w.t"], name="turn", perm=[1, 0])] if transposed else []
    k = w.shape[1] if transposed else w.shape[0]
    body += [helper.make_node("MatMul", ["x", name], [f"y{i}"], name=f"dot{i}") for i in range(nodes)]
    return make_model(body, {"x": np.zeros((3, k), np.float32)}, [f"y{i}" for i in range(nodes)], {"w": w, **(extra or {})})


ALL = {"spare": []}


@pytest.mark.parametrize("size", [16, 96])  # the importer folds small transposes, and keeps large ones
def test_weights_behind_a_transpose_are_pruned_where_they_are_stored(size: int) -> None:
    model = linear(RNG.standard_normal((size, 2 * size)).astype(np.float32), transposed=True)
    pruned = prune(model, make_recipe({"pattern": "2:4", **ALL}))
    w = initializer(pruned.proto, "w")  # [N, K]
    assert NM(2, 4).holds(w[:, None, :]) and np.count_nonzero(w) == w.size / 2
    check_model(pruned.proto, {"x": RNG.standard_normal((3, 2 * size)).astype(np.float32)})


def test_shared_weights_are_pruned_once() -> None:
    pruned = prune(linear(RNG.standard_normal((16, 8)).astype(np.float32), nodes=2), make_recipe({"pattern": "2:4", **ALL}))
    (layer,) = pruned.report.layers
    assert layer.status == "pruned" and NM(2, 4).holds(initializer(pruned.proto, "w").T[:, None, :])


def test_weights_that_another_node_reads_stay_as_they_are() -> None:
    w = RNG.standard_normal((16, 16)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["w", "i"], ["x"], name="embed"),
        helper.make_node("MatMul", ["x", "w"], ["y"], name="dot"),
    ]
    model = make_model(nodes, {"i": np.zeros(3, np.int64)}, ["y"], {"w": w})
    pruned = prune(model, make_recipe({"pattern": "2:4", **ALL}))
    (layer,) = pruned.report.layers
    assert (layer.status, layer.remarks) == ("dense", ("Gather node 'embed' reads the same weights",))
    np.testing.assert_array_equal(initializer(pruned.proto, "w"), w)


def test_transposed_weights_that_others_read_too_stay_as_they_are() -> None:
    w = RNG.standard_normal((16, 16)).astype(np.float32)
    nodes = [
        helper.make_node("Transpose", ["w"], ["w.t"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "w.t"], ["y"], name="dot"),
        helper.make_node("Add", ["x", "w"], ["z"]),
    ]
    pruned = prune(make_model(nodes, {"x": w}, ["y", "z"], {"w": w}), make_recipe({"pattern": "2:4", **ALL}))
    (layer,) = pruned.report.layers
    assert layer.status == "dense" and layer.remarks == ("its weights are computed by other nodes: fold constants first",)


def test_weights_in_arithmetic_that_import_folds_stay_as_they_are() -> None:
    w = RNG.standard_normal((8, 8)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="dot"),
        helper.make_node("Mul", ["w", "w"], ["square"], name="mul"),
        helper.make_node("Add", ["h", "square"], ["y"]),
    ]
    pruned = prune(make_model(nodes, {"x": w}, ["y"], {"w": w}), make_recipe({"pattern": "2:4", **ALL}))
    (layer,) = pruned.report.layers
    assert (layer.status, layer.remarks) == ("dense", ("Mul node 'mul' reads the same weights",))


def test_weights_that_layers_share_through_an_identity_are_pruned() -> None:
    w = RNG.standard_normal((8, 8)).astype(np.float32)
    nodes = [
        helper.make_node("Identity", ["w"], ["again"]),
        helper.make_node("MatMul", ["x", "w"], ["h"], name="first"),
        helper.make_node("MatMul", ["h", "again"], ["y"], name="second"),
    ]
    pruned = prune(make_model(nodes, {"x": w}, ["y"], {"w": w}), make_recipe({"pattern": "2:4", **ALL}))
    assert [x.status for x in pruned.report.layers] == ["pruned"]
    check_model(pruned.proto, {"x": w})


def test_weights_in_constant_nodes_are_pruned_there() -> None:
    w = RNG.standard_normal((8, 4, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(w)),
        helper.make_node("Conv", ["x", "w"], ["y"], name="conv"),
    ]
    pruned = prune(make_model(nodes, {"x": np.zeros((1, 4, 5, 5), np.float32)}, ["y"]), make_recipe({"pattern": "2:4", **ALL}))
    stored = numpy_helper.to_array(pruned.proto.graph.node[0].attribute[0].t)
    assert np.count_nonzero(stored) == w.size / 2
    check_model(pruned.proto, {"x": RNG.standard_normal((1, 4, 5, 5)).astype(np.float32)})


def test_external_data_stays_external(tmp_path: Path) -> None:
    model = models.build("tiny_cnn")
    path = tmp_path / "in" / "model.onnx"
    path.parent.mkdir()
    onnx.save(models.build("tiny_cnn"), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    original = path.read_bytes(), (path.parent / "weights.bin").read_bytes()
    out = tmp_path / "out" / "pruned.onnx"
    prune(path, "2:4").save(out)
    assert sorted(p.name for p in out.parent.iterdir()) == ["pruned.onnx", "pruned.onnx.data"]
    assert out.stat().st_size < 20_000
    saved, expected = onnx.load(out), prune(model, "2:4").proto
    for a, b in zip(saved.graph.initializer, expected.graph.initializer, strict=True):
        np.testing.assert_array_equal(numpy_helper.to_array(a), numpy_helper.to_array(b))
    feeds = feeds_of(model)
    assert_close(run_ort(saved, feeds), run_ort(expected, feeds))
    assert len(import_model(out).constants) == len(import_model(expected).constants)
    assert (path.read_bytes(), (path.parent / "weights.bin").read_bytes()) == original
    prune(out, "1:4").save(out)  # in place
    assert prune(out, "1:4").report.changed == ()


def test_a_following_normalisation_enters_the_scores() -> None:
    w = np.ones((2, 4, 1, 1), np.float32)
    one, zero = np.ones(2, np.float32), np.zeros(2, np.float32)
    weights = {"w": w, "gamma": np.array([0.1, -10], np.float32), "b": zero, "m": zero, "v": one}
    conv = helper.make_node("Conv", ["x", "w"], ["c"], name="conv")
    norm = helper.make_node("BatchNormalization", ["c", "gamma", "b", "m", "v"], ["y"])
    model = make_model([conv, norm], {"x": np.zeros((1, 4, 3, 3), np.float32)}, ["y"], weights)
    pruned = initializer(prune(model, make_recipe({"pattern": "unstructured@50%", **ALL})).proto, "w")
    np.testing.assert_array_equal(pruned.reshape(2, 4), [[0, 0, 0, 0], [1, 1, 1, 1]])


def test_blocks_that_vary_least_go_first() -> None:
    w = np.full((4, 4), 5, np.float32)
    w[:2, :2] = w[2:, 2:] = [[1, -1], [-1, 1]]  # small, but they vary
    asked = {"pattern": "block:2x2@50%", "criterion": "variance", **ALL}
    pruned = initializer(prune(linear(w), make_recipe(asked)).proto, "w")
    assert Block(2, 2).kept(pruned.T[:, None, :])[:, 0].tolist() == [[True, False], [False, True]]
    largest = initializer(prune(linear(w), make_recipe({**asked, "criterion": "l2"})).proto, "w")
    assert Block(2, 2).kept(largest.T[:, None, :])[:, 0].tolist() == [[False, True], [True, False]]


def test_no_row_or_column_of_blocks_is_emptied() -> None:
    w = RNG.standard_normal((32, 32)).astype(np.float32)
    w[:, :8] *= 1e-3  # the first row of blocks of outputs
    pruned = prune(linear(w), make_recipe({"pattern": "block:8x8@50%", **ALL}))
    kept = Block(8, 8).kept(initializer(pruned.proto, "w").T[:, None, :])[:, 0]
    assert kept.any(axis=0).all() and kept.any(axis=1).all() and kept.sum() == 8  # others made room
    (layer,) = prune(linear(w), make_recipe({"pattern": "block:8x8@90%", **ALL})).report.layers
    assert layer.remarks == ("2 blocks kept so that no row or column of blocks is empty: 75.0 % dropped",)


def test_a_convolution_whose_rows_choose_at_every_tap_needs_fewer_of_them() -> None:
    w = RNG.standard_normal((8, 32, 3, 3)).astype(np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv")
    model = make_model([node], {"x": np.zeros((1, 32, 5, 5), np.float32)}, ["y"], {"w": w})
    for pattern, status in (("block:8x8/1:4", "dense"), ("block:8x8/1:4/taps=each", "pruned")):
        pruned = prune(model, make_recipe({"pattern": pattern, **ALL}))
        assert pruned.report.layers[0].status == status
    kept = Block(8, 8, "each").kept(initializer(pruned.proto, "w").transpose(0, 2, 3, 1).reshape(8, 9, 32))
    assert (kept.sum(axis=2) == 1).all() and kept.any(axis=(0, 1)).all()


def test_layers_that_a_pattern_does_not_divide_say_so() -> None:
    def remarks(shape: tuple[int, int], pattern: str) -> tuple[str, ...]:
        (layer,) = prune(
            linear(RNG.standard_normal(shape).astype(np.float32)), make_recipe({"pattern": pattern, **ALL})
        ).report.layers
        return (layer.status, *layer.remarks)

    assert remarks((3, 8), "2:4") == ("dense", "3 input channels, and 2:4 takes 4 together")
    assert remarks((8, 4), "block:8x8@50%") == ("dense", "4 output channels, and block:8x8 takes 8 together")
    assert remarks((10, 12), "2:4/rows=8") == (
        "pruned",
        "the last tile has 4 of 8 outputs (padded)",
        "the last group has 2 of 4 input channels (padded)",
    )
    assert remarks((14, 8), "nmg:1:4:2") == ("pruned", "the last chunk has 6 of 8 columns (padded)")
    assert remarks((8, 64), "hinm:32:2:4@80%") == ("dense", "hinm:32:2:4@80% keeps fewer than 4 of 8 input channels")
    assert remarks((24, 16), "block:8x8/2:4") == ("dense", "24 input channels, and block:8x8/2:4 takes 32 together")
    last = "the last group has 4 of 32 input channels (padded)"
    assert remarks((36, 16), "block:8x8/2:4") == ("pruned", last)
    too_few = "16 output channels, and block:8x8/1:4 takes 25 or more to leave no column of blocks empty"
    assert remarks((32, 16), "block:8x8/1:4") == ("dense", too_few)
    assert remarks((32, 25), "block:8x8/1:4") == ("pruned", "the last tile has 1 of 8 outputs (padded)")
    one_row = ("dense", "1 block kept so that no row or column of blocks is empty: 0.0 % dropped")
    assert remarks((16, 4), "block:4x8@50%") == (*one_row, "block:4x8@50% drops nothing here")


def test_groups_of_a_convolution_are_not_mixed() -> None:
    w = RNG.standard_normal((24, 4, 3, 3)).astype(np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv", group=2)
    model = make_model([node], {"x": np.zeros((1, 8, 5, 5), np.float32)}, ["y"], {"w": w})
    (layer,) = prune(model, make_recipe({"pattern": "2:4/rows=8", **ALL})).report.layers
    assert layer.remarks == ("groups of 12 outputs, which 2:4/rows=8 does not divide into tiles of 8",)
    assert prune(model, make_recipe({"pattern": "2:4/rows=4", **ALL})).report.layers[0].status == "pruned"


def test_weights_that_are_not_finite_are_refused() -> None:
    for bad in (np.nan, np.inf):
        w = RNG.standard_normal((8, 8)).astype(np.float32)
        w[3, 3] = bad
        with pytest.raises(ModelError, match=r"weights 'w' of node 'dot0' hold NaN or infinity, .*repair the model") as found:
            prune(linear(w), make_recipe({"pattern": "2:4", **ALL}))
        assert (found.value.node, found.value.tensor) == ("dot0", "w")


@pytest.mark.parametrize(
    ("first", "second", "remark"),
    [
        ("2:4", "2:4", "already 2:4, 50.0 % zeros: left as it is"),
        ("block:8x8/2:4", "block:8x8/2:4", "already block:8x8/2:4, 50.0 % zeros: left as it is"),
        ("block:8x8/1:4", "block:8x8/2:4", "already block:8x8/2:4, 75.0 % zeros: left as it is"),
        ("block:8x8/2:4", "block:8x8@50%", "already 50.0 % zeros, block:8x8@50% asks for 50 %: left as it is"),
        ("block:8x8@75%", "block:8x8/1:4", "already 75.0 % zeros, block:8x8/1:4 asks for 75 %: left as it is"),
        ("unstructured@90%", "unstructured@50%", "already 90.0 % zeros, unstructured@50% asks for 50 %: left as it is"),
        ("1:4", "2:4", "already 2:4, 75.0 % zeros: left as it is"),
        ("unstructured@90%", "block:8x8@50%", "already 90.0 % zeros in another pattern, which block:8x8@50% does not improve on"),
    ],
)
def test_what_is_sparse_enough_is_left_alone(first: str, second: str, remark: str) -> None:
    model = linear(RNG.standard_normal((64, 40)).astype(np.float32))
    once = prune(model, make_recipe({"pattern": first, **ALL}))
    again = prune(once.proto, make_recipe({"pattern": second, **ALL}))
    (layer,) = again.report.layers
    assert layer.status == "kept" and layer.remarks[0].startswith(remark)
    np.testing.assert_array_equal(initializer(again.proto, "w"), initializer(once.proto, "w"))


@pytest.mark.parametrize("pattern", ["2:4", "block:8x8@75%", "block:4x4/2:4", "unstructured@90%", "nmg:1:4:1"])
def test_steps_end_where_one_step_does(pattern: str) -> None:
    model = linear(RNG.standard_normal((64, 64)).astype(np.float32))
    recipe = make_recipe({"pattern": pattern, "steps": 3, **ALL})
    zeros, remarks, current = [], [], model
    for _ in range(3):
        pruned = prune(current, recipe)
        zeros.append((initializer(pruned.proto, "w") == 0).mean())
        remarks.append(pruned.report.layers[0].remarks[-1])
        current = pruned.proto
    assert remarks == ["step 1 of 3", "step 2 of 3", "step 3 of 3"]
    at_once = initializer(prune(model, make_recipe({"pattern": pattern, **ALL})).proto, "w")
    np.testing.assert_array_equal(initializer(current, "w"), at_once)
    assert zeros == pytest.approx([(at_once == 0).mean() * k / 3 for k in (1, 2, 3)], abs=0.02)
    assert prune(current, recipe).report.layers[0].status == "kept"


def test_a_step_drops_one_block_at_least() -> None:
    model = linear(RNG.standard_normal((16, 16)).astype(np.float32))
    pruned = prune(model, make_recipe({"pattern": "block:8x8@50%", "steps": 100, **ALL}))
    assert (initializer(pruned.proto, "w") == 0).sum() == 64


# ---- metadata


def sparsities(model: onnx.ModelProto) -> dict[str, str]:
    graph = import_model(model)
    return {v: str(graph.types[v].sparsity) for v in graph.constants if graph.types[v].sparsity != DENSE}


def test_metadata_names_the_patterns_and_import_believes_it() -> None:
    pruned = prune(linear(RNG.standard_normal((60, 60)).astype(np.float32)), make_recipe({"pattern": "block:5x3@50%", **ALL}))
    (entry,) = pruned.proto.metadata_props
    assert (entry.key, entry.value) == (METADATA_KEY, '{"w": "block:5x3/nnz=1800"}')
    assert sparsities(pruned.proto) == {"w": "~block:5x3/nnz=1800"}
    assert str(pruned.graph.types["w"].sparsity) == "~block:5x3/nnz=1800"
    final = run_pipeline(import_model(pruned.proto), DEFAULT)
    assert "~block:5x3/nnz=1800" in {str(final.types[v].sparsity) for v in final.constants}


def test_a_loss_of_metadata_falls_back_to_recognition() -> None:
    pruned = prune(linear(RNG.standard_normal((64, 64)).astype(np.float32)), make_recipe({"pattern": "2:4", **ALL})).proto
    del pruned.metadata_props[:]
    assert sparsities(pruned) == {}
    final = run_pipeline(import_model(pruned), DEFAULT)
    assert "~2:4/nnz=2048" in {str(final.types[v].sparsity) for v in final.constants}


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ('{"w": "2:4/nnz=32"}', "weights 'w' are 2:4, but output 0 keeps 4 of the input channels 0 to 3 at tap 0: prune"),
        ('{"w": "block:8x8/nnz=3"}', "weights 'w' are block:8x8, but 64 of them are not zero, not 3: prune the model again"),
        (
            '{"w": "block:2x2/1:2"}',
            "weights 'w' are block:2x2/1:2, but row 0 of blocks keeps 2 of the block columns 0 to 1: prune",
        ),
        ('{"w": "block:999x9/1:9999"}', "its tiles of 999 x 89,991 would pad 64 weights to 89,901,009"),
        ('{"w": "2:3:4"}', "metadata 'sparsec.sparsity' cannot be read .not a pattern.: prune the model again, or remove"),
        ("[1]", "metadata 'sparsec.sparsity' cannot be read"),
        ("{", "metadata 'sparsec.sparsity' cannot be read"),
    ],
)
def test_metadata_that_lies_is_refused(claim: str, message: str) -> None:
    model = linear(np.ones((8, 8), np.float32))
    helper.set_model_props(model, {METADATA_KEY: claim})
    with pytest.raises(ModelError, match=message):
        import_model(model)


def test_metadata_of_weights_that_are_gone_is_passed_over() -> None:
    model = linear(np.ones((8, 8), np.float32))
    helper.set_model_props(model, {METADATA_KEY: '{"renamed": "2:4/nnz=32"}', "author": "someone"})
    assert sparsities(model) == {}
    pruned = prune(model, make_recipe({"pattern": "2:4", **ALL})).proto
    assert {p.key: p.value for p in pruned.metadata_props} == {"author": "someone", METADATA_KEY: '{"w": "2:4/nnz=32"}'}


def test_dynamic_dimensions_stay_dynamic() -> None:
    model = models.build("tiny_cnn", dynamic_batch=True)
    symbol = model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    pruned = prune(model, "2:4", dims={symbol: 1})
    assert pruned.proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param == symbol
    with pytest.raises(ModelError, match="is dynamic"):
        prune(model, "2:4")


def test_other_element_types_are_kept() -> None:
    w = RNG.standard_normal((8, 8)).astype(np.float16)
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="dot")
    model = make_model([node], {"x": np.zeros((3, 8), np.float16)}, ["y"], {"w": w})
    pruned = prune(model, make_recipe({"pattern": "2:4", **ALL})).proto
    assert pruned.graph.initializer[0].data_type == TensorProto.FLOAT16
    kept = initializer(pruned, "w")
    np.testing.assert_array_equal(kept[kept != 0], w[kept != 0])


@pytest.mark.slow
def test_a_large_network_is_pruned_in_seconds() -> None:
    model = models.build("resnet50")
    start = time.thread_time()
    pruned = prune(model, "2:4")
    assert time.thread_time() - start < 10
    assert len(pruned.report.changed) == 52
    assert pruned.report.total.density == pytest.approx(0.54, abs=0.01)


def test_a_layer_of_one_weight_may_lose_it() -> None:
    weights = {"w": np.full((1, 1), 3, np.float32)}
    model = make_model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": np.ones((2, 1), np.float32)}, ["y"], weights)
    pruned = prune(model, make_recipe({"pattern": "unstructured@80%", "spare": []}))
    (layer,) = pruned.report.layers
    assert (layer.kept, layer.kept_l1, layer.free_l1) == (0, 0, 0)
    assert initializer(pruned.proto, "w") == 0
