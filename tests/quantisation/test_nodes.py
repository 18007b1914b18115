"""Editing the nodes of a model."""

import numpy as np
import onnx
import pytest

from sparsec.compiler.exporter.nodes import NodeEditor
from sparsec.passes.quantisation.fold_batchnorm import fold_batchnorm
from tests.quantisation.networks import N, model_of, residual, samples, weights
from tests.reference import run_ort


def test_an_untouched_model_computes_the_same_and_is_not_changed() -> None:
    model, x = residual(), samples((2, 3, 8, 8), 1)[0]
    given = model.SerializeToString()
    made = NodeEditor(model).finish()
    onnx.checker.check_model(made, full_check=True)
    np.testing.assert_array_equal(run_ort(made, {"x": x})["out"], run_ort(model, {"x": x})["out"])
    assert model.SerializeToString() == given


def test_nodes_are_sorted_and_what_nothing_reads_is_dropped() -> None:
    model = model_of([N("Relu", ["x"], ["a"]), N("Neg", ["x"], ["unread"]), N("Abs", ["a"], ["out"])], [2], ["out"], {})
    editor = NodeEditor(model)
    late = editor.add("Exp", ["a", editor.constant(np.float32(1), "x")][:1], editor.fresh("a"))
    assert late.output[0] == "a_1" and "x_1" in editor.tensors
    editor.producers["out"].input[0] = "a_1"
    made = editor.finish()
    assert [n.op_type for n in made.graph.node] == ["Relu", "Exp", "Abs"] and not made.graph.initializer
    assert [n.op_type for n in editor.finish(["unread"]).graph.node].count("Neg") == 1


def test_constants_in_nodes_become_initializers() -> None:
    value = onnx.numpy_helper.from_array(np.array([2.0], np.float32))
    nodes = [N("Constant", [], ["c"], value=value), N("Mul", ["x", "c"], ["out"])]
    made = NodeEditor(model_of(nodes, [2], ["out"], {})).finish()
    assert [t.name for t in made.graph.initializer] == ["c"] and len(made.graph.node) == 1
    np.testing.assert_array_equal(run_ort(made, {"x": np.ones(2, np.float32)})["out"], [2, 2])


@pytest.mark.parametrize("bias", [True, False])
def test_normalisation_is_folded(bias: bool) -> None:
    w = weights(w=(4, 3, 3, 3), b=(4,), s=(4,), t=(4,), m=(4,))
    w["v"] = np.abs(w["m"]) + np.float32(0.1)
    w["w"][:, 1] = 0
    nodes = [
        N("Conv", ["x", "w", *(["b"] if bias else [])], ["y"]),
        N("BatchNormalization", ["y", "s", "t", "m", "v"], ["out"], epsilon=0.01),
    ]
    model, x = model_of(nodes, [2, 3, 6, 6], ["out"], w), samples((2, 3, 6, 6), 1)[0]
    editor = NodeEditor(model)
    assert fold_batchnorm(editor) == 1
    made = editor.finish()
    assert [n.op_type for n in made.graph.node] == ["Conv"]
    assert not onnx.numpy_helper.to_array(made.graph.initializer[0])[:, 1].any()
    np.testing.assert_allclose(run_ort(made, {"x": x})["out"], run_ort(model, {"x": x})["out"], atol=1e-5)


def test_normalisation_stays_where_others_read_the_convolution() -> None:
    w = {**weights(w=(4, 3, 1, 1), s=(4,), t=(4,), m=(4,)), "v": np.ones(4, np.float32)}
    nodes = [
        N("Conv", ["x", "w"], ["y"]),
        N("BatchNormalization", ["y", "s", "t", "m", "v"], ["z"]),
        N("Add", ["y", "z"], ["out"]),
    ]
    assert fold_batchnorm(NodeEditor(model_of(nodes, [2, 3, 6, 6], ["out"], w))) == 0
