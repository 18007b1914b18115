"""The default pipeline on whole networks: the same values, and the operators that remain."""

import os
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings

import models
from sparsec.compiler.graph import Graph
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.interpreter import interpret
from sparsec.compiler.passing.runner import run_pipeline
from sparsec.compiler.text.printer import print_graph
from sparsec.passes.pipelines import DEFAULT
from tests.passes.helpers import assert_same_values
from tests.passes.networks import networks


def optimise(graph: Graph) -> Graph:
    return run_pipeline(graph, DEFAULT)


@settings(max_examples=int(os.environ.get("SPARSEC_NETWORKS", "60")))
@given(networks())
def test_random_networks_keep_their_values(graph: Graph) -> None:
    assert_same_values(graph, optimise(graph), tolerance=1e-4)


def test_same_text_every_time() -> None:
    model = models.build("tiny_cnn", seed=0)
    assert print_graph(optimise(import_model(model))) == print_graph(optimise(import_model(model)))


@pytest.mark.parametrize("name", ["tiny_cnn", "tiny_nhwc", "tiny_transformer"])
def test_small_models(name: str, golden: Callable[[str, str], None]) -> None:
    model = models.build(name, seed=0)
    before = import_model(model)
    after = optimise(before)
    feeds = models.inputs(model, seed=0)
    expected, found = interpret(before, feeds), interpret(after, feeds)
    for output, array in expected.items():
        assert abs(found[output] - array).max() <= 1e-5 * abs(array).max()
    text = "\n".join(f"{n.op.name} {', '.join(map(str, after.out_types(n)))} <- {', '.join(n.origin)}" for n in after.nodes)
    golden(f"passes/{name}.txt", text + "\n")


LEFT = {
    "resnet50": {"Conv": 53, "Pool": 1, "Reduce": 1, "Reshape": 1, "MatMul": 1, "Softmax": 1},
    "mobilenet_v2": {"Conv": 52, "Reduce": 1, "Reshape": 1, "MatMul": 1},
    "densenet121": {"Conv": 121, "Pool": 4, "Concat": 58, "Map": 62, "Reduce": 1},
    "bert_base": {"Gather": 2, "Reshape": 2, "Map": 2, "LayerNorm": 5, "MatMul": 13, "Attention": 2, "Slice": 1},
}


@pytest.mark.parametrize("name", list(LEFT))
def test_operators_left(name: str) -> None:
    """What no pass takes shows up here first."""
    options = {"layers": 2} if name == "bert_base" else {}
    before = import_model(models.build(name, seed=0, **options))
    after = optimise(before)
    assert Counter(n.op.name for n in after.nodes) == LEFT[name]
    assert {o for n in before.nodes for o in n.origin} >= {o for n in after.nodes for o in n.origin}
