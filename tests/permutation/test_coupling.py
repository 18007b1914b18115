"""The classes that a person who knows the architecture would name, and why others are fixed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import models
from sparsec.compiler.graph import Graph
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.ops.lrn import LRN
from sparsec.compiler.ops.reshape import Reshape
from sparsec.compiler.sparsity.weights import layer_weights
from sparsec.passes.permutation.coupling import ChannelClass, Coupling, couple
from sparsec.passes.permutation.coupling_model import couple_model
from sparsec.passes.pruning.model import editor_of
from tests.permutation.networks import Network


def shapes(coupling: Coupling) -> list[tuple[int, ...]]:
    return sorted(c.shape for c in coupling.free)


def one(graph: Graph) -> ChannelClass:
    (found,) = couple(graph).free
    return found


def test_a_residual_stage_is_one_class() -> None:
    b = Network((1, 3, 4, 4))
    v = b.conv("x", 6)
    for width in (4, 5):
        v = b.map("add(a0,a1);relu(t0)", v, b.conv(b.norm(b.biased(b.conv(v, width))), 6))
    coupling = couple(b.finish(v))
    assert shapes(coupling) == [(4,), (5,), (6,)]
    stage = next(c for c in coupling.free if c.extent == 6)
    assert Counter(p.role for p in stage.places) == {"outputs": 3, "inputs": 3}
    assert len(stage.producers) == 3


def test_concatenated_parts_keep_orders_of_their_own() -> None:
    b = Network((1, 3, 4, 4))
    first = b.conv("x", 4)
    joint = b.add_concat(first, b.conv(first, 3), first)
    coupling = couple(b.finish(b.conv(joint, 5)))
    assert shapes(coupling) == [(3,), (4,), (5,)]
    twice = next(c for c in coupling.free if c.extent == 4)
    reader = max(twice.places, key=lambda p: p.layer.channels).layer
    assert [p.slot.index[0, :, 0].tolist() for p in twice.places if p.layer is reader] == [[0, 1, 2, 3], [7, 8, 9, 10]]


def test_a_sum_with_a_concatenation_splits_the_other_operand() -> None:
    b = Network((1, 3, 4, 4))
    whole = b.conv("x", 7)
    graph = b.finish(b.map("add(a0,a1)", whole, b.add_concat(b.conv(whole, 3), b.conv(whole, 4))))
    assert shapes(couple(graph)) == [(3,), (4,)]


def test_flattened_channels_own_their_positions() -> None:
    b = Network((1, 3, 3, 2))
    found = one(b.finish(b.conv("x", 4)))
    (place,) = [p for p in found.places if p.role == "inputs"]
    assert place.slot.index.tolist() == [[[6 * c + i for i in range(6)] for c in range(4)]]
    assert found.weights == 4 * 27 + 5 * 24


def test_tokens_behind_one_another_share_the_order_of_their_channels() -> None:
    b = Network((1, 3, 3, 2))
    v = b.folded(b.tokens(b.conv("x", 5)), 2)
    coupling = couple(b.finish(b.linear(v, 4)))
    assert shapes(coupling) == [(4,), (5,)]
    (place,) = [p for c in coupling.free if c.extent == 5 for p in c.places if p.role == "inputs"]
    assert place.slot.index.tolist() == [[[c, 5 + c] for c in range(5)]]


def test_grouped_channels_have_an_order_a_group_and_groups_move_as_wholes() -> None:
    b = Network((1, 3, 4, 4))
    coupling = couple(b.finish(b.conv(b.conv("x", 6), 8, groups=2)))
    assert shapes(coupling) == [(2,), (2, 3), (2, 4)]
    inputs = next(c for c in coupling.free if c.shape == (2, 3))
    place = next(p for p in inputs.places if p.role == "inputs")
    assert place.slot.index[:, :, 0].tolist() == [[0, 1, 2]] * 2  # input channels of a group's filters ...
    assert place.slot.outer_axis == 0
    assert place.slot.outer is not None and place.slot.outer.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]  # ... which are these
    outputs = next(p for p in inputs.places if p.role == "outputs")
    assert outputs.slot.outer is None and outputs.slot.index[:, :, 0].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_depthwise_channels_follow_their_input() -> None:
    b = Network((1, 3, 4, 4))
    found = one(b.finish(b.norm(b.conv(b.conv("x", 6), 6, groups=6))))
    assert found.extent == 6 and Counter(p.role for p in found.places) == {"outputs": 2, "inputs": 1}


def test_a_channel_shuffle_is_followed() -> None:
    b = Network((1, 3, 4, 4))
    v = b.shuffle(b.add_concat(b.conv("x", 4), b.conv("x", 4)), 2)
    assert shapes(couple(b.finish(b.conv(v, 3)))) == [(2, 4), (3,)]  # both branches have an order, though one atom


def test_shared_weights_tie_their_inputs_and_outputs() -> None:
    b = Network((1, 3, 4, 4))
    w = b.weights(6, 6, 3, 3)
    found = one(b.finish(b.conv(b.biased(b.conv(b.conv("x", 6), 6, weights=w)), 6, weights=w)))
    assert Counter(p.role for p in found.places) == {"outputs": 2, "inputs": 2}


@pytest.mark.parametrize(("packed", "rotary"), [(False, False), (True, False), (False, True)])
def test_attention(packed: bool, rotary: bool) -> None:
    b = Network((1, 3, 3, 2))
    v = b.attention(b.tokens(b.conv("x", 5)), 3, 4, packed=packed, rotary=rotary)
    # turned halves of queries and keys share one order, and all heads do: the angles know no head
    assert shapes(couple(b.finish(v))) == sorted([(2,) if rotary else (3, 4), (3, 4), (3,), (5,)])


def test_why_channels_are_fixed() -> None:
    b = Network((1, 3, 4, 4))
    v = b.add(LRN(3, 1e-2, 0.75, 1.0), b.conv("x", 4))
    fixed = {c.name: c.fixed for c in couple(b.finish(v)).classes}
    assert fixed["inputs of Conv"] == "graph input 'x' has it"
    assert fixed["Conv"] == "LRN node 'LRN' tells its indices apart"
    assert fixed["MatMul"] == "graph output 'y' has it"
    assert fixed["inputs of MatMul"] == "LRN node 'LRN' tells its indices apart"
    assert fixed["inputs of MatMul#2"] == "Conv node 'Conv' slides a window over it"


def test_constants_that_cannot_be_rewritten_fix_their_classes() -> None:
    b = Network((1, 3, 4, 4))
    v = b.conv("x", 4)
    v = b.map("mul(a0,a1)", v, b.editor.add_constant(np.full((4, 1, 1), 0.5, np.float32), "half"))
    graph = b.finish(b.biased(v))
    bias = next(name for name, a in graph.constants.items() if a.shape == (4, 1, 1) and np.ptp(a) > 0)
    assert "cannot be rewritten: no" in couple(graph, lambda v: "no" if v == bias else "").classes[0].fixed
    assert couple(graph, lambda v: "no" if v == "half" else "").free  # equal entries: nothing to rewrite


def test_a_reshape_that_mixes_dimensions_fixes_them() -> None:
    b = Network((1, 3, 4, 4))
    v = b.shuffle(b.conv("x", 6), 2)  # [3, 2] regrouped as [2, 3]
    fixed = [c.fixed for c in couple(b.finish(b.conv(v, 6, groups=2))).classes]
    assert "a reshape mixes it with another dimension" in fixed


def test_a_reshape_whose_boundaries_do_not_divide_each_other_is_named() -> None:
    b = Network((1, 3, 3, 2))
    v = b.tokens(b.conv("x", 5))  # 6 tokens of 5 channels as 5 of 6
    fixed = [c.fixed for c in couple(b.finish(b.linear(b.add(Reshape((1, 5, 6)), v), 4))).classes]
    assert "Reshape node 'Reshape.2' tells its indices apart" in fixed


# model and options -> the shapes of its free classes with their numbers
EXPECTED: dict[str, tuple[dict[str, int], dict[tuple[int, ...], int]]] = {
    "resnet50": (
        {},
        # the stem, a residual stream a stage, and two inner widths a block
        {(64,): 1 + 6, (128,): 8, (256,): 1 + 12, (512,): 1 + 6, (1024,): 1, (2048,): 1},
    ),
    "mobilenet_v2": (
        {},
        {
            (32,): 1 + 1,
            (16,): 1,
            (24,): 1,
            (64,): 1,
            (96,): 1 + 1,
            (160,): 1,
            (320,): 1,
            (144,): 2,
            (192,): 3,
            (384,): 4,
            (576,): 3,
            (960,): 3,
            (1280,): 1,
        },
    ),
    # the embedding is fixed: last_hidden_state leaves
    "bert_base": ({"layers": 2, "seq_len": 8}, {(12, 64): 4, (12,): 2, (3072,): 2}),
    "vit_b16": ({"layers": 2}, {(12, 64): 4, (12,): 2, (3072,): 2, (768,): 1}),
    "densenet121": ({}, {(64,): 1, (128,): 58 + 1, (32,): 58, (256,): 1, (512,): 1}),
}


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_classes_of_known_architectures(name: str) -> None:
    options, expected = EXPECTED[name]
    graph = import_model(models.build(name, **options))
    coupling = couple(graph)
    assert Counter(c.shape for c in coupling.free) == expected
    assert len({c.name for c in coupling.classes}) == len(coupling.classes)
    placed = {(p.layer.value, p.role) for c in coupling.classes for p in c.places}
    for layer in layer_weights(graph):
        assert (layer.value, "outputs") in placed, layer.value  # free or fixed with a reason: nothing is left out
        assert layer.channels == 1 or (layer.value, "inputs") in placed


def _model(extra: list[onnx.NodeProto], outputs: tuple[str, ...] = ("y",)) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    weights = {"w": (6, 3, 1, 1), "b": (6,), "v": (4, 6, 1, 1)}
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["h"], "first"),
        helper.make_node("Identity", ["v"], ["same"], "alias"),
        helper.make_node("Conv", ["h", "same"], ["y"], "second"),
        *extra,
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 2, 2))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), n) for n, s in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _hidden(model: onnx.ModelProto) -> ChannelClass:
    graph = import_model(model, as_stored=True)
    return next(c for c in couple_model(graph, editor_of(model)).classes if c.name.startswith("first"))


def test_constants_are_known_as_the_model_stores_them() -> None:
    model = _model([])
    assert "b" not in import_model(model).constants  # reshaped by the import
    graph = import_model(model, as_stored=True)
    assert {"w", "b", "v"} <= set(graph.constants)
    found = _hidden(model)
    assert not found.fixed and {s.value for s in found.slots} == {"w", "b", "v"}


def test_a_constant_that_the_model_computes_is_fixed_unless_its_entries_are_equal() -> None:
    for op, attributes, why in (("EyeLike", {"k": 1}, "the model does not store it"), ("ConstantOfShape", {}, "")):
        model = _model([])
        del model.graph.initializer[1]
        ones = numpy_helper.from_array(np.ones((1, 6), np.float32), "ones")
        model.graph.initializer.extend([ones, numpy_helper.from_array(np.array([6]), "shape")])
        source = ["ones" if op == "EyeLike" else "shape"]
        model.graph.node.insert(0, helper.make_node("Reshape", ["drawn", "shape"], ["b"], "flat"))
        model.graph.node.insert(0, helper.make_node(op, source, ["drawn"], "made", **attributes))
        assert why in _hidden(model).fixed and bool(why) == bool(_hidden(model).fixed)


def test_reading_that_the_graph_does_not_show_fixes_a_constant() -> None:
    norm = helper.make_node("ReduceSum", ["b"], ["z"], "sum", keepdims=0)
    assert not _hidden(_model([norm], ("y", "z"))).fixed  # shown: a sum has no order
    assert "graph output 'z'" in _hidden(_model([helper.make_node("Relu", ["b"], ["z"], "leaves")], ("y", "z"))).fixed
    assert not _hidden(_model([helper.make_node("Relu", ["b"], ["z"], "dead")])).fixed
