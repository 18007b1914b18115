"""Pruning with data on whole networks: it runs in onnxruntime, has its pattern, and is closer to the dense network."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import models
from sparsec.compiler.errors import ModelError, UsageError
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.interpreter import interpret
from sparsec.compiler.sparsity.weights import layer_weights
from sparsec.passes.pruning.calibrated.importance import Importance
from sparsec.passes.pruning.calibrated.reconstruct import Repair, Settings
from sparsec.passes.pruning.calibrated.sites import SiteFinder
from sparsec.passes.pruning.model import prune
from sparsec.passes.pruning.recipe import make_recipe
from tests.reference import assert_close, make_model, run_ort

Array = np.ndarray[Any, Any]
QUICK = Settings(threads=1)


def floats(rng: np.random.Generator, *shape: int) -> Array:
    return rng.standard_normal(shape).astype(np.float32)


def normal(channels: int, rng: np.random.Generator, prefix: str) -> dict[str, Array]:
    """Parameters of a BatchNormalization."""
    names = ("gamma", "beta", "mean", "var")
    values = (1 + 0.3 * floats(rng, channels), floats(rng, channels), floats(rng, channels), np.abs(floats(rng, channels)) + 0.5)
    return {f"{prefix}.{n}": v.astype(np.float32) for n, v in zip(names, values, strict=True)}


def residual_network(rng: np.random.Generator) -> onnx.ModelProto:
    """Stem, then a residual block with BatchNormalization whose shortcut is a convolution; grouped conv, mean, classifier."""
    weights = {
        "w0": floats(rng, 8, 3, 3, 3),
        "w1": floats(rng, 16, 8, 3, 3) / 5,
        "w2": floats(rng, 16, 16, 3, 3) / 8,
        "ws": floats(rng, 16, 8, 1, 1),
        "wg": floats(rng, 16, 8, 3, 3) / 5,
        "bg": floats(rng, 16),
        "wc": floats(rng, 5, 16),
        "bc": floats(rng, 5),
        **{k: v for p, n in (("n1", 16), ("n2", 16), ("ns", 16)) for k, v in normal(n, rng, p).items()},
    }

    def batch_norm(x: str, prefix: str, y: str) -> onnx.NodeProto:
        return helper.make_node(
            "BatchNormalization", [x, *(f"{prefix}.{n}" for n in ("gamma", "beta", "mean", "var"))], [y], name=y
        )

    def conv(inputs: list[str], y: str, pad: int, groups: int = 1) -> onnx.NodeProto:
        return helper.make_node("Conv", inputs, [y], name=y, pads=[pad] * 4, group=groups)

    nodes = [
        conv(["x", "w0"], "c0", 1), helper.make_node("Relu", ["c0"], ["r0"]),
        conv(["r0", "w1"], "c1", 1), batch_norm("c1", "n1", "b1"), helper.make_node("Relu", ["b1"], ["r1"]),
        conv(["r1", "w2"], "c2", 1), batch_norm("c2", "n2", "b2"),
        conv(["r0", "ws"], "cs", 0), batch_norm("cs", "ns", "bs"),
        helper.make_node("Add", ["b2", "bs"], ["sum"]), helper.make_node("Relu", ["sum"], ["r2"]),
        conv(["r2", "wg", "bg"], "cg", 1, 2), helper.make_node("Relu", ["cg"], ["rg"]),
        helper.make_node("GlobalAveragePool", ["rg"], ["pool"]), helper.make_node("Flatten", ["pool"], ["flat"]),
        helper.make_node("Gemm", ["flat", "wc", "bc"], ["y"], name="classifier", transB=1),
    ]  # fmt: skip
    return make_model(nodes, {"x": (TensorProto.FLOAT, ["n", 3, 8, 8])}, ["y"], weights, opset=17)


@pytest.fixture(scope="module")
def network() -> onnx.ModelProto:
    return residual_network(np.random.default_rng(0))


@pytest.fixture(scope="module")
def images() -> Array:
    return floats(np.random.default_rng(1), 96, 3, 8, 8)


def distance(model: onnx.ModelProto, other: onnx.ModelProto, feeds: Mapping[str, Array]) -> float:
    """Mean squared difference of the outputs over their variance."""
    a, b = (next(iter(run_ort(m, feeds).values())) for m in (model, other))
    return float(np.square(a - b).mean() / a.var())


PATTERNS = [
    "2:4", "1:4/rows=4", "block:4x4@50%", "block:4x4@75%/taps=each", "block:2x2/2:4", "block:2x2/1:2/taps=each", "nmg:2:4:1",
    "hinm:8:2:4@75%", "unstructured@80%",
]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
def test_pruned_with_data_is_closer_and_stays_in_its_pattern(network: onnx.ModelProto, images: Array, pattern: str) -> None:
    feeds = {"x": floats(np.random.default_rng(2), 64, 3, 8, 8)}  # not those of the calibration
    in_place = prune(network, pattern, dims={"n": 1})
    pruned = prune(network, pattern, data={"x": images}, settings=QUICK)
    assert [n.op_type for n in pruned.proto.graph.node] == [n.op_type for n in network.graph.node]
    assert [x.node for x in pruned.report.changed] == [x.node for x in in_place.report.changed] == ["c1", "c2", "cs", "cg"]
    assert all(x.kept <= y.kept + 1 for x, y in zip(pruned.report.layers, in_place.report.layers, strict=True))
    assert distance(network, pruned.proto, feeds) < 0.7 * distance(network, in_place.proto, feeds)
    again = import_model(pruned.proto, dims={"n": 64})  # checks the recorded patterns
    assert_close(interpret(again, feeds), run_ort(pruned.proto, feeds), 1e-4)


def test_same_seed_same_bytes(network: onnx.ModelProto, images: Array) -> None:
    few = Settings(threads=1, rows=500)
    one, two = (prune(network, "1:4", data={"x": images}, settings=few).proto for _ in range(2))
    assert one.SerializeToString(deterministic=True) == two.SerializeToString(deterministic=True)
    other = prune(network, "1:4", data={"x": images}, settings=Settings(threads=1, rows=500, seed=1)).proto
    assert other.SerializeToString(deterministic=True) != one.SerializeToString(deterministic=True)


def test_what_keeps_all_is_the_network(network: onnx.ModelProto, images: Array) -> None:
    """Weights that have the pattern already stay, and nothing behind them is refitted."""
    sparse = prune(network, "2:4", dims={"n": 1}).proto
    pruned = prune(sparse, "2:4", data={"x": images}, settings=QUICK)
    assert not pruned.report.changed
    before, after = ({t.name: numpy_helper.to_array(t) for t in m.graph.initializer} for m in (sparse, pruned.proto))
    assert before.keys() == after.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array)


def test_moments_give_every_channel_its_mean_and_variance_back(network: onnx.ModelProto, images: Array) -> None:
    settings = Settings(importance=Importance.magnitude, repair=Repair.moments, threads=1)
    pruned = prune(network, make_recipe({"layer": [{"match": "c1", "pattern": "2:4"}]}), data={"x": images}, settings=settings)
    ours, theirs = (value_of(m, "b1", images) for m in (pruned.proto, network))
    np.testing.assert_allclose(ours.mean(axis=(0, 2, 3)), theirs.mean(axis=(0, 2, 3)), atol=1e-3)
    np.testing.assert_allclose(ours.std(axis=(0, 2, 3)), theirs.std(axis=(0, 2, 3)), rtol=1e-3)
    kept = numpy_helper.to_array(next(t for t in pruned.proto.graph.initializer if t.name == "w1")) != 0
    plain = prune(network, make_recipe({"layer": [{"match": "c1", "pattern": "2:4"}]}), dims={"n": 1}).proto
    np.testing.assert_array_equal(kept, numpy_helper.to_array(next(t for t in plain.graph.initializer if t.name == "w1")) != 0)


def value_of(model: onnx.ModelProto, value: str, images: Array) -> Array:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.output.append(onnx.ValueInfoProto(name=value))
    return run_ort(copy, {"x": images})[value]


def test_the_last_part_of_a_sum_makes_up_for_the_others(network: onnx.ModelProto, images: Array) -> None:
    """Only the shortcut is pruned: the main branch, refitted although it stays dense, brings the sum closer to the dense one."""
    recipe = make_recipe({"layer": [{"match": "cs", "pattern": "1:4"}]})
    sums = {
        refit: value_of(
            prune(network, recipe, data={"x": images}, settings=Settings(threads=1, refit=refit)).proto, "sum", images
        )
        for refit in (False, True)
    }
    wanted = value_of(network, "sum", images)
    errors = {refit: np.square(s - wanted).mean() for refit, s in sums.items()}
    assert errors[True] < 0.8 * errors[False]


def test_layers_that_nothing_pruned_reaches_are_not_refitted(network: onnx.ModelProto, images: Array) -> None:
    recipe = make_recipe({"layer": [{"match": "cg", "pattern": "2:4"}]})
    pruned = prune(network, recipe, data={"x": images}, settings=QUICK).proto
    before, after = ({t.name: numpy_helper.to_array(t) for t in m.graph.initializer} for m in (network, pruned))
    assert {n for n in before if not np.array_equal(before[n], after[n])} == {"wg", "bg", "wc", "bc"}


@pytest.mark.parametrize("name", ["tiny_cnn", "tiny_nhwc", "tiny_transformer"])
def test_other_networks(name: str) -> None:
    """Attention projections, layouts, products without a bias."""
    model = models.build(name)
    rng = np.random.default_rng(4)
    feeds = [feeds_of(model, rng) for _ in range(8)]
    pruned = prune(model, "1:4", data=feeds, settings=QUICK)
    plain = prune(model, "1:4", input_shapes={k: v.shape for k, v in feeds[0].items()})
    assert len(pruned.report.changed) == len(plain.report.changed) >= 3
    ours, theirs = (np.mean([distance(model, m, f) for f in feeds]) for m in (pruned.proto, plain.proto))
    assert ours < theirs


def feeds_of(model: onnx.ModelProto, rng: np.random.Generator) -> dict[str, Array]:
    graph = import_model(model)
    found = {}
    for name in graph.inputs:
        t = graph.types[name]
        found[name] = floats(rng, *t.shape) if t.dtype.is_float else rng.integers(0, 2, t.shape).astype(t.dtype.numpy)
    return found


def product_network(rng: np.random.Generator, *nodes: onnx.NodeProto, outputs: list[str]) -> onnx.ModelProto:
    weights = {"w": floats(rng, 8, 8), "v": floats(rng, 8, 8), "b": floats(rng, 8)}
    return make_model(list(nodes), {"x": (TensorProto.FLOAT, ["n", 8])}, outputs, weights, opset=17)


def test_shared_weights_and_products_without_a_bias() -> None:
    """Both uses of `w` are fitted with one set of weights; the one without a bias keeps its zero."""
    rng = np.random.default_rng(5)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], name="first"), helper.make_node("Relu", ["m"], ["r"]),
        helper.make_node("MatMul", ["r", "w"], ["k"], name="second"), helper.make_node("Add", ["k", "b"], ["y"]),
    ]  # fmt: skip
    model = product_network(rng, *nodes, outputs=["y"])
    x = floats(rng, 400, 8) + 1
    recipe = make_recipe({"pattern": "2:4", "spare": []})
    pruned, plain = prune(model, recipe, data={"x": x}, settings=QUICK), prune(model, recipe, dims={"n": 1})
    assert distance(model, pruned.proto, {"x": x}) < distance(model, plain.proto, {"x": x})
    finder = SiteFinder(model)
    (layer,) = layer_weights(import_model(model, dims={"n": 4}))
    sites = finder.sites(layer, 8)
    assert [s.bias.name if s.bias else None for s in sites] == [None, "b"]


def test_layers_that_cannot_be_calibrated_are_pruned_by_magnitude_with_a_remark() -> None:
    rng = np.random.default_rng(6)
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["m"], name="scaled", alpha=0.5), helper.make_node("Relu", ["m"], ["r"]),
        helper.make_node("Gemm", ["r", "v", "b"], ["y"], name="plain"),
    ]  # fmt: skip
    model = product_network(rng, *nodes, outputs=["y"])
    recipe = make_recipe({"pattern": "2:4", "spare": []})
    pruned = prune(model, recipe, data={"x": floats(rng, 50, 8)}, settings=QUICK)
    assert [x.status for x in pruned.report.layers] == ["pruned", "pruned"]
    scaled = pruned.report.layers[0]
    assert scaled.remarks == ("pruned by magnitude, not calibrated: it is a Gemm that scales or transposes its input",)
    w, plain = (numpy_helper.to_array(m.graph.initializer[0]) for m in (pruned.proto, prune(model, recipe, dims={"n": 1}).proto))
    np.testing.assert_array_equal(w, plain)


def test_a_convolution_without_any_bias_gets_one(images: Array) -> None:
    rng = np.random.default_rng(7)
    nodes = [helper.make_node("Conv", ["x", "w0"], ["c"], name="c", pads=[1] * 4), helper.make_node("Tanh", ["c"], ["y"])]
    model = make_model(nodes, {"x": (TensorProto.FLOAT, ["n", 3, 8, 8])}, ["y"], {"w0": floats(rng, 8, 3, 3, 3)}, opset=17)
    recipe = make_recipe({"pattern": "unstructured@70%", "spare": []})
    pruned = prune(model, recipe, data={"x": images + 1}, settings=QUICK).proto
    assert len(pruned.graph.node[0].input) == 3
    assert len(model.graph.node[0].input) == 2
    np.testing.assert_allclose(
        value_of(pruned, "c", images + 1).mean(axis=(0, 2, 3)), value_of(model, "c", images + 1).mean(axis=(0, 2, 3)), atol=1e-4
    )


def test_mistakes_are_named(network: onnx.ModelProto, images: Array) -> None:
    with pytest.raises(UsageError, match="no array for input 'x'"):
        prune(network, "2:4", data={"image": images}, settings=QUICK)
    with pytest.raises(UsageError, match="give finite samples"):
        prune(network, "2:4", data={"x": np.full_like(images, np.nan)}, settings=QUICK)
    with pytest.raises(UsageError, match="takes 3 steps, and masks chosen with data are taken in one"):
        prune(network, make_recipe({"pattern": "2:4", "steps": 3}), data={"x": images}, settings=QUICK)
    with pytest.raises(UsageError, match="preserve_norm rescales the weights"):
        prune(network, make_recipe({"pattern": "2:4", "preserve_norm": True}), data={"x": images}, settings=QUICK)
    huge = residual_network(np.random.default_rng(8))
    weights = next(t for t in huge.graph.initializer if t.name == "w0")
    weights.CopyFrom(numpy_helper.from_array(np.full((8, 3, 3, 3), 1e38, np.float32), "w0"))
    with pytest.raises(ModelError, match=r"node 'cs' reads or gives NaN, infinity"):
        prune(huge, "2:4", data={"x": images}, settings=QUICK)
