"""Values of a training step: gradients against differences of the loss, and bidirectional pruning against numpy."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import models
from sparsec.backends.systolic import Level, parse_machine
from sparsec.backends.systolic.network import Network
from sparsec.backends.systolic.training import trained_layers, training_schedule
from sparsec.backends.systolic.training_engine import ArrayEngine, Engine, NumpyEngine, Optimiser, array_engine
from sparsec.backends.systolic.training_step import Step, first_states, layer_state, train_step
from sparsec.compiler.errors import UsageError
from sparsec.compiler.graph import ABSENT, Graph
from sparsec.compiler.importer.api import import_model
from sparsec.passes.quantisation.model import quantise
from tests.backends.systolic.networks import plan_network

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(11)
RATE = 0.05


def onnx_model(nodes: list[onnx.NodeProto], weights: Mapping[str, Array], x: tuple[int, ...]) -> onnx.ModelProto:
    data = helper.make_tensor_value_info("x", TensorProto.FLOAT, x)
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    constants = [numpy_helper.from_array(w.astype(np.float32), v) for v, w in weights.items()]
    return helper.make_model(helper.make_graph(nodes, "g", [data], [out], constants), opset_imports=[helper.make_opsetid("", 17)])


def convolutions() -> onnx.ModelProto:
    """Groups, strides, gaps between taps, padding on some sides, and a rectangular kernel."""
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["p"], name="first", pads=[1, 0, 2, 1], strides=[2, 1]),
        helper.make_node("Tanh", ["p"], ["q"], name="act"),
        helper.make_node("Conv", ["q", "b"], ["r"], name="second", group=2, dilations=[1, 2], pads=[2, 2, 2, 2]),
        helper.make_node("Sigmoid", ["r"], ["s"], name="gate"),
        helper.make_node("Conv", ["s", "c"], ["y"], name="third", group=8, pads=[1, 1, 1, 1]),
    ]
    shapes = {"a": (6, 3, 3, 2), "b": (8, 3, 3, 3), "c": (8, 1, 2, 3)}
    return onnx_model(nodes, {v: RNG.standard_normal(s) / s[1] for v, s in shapes.items()}, (2, 3, 7, 6))


def residuals() -> onnx.ModelProto:
    """What image networks have: a residual sum, depthwise and grouped layers, all kinds of pools, branches, channels shuffled."""
    nodes = [
        helper.make_node("Conv", ["x", "stem", "stem_b"], ["a0"], name="stem", pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("HardSwish", ["a0"], ["a1"]),
        helper.make_node("LRN", ["a1"], ["a"], size=3, alpha=0.3),
        helper.make_node("Conv", ["a", "deep", "deep_b"], ["b0"], name="depthwise", group=8, pads=[1, 1, 1, 1]),
        helper.make_node("Clip", ["b0", "low", "high"], ["b1"]),
        helper.make_node("Conv", ["b1", "point", "point_b"], ["b2"], name="pointwise"),
        helper.make_node("Add", ["b2", "a"], ["b"], name="residual"),
        helper.make_node("Conv", ["b", "pair", "pair_b"], ["c0"], name="grouped", group=2, pads=[1, 1, 1, 1]),
        helper.make_node("Reshape", ["c0", "split"], ["c1"]),
        helper.make_node("Transpose", ["c1"], ["c2"], perm=[0, 2, 1, 3, 4]),
        helper.make_node("Reshape", ["c2", "merge"], ["c3"]),
        helper.make_node("LeakyRelu", ["c3"], ["c"], alpha=0.1),
        helper.make_node("AveragePool", ["c"], ["d0"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("MaxPool", ["c"], ["d1"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Concat", ["d0", "d1"], ["d"], axis=1),
        helper.make_node("GlobalAveragePool", ["d"], ["e0"]),
        helper.make_node("GlobalMaxPool", ["d"], ["e1"]),
        helper.make_node("Add", ["e0", "e1"], ["e2"]),
        helper.make_node("Flatten", ["e2"], ["e"]),
        helper.make_node("Gemm", ["e", "fc", "fc_b"], ["f"], name="fc"),
        helper.make_node("LogSoftmax", ["f"], ["y"]),
    ]
    shapes = {"stem": (8, 2, 3, 3), "deep": (8, 1, 3, 3), "point": (8, 8, 1, 1), "pair": (8, 4, 3, 3), "fc": (16, 5)}
    weights = {v: RNG.standard_normal(s) / np.prod(s[1:]) ** 0.5 for v, s in shapes.items()}
    biases = {f"{v}_b": RNG.standard_normal(s[1] if v == "fc" else s[0]) * 0.3 for v, s in shapes.items()}
    model = onnx_model(nodes, {**weights, **biases, "low": np.array(-1.0), "high": np.array(1.0)}, (1, 2, 8, 8))
    whole = {"split": np.array([1, 2, 4, 4, 4]), "merge": np.array([1, 8, 4, 4])}
    model.graph.initializer.extend(numpy_helper.from_array(a, v) for v, a in whole.items())
    return model


def network(model: onnx.ModelProto) -> Network:
    return plan_network(import_model(model), parse_machine("sat:8x4"))


def inputs(net: Network, batch: int) -> tuple[list[dict[str, Array]], list[dict[str, Array]]]:
    graph, rng = net.graph, np.random.default_rng(3)
    images = []
    for _ in range(batch):
        made = {v: rng.standard_normal(graph.types[v].shape) for v in graph.inputs}
        whole = {v: (np.abs(a) > 0.6) if graph.types[v].dtype.numpy.kind in "iu" else a for v, a in made.items()}
        images.append({v: a.astype(graph.types[v].dtype.numpy) for v, a in whole.items()})
    shapes = {p.name: graph.types[p.value].shape for p in graph.outputs}
    return images, [{v: rng.standard_normal(s).astype(np.float32) for v, s in shapes.items()} for _ in range(batch)]


def stepped(net: Network, engine: Engine, batch: int) -> Step:
    layers = trained_layers(net.graph, [c.layer for c in net.choices], batch)
    images, targets = inputs(net, batch)
    return train_step(net, engine, layers, first_states(net, engine, layers), images, targets)


def engine_of(net: Network, batch: int, pruning: tuple[int, int] = (0, 0), level: Level = Level.FOLDS) -> ArrayEngine:
    layers = trained_layers(net.graph, [c.layer for c in net.choices], batch)
    return array_engine(net.machine, layers, pruning, Optimiser(RATE, 0.9), level)


def loss_of(
    graph: Graph, changed: Mapping[tuple[str, int], Array], images: list[dict[str, Array]], targets: list[dict[str, Array]]
) -> float:
    """Of the graph in float64, operator by operator, with other operands at the places `changed`."""
    found = 0.0
    for image, target in zip(images, targets, strict=True):
        wide = {v: a.astype(np.float64) if a.dtype == np.float32 else a for v, a in {**graph.constants, **image}.items()}
        for node in graph.nodes:
            operands = [changed.get((node.name, i), wide[v]) if v != ABSENT else None for i, v in enumerate(node.inputs)]
            wide.update(zip(node.outputs, node.op.evaluate(operands), strict=True))
        found += sum(0.5 * float(np.square(wide[p.value] - target[p.name]).sum()) for p in graph.outputs)
    return found / len(images)


MODELS = {"tiny_cnn": 2, "convolutions": 3, "residuals": 3, "tiny_transformer": 2}


def built(name: str) -> onnx.ModelProto:
    here = {"convolutions": convolutions, "residuals": residuals}
    return here[name]() if name in here else models.build(name)


VECTORS = {"tiny_cnn": 6, "convolutions": 0, "residuals": 5, "tiny_transformer": 21}  # of biases and scales


@pytest.mark.parametrize("name", MODELS)
def test_a_dense_step_follows_the_gradient_of_the_loss(name: str) -> None:
    """Along random directions of every layer's weights, and of every bias and scale."""
    net, batch = network(built(name)), MODELS[name]
    graph, (images, targets) = net.graph, inputs(net, batch)
    step = stepped(net, engine_of(net, batch), batch)
    assert step.loss == pytest.approx(loss_of(graph, {}, images, targets), rel=1e-4)
    trained = [c.layer for c in net.choices if c.layer.constant]
    assert [layer.node.name for layer in trained] == list(reversed(step.states.layers))
    assert len(step.states.vectors) == VECTORS[name]
    moved: dict[tuple[str, int], tuple[Array, Array]] = {}  # place -> value before and momentum
    for layer in trained:
        state, before = step.states.layers[layer.node.name], graph.constants[layer.weights]
        np.testing.assert_allclose(state.w, layer.arrangement.matrices(before) - np.float32(RATE) * state.momentum, rtol=1e-6)
        moved[layer.node.name, 1] = before, layer.arrangement.value(state.momentum, before.shape)
    operands = {(node.name, i): v for node in graph.nodes for i, v in enumerate(node.inputs)}
    for place, vector in step.states.vectors.items():
        before = graph.constants[operands[place]]
        np.testing.assert_allclose(vector.value, before - np.float32(RATE) * vector.momentum, rtol=1e-5, atol=1e-7)
        moved[place] = before, vector.momentum
    largest = max(float(np.abs(momentum).max()) for _, momentum in moved.values())
    for place, (before, momentum) in moved.items():
        along = RNG.standard_normal(before.shape)
        losses = [loss_of(graph, {place: before.astype(np.float64) + h * along}, images, targets) for h in (1e-7, -1e-7)]
        scale = max(float(np.linalg.norm(momentum)), 1e-3 * largest) * float(np.linalg.norm(along))
        slope = float((momentum.astype(np.float64) * along).sum())
        assert slope == pytest.approx((losses[0] - losses[1]) / 2e-7, rel=1e-3, abs=1e-4 * scale), place


@pytest.mark.parametrize("pruning", [(2, 8), (1, 4)], ids=["2:8", "1:4"])
@pytest.mark.parametrize("name", MODELS)
def test_the_array_computes_what_numpy_does_in_the_cycles_of_the_schedule(name: str, pruning: tuple[int, int]) -> None:
    net, batch = network(built(name)), MODELS[name]
    engine = engine_of(net, batch, pruning)
    done, plain = stepped(net, engine, batch), stepped(net, NumpyEngine(pruning, Optimiser(RATE, 0.9)), batch)
    assert done.loss == pytest.approx(plain.loss, rel=1e-5)
    for layer, expected in plain.states.layers.items():
        found = done.states.layers[layer]
        for a, b in ((found.w, expected.w), (found.momentum, expected.momentum)):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * float(np.abs(b).max()))
    for place, vector in plain.states.vectors.items():
        np.testing.assert_allclose(done.states.vectors[place].value, vector.value, rtol=1e-4, atol=1e-5)
    layers = trained_layers(net.graph, [c.layer for c in net.choices], batch)
    schedule = training_schedule(net.machine, layers, *pruning)
    assert engine.cycles == {s: sum(t.cycles for t in schedule.stages if t.name == s) for s in ("FF", "WU", "BP")}


def test_layers_that_nothing_trained_is_before_have_no_backward_pass() -> None:
    """Queries, keys and values of the first block, here, as embeddings are not trained."""
    net = network(models.build("tiny_transformer"))
    first = [t.name for t in trained_layers(net.graph, [c.layer for c in net.choices], 1) if t.first]
    assert [name.split("/")[-2] for name in first] == ["query", "key", "value"] and all("layer.0" in name for name in first)


@pytest.mark.parametrize("name", ["tiny_cnn", "residuals", "tiny_transformer"])
def test_steps_with_pruned_weights_lower_the_loss(name: str) -> None:
    net, batch = network(built(name)), MODELS[name]
    layers, (images, targets) = trained_layers(net.graph, [c.layer for c in net.choices], batch), inputs(net, batch)
    engine = NumpyEngine((2, 8), Optimiser(0.002, 0.9))
    states, losses = first_states(net, engine, layers), []
    for _ in range(8):
        step = train_step(net, engine, layers, states, images, targets)
        states = step.states
        losses.append(step.loss)
    assert losses[-1] < 0.8 * losses[0], losses


def test_by_pes_as_by_folds() -> None:
    net = network(built("convolutions"))
    by_pes, by_folds = engine_of(net, 1, (2, 4), Level.PES), engine_of(net, 1, (2, 4))
    a, b = stepped(net, by_pes, 1), stepped(net, by_folds, 1)
    assert by_pes.cycles == by_folds.cycles and by_pes.units == by_folds.units > 0
    for name, state in a.states.layers.items():
        np.testing.assert_allclose(state.w, b.states.layers[name].w, rtol=1e-5, atol=1e-6)


def kept(w: Array, keep: int, group: int) -> Array:
    """Group by group: all but the largest magnitudes are 0."""
    out = w.copy()
    for row in out:
        for first in range(0, len(row), group):
            part = row[first : first + group]
            part[np.argsort(-np.abs(part), kind="stable")[keep:]] = 0
    return out


def test_bidirectional_pruning_is_that_of_numpy() -> None:
    """Two steps of a chain: forwards with masks along inputs, backwards along outputs, dense gradients, masks made anew."""
    sizes, batch, (keep, group), (rate, decay) = (12, 24, 16, 20, 5), 7, (2, 8), (RATE, 0.9)
    weights = [RNG.standard_normal((m, k)).astype(np.float32) / k**0.5 for k, m in pairwise(sizes)]
    names = ["x", "h1", "h2", "h3", "y"]
    nodes = []
    for i in range(4):
        out = names[i + 1] if i == 3 else f"s{i}"
        nodes.append(helper.make_node("Gemm", [names[i], f"w{i}"], [out], name=f"fc{i}", transB=1))
        nodes += [helper.make_node("Relu", [out], [names[i + 1]], name=f"relu{i}")] if i < 3 else []
    net = network(onnx_model(nodes, {f"w{i}": w for i, w in enumerate(weights)}, (1, sizes[0])))
    engine, layers = engine_of(net, batch, (keep, group)), trained_layers(net.graph, [c.layer for c in net.choices], batch)
    images, targets = inputs(net, batch)
    x, t = np.concatenate([i["x"] for i in images]).T, np.concatenate([i["y"] for i in targets]).T
    states, momenta = first_states(net, engine, layers), [np.zeros_like(w) for w in weights]
    for _ in range(2):
        step = train_step(net, engine, layers, states, images, targets)
        inner = [w if i in (0, 3) else kept(w, keep, group) for i, w in enumerate(weights)]
        turned = [w.T if i in (0, 3) else kept(np.ascontiguousarray(w.T), keep, group) for i, w in enumerate(weights)]
        values = [x]
        for i, w in enumerate(inner):
            values.append(np.maximum(w @ values[-1], 0) if i < 3 else w @ values[-1])
        error = (values[-1] - t) / batch
        assert step.loss == pytest.approx(0.5 * float(np.square(values[-1] - t).sum()) / batch, rel=1e-5)
        for i in (3, 2, 1, 0):
            momenta[i] = decay * momenta[i] + error @ values[i].T
            weights[i] = weights[i] - rate * momenta[i]
            np.testing.assert_allclose(step.states.layers[f"fc{i}"].momentum[0], momenta[i], rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(step.states.layers[f"fc{i}"].w[0], weights[i], rtol=1e-4, atol=1e-5)
            error = (turned[i] @ error) * (values[i] > 0)
        states = step.states
    new = states.layers["fc1"]
    assert np.count_nonzero(new.forwards) <= new.w.size * keep / group and np.count_nonzero(new.w) == new.w.size
    again = layer_state(engine, new.w, new.momentum, pruned=True)
    np.testing.assert_array_equal(again.backwards, new.backwards)


def test_what_is_not_trained_is_said() -> None:
    w = RNG.standard_normal((4, 4))
    shared = [helper.make_node("Gemm", ["x", "w"], ["h"], name="a"), helper.make_node("Gemm", ["h", "w"], ["y"], name="b")]
    net = network(onnx_model(shared, {"w": w}, (1, 4)))
    with pytest.raises(UsageError, match="weights 'w' are those of several layers"):
        stepped(net, engine_of(net, 1), 1)
    for op, message in (
        ("Floor", "node 'f' computes floor|'a' computes floor"),
        ("ReduceProd", "'f' is a Reduce, which has no gradient"),
    ):
        nodes = [helper.make_node("Gemm", ["x", "w"], ["h"], name="a"), helper.make_node(op, ["h"], ["y"], name="f")]
        net = network(onnx_model(nodes, {"w": w}, (1, 4)))
        with pytest.raises(UsageError, match=message):
            stepped(net, engine_of(net, 1), 1)
    model = models.build("tiny_cnn")
    data = {name: np.concatenate([a] * 4) for name, a in models.inputs(model).items()}
    net = network(quantise(model, data).proto)
    with pytest.raises(UsageError, match="multiplies int8: float32 networks are trained"):
        first_states(net, engine_of(net, 1), trained_layers(net.graph, [c.layer for c in net.choices], 1))


def test_a_wrong_sum_is_a_difference() -> None:
    """The comparison with numpy can fail: an engine that drops an element of every gradient is seen."""

    class Wrong(ArrayEngine):
        def product(self, layer: str, stage: str, w: Array, x: Array) -> Array:
            y = super().product(layer, stage, w, x)
            return np.where(np.arange(y.size).reshape(y.shape) == 0, 0, y) if stage == "WU" else y

    net = network(built("convolutions"))
    good = engine_of(net, 1)
    bad = Wrong(good.machine, good.pruning, good.optimiser, good.mappings)
    a, b = stepped(net, good, 1), stepped(net, bad, 1)
    assert all(not np.allclose(state.momentum, b.states.layers[n].momentum) for n, state in a.states.layers.items())
