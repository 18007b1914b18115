"""Networks on an array: the same outputs as the interpreter's, cycles as the closed forms say, and the best dataflow a layer."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import models
from sparsec.backends.systolic import SEVEN, Dataflow, Level, parse_machine
from sparsec.backends.systolic.dataflow import SAT
from sparsec.backends.systolic.network import Network, NetworkRun, simulate_layer
from sparsec.compiler.graph import Graph
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.interpreter import interpret
from sparsec.passes.pruning.prune import prune_graph, with_weights
from sparsec.passes.pruning.recipe import make_recipe
from sparsec.passes.quantisation.model import quantise
from tests.backends.systolic.networks import plan_network, run_network


def pruned(graph: Graph, pattern: str) -> Graph:
    return with_weights(graph, prune_graph(graph, make_recipe({"pattern": pattern, "spare": []})))


def same_outputs(network: Network, graph: Graph, feeds: dict[str, np.ndarray], level: Level = Level.FOLDS) -> NetworkRun:
    found = run_network(network, feeds, level)
    for name, expected in interpret(graph, feeds).items():
        np.testing.assert_allclose(found.outputs[name], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    for choice in network.choices:
        assert found.layers[choice.layer.node.name].total.cycles == choice.cycles
    return found


@pytest.mark.parametrize("pattern", ["", "block:4x1@60%/taps=each", "block:1x4@60%/taps=each", "unstructured@80%"])
@pytest.mark.parametrize("name", ["tiny_cnn", "tiny_transformer"])
def test_outputs_are_those_of_the_interpreter(name: str, pattern: str) -> None:
    model = models.build(name)
    graph = pruned(import_model(model), pattern) if pattern else import_model(model)
    target = "flexisaga:4x4" if "4" in pattern else "flexisaga:16x8"
    same_outputs(plan_network(graph, parse_machine(target)), graph, models.inputs(model))


@pytest.mark.parametrize("dataflow", SEVEN, ids=lambda d: d.value)
def test_every_dataflow_runs_a_network(dataflow: Dataflow) -> None:
    model = models.build("tiny_cnn")
    graph = pruned(import_model(model), "block:4x1@50%/taps=each")
    same_outputs(plan_network(graph, parse_machine("flexisaga:4x5"), (dataflow,)), graph, models.inputs(model))


def test_a_network_by_pes() -> None:
    model = models.build("tiny_transformer")
    graph = pruned(import_model(model), "block:4x1@50%/taps=each")
    same_outputs(plan_network(graph, parse_machine("flexisaga:8x8")), graph, models.inputs(model), Level.PES)


def test_n_of_m_on_sat() -> None:
    model = models.build("tiny_transformer")
    graph = pruned(import_model(model), "2:8")
    network = plan_network(graph, parse_machine("sat:8x8"))
    assert {(c.mapping.keep, c.mapping.group) for c in network.choices if c.mapping.dataflow.grouped} == {(2, 8)}
    assert network.cycles < plan_network(graph, parse_machine("sat:8x8"), (Dataflow.DOS, Dataflow.DWS)).cycles
    same_outputs(network, graph, models.inputs(model))
    assert set(network.choices[0].table) == set(SAT)


def test_integer_networks_are_exact() -> None:
    model = models.build("tiny_cnn")
    feeds = models.inputs(model)
    data = {name: np.concatenate([a] * 4) for name, a in feeds.items()}
    network = plan_network(import_model(quantise(model, data).proto), parse_machine("flexisaga:8x8"))
    assert sum(g.weights.name == "I8" for c in network.choices for g in c.layer.gemms) > 5
    found = run_network(network, feeds)
    for name, expected in interpret(network.graph, feeds).items():
        np.testing.assert_array_equal(found.outputs[name], expected)


def conv(x: tuple[int, ...], w: tuple[int, ...], **attributes: object) -> onnx.ModelProto:
    rng = np.random.default_rng(3)
    weights = numpy_helper.from_array(rng.standard_normal(w).astype(np.float32), "w")
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv", **attributes)
    data, out = (
        helper.make_tensor_value_info("x", TensorProto.FLOAT, x),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
    )
    return helper.make_model(
        helper.make_graph([node], "g", [data], [out], [weights]), opset_imports=[helper.make_opsetid("", 17)]
    )


CONVOLUTIONS = [
    conv((2, 3, 7, 6), (5, 3, 3, 2), pads=[1, 0, 2, 1], strides=[2, 1]),
    conv((1, 6, 5, 6), (4, 3, 3, 3), group=2, dilations=[2, 1], pads=[2, 2, 2, 2]),
    conv((3, 4, 11), (6, 2, 3), group=2, strides=[2], pads=[1, 0]),
    conv((1, 3, 4, 4), (3, 1, 3, 3), group=3, pads=[3, 3, 3, 3]),
]


@pytest.mark.parametrize("model", CONVOLUTIONS, ids=["ragged", "grouped", "one-dimensional", "depthwise"])
@pytest.mark.parametrize("dataflow", [Dataflow.DOS, Dataflow.DWS, Dataflow.DIS], ids=lambda d: d.value)
def test_im2col_on_the_fly(model: onnx.ModelProto, dataflow: Dataflow) -> None:
    graph = import_model(model)
    feeds = {"x": np.random.default_rng(4).standard_normal(graph.types["x"].shape).astype(np.float32)}
    network = plan_network(graph, parse_machine("flexisaga:3x4"), (dataflow,))
    node = network.choices[0].layer.node.name
    by_pes, by_folds = (same_outputs(network, graph, feeds, level).layers[node].total for level in (Level.PES, Level.FOLDS))
    assert by_pes == by_folds
    assert by_folds.injected_data > 0 or not model.graph.node[0].attribute[0].ints


def test_what_is_left_to_the_host_is_said() -> None:
    graph = import_model(conv((1, 2, 5, 5, 5), (3, 2, 3, 3, 3)))
    network = plan_network(graph, parse_machine("flexisaga:4x4"))
    assert not network.choices and network.host == {"conv": "im2col of 3 spatial dimensions is not done on the fly"}
    feeds = {"x": np.ones((1, 2, 5, 5, 5), np.float32)}
    np.testing.assert_array_equal(run_network(network, feeds).outputs["y"], interpret(graph, feeds)["y"])


def test_groups_are_one_product_where_zeros_between_them_are_left_out() -> None:
    graph = import_model(conv((1, 24, 6, 6), (24, 1, 3, 3), group=24, pads=[1, 1, 1, 1]))
    network = plan_network(graph, parse_machine("flexisaga:8x8"))
    (choice,) = network.choices
    assert choice.joined and [g.w.shape for g in choice.products()] == [(24, 9 * 24)]
    assert 3 * choice.cycles < min(choice.table[d] for d in (Dataflow.DOS, Dataflow.DWS, Dataflow.DIS))
    feeds = {"x": np.random.default_rng(4).standard_normal((1, 24, 6, 6)).astype(np.float32)}
    for flow in SEVEN:
        same_outputs(plan_network(graph, parse_machine("flexisaga:8x8"), (flow,)), graph, feeds)


@pytest.mark.parametrize("pattern", ["block:8x1@75%/taps=each", "block:1x8@75%/taps=each", "unstructured@90%"])
def test_the_best_dataflow_a_layer_is_never_worse_than_the_best_for_all(pattern: str) -> None:
    network = plan_network(pruned(import_model(models.build("tiny_cnn")), pattern), parse_machine("flexisaga:8x8"))
    assert network.cycles <= min(network.cycles_of(d) for d in SEVEN)
    for choice in network.choices:
        counts = simulate_layer(network, choice).total
        assert counts.cycles == choice.cycles == min(choice.table.values())
        assert counts.cycles * network.machine.pes >= counts.macs
