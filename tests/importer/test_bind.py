"""Binding dynamic dimensions."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from sparsec.compiler.errors import ModelError, UsageError
from sparsec.compiler.importer.api import import_model
from tests.reference import make_model


def model(**shapes: Any) -> onnx.ModelProto:
    """y = relu(first input); other inputs are not used."""
    inputs = {name: (onnx.TensorProto.FLOAT, dims) for name, dims in shapes.items()}
    made = make_model(
        [helper.make_node("Relu", [next(iter(shapes))], ["y"])], {n: s for n, s in inputs.items() if s[1] is not None}, ["y"]
    )
    for i, (name, dims) in enumerate(shapes.items()):
        if dims is None:
            made.graph.input.insert(i, helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    return made


def shapes(m: onnx.ModelProto, **bind: Any) -> list[tuple[int, ...]]:
    graph = import_model(m, **bind)
    return [graph.types[i].shape for i in graph.inputs]


def test_by_symbol_and_by_input() -> None:
    m = model(x=["batch", 3, "size"], z=["batch", "size * 2", 4])
    assert shapes(m, dims={"batch": 2, "size": 5, "size * 2": 10}) == [(2, 3, 5), (2, 10, 4)]
    assert shapes(m, input_shapes={"x": (2, 3, 5), "z": [2, 10, 4]}) == [(2, 3, 5), (2, 10, 4)]
    assert shapes(m, dims={"size * 2": 7}, input_shapes={"x": (2, 3, 5)}) == [(2, 3, 5), (2, 7, 4)]


def test_anonymous_dimensions_and_unknown_ranks_need_a_shape() -> None:
    assert shapes(model(x=[None, 3]), input_shapes={"x": (4, 3)}) == [(4, 3)]
    assert shapes(model(x=None), input_shapes={"x": (4, 3)}) == [(4, 3)]
    assert shapes(model(x=[-1, 3]), input_shapes={"x": (4, 3)}) == [(4, 3)]
    for m, message in (
        (model(x=[None, 3]), r"dimension 0 of input 'x' is dynamic \(\?\): bind it with --input x="),
        (model(x=["n", 3]), r"dimension 0 of input 'x' is dynamic \(n\): bind it with --dim n=N or --input x="),
        (model(x=["a\x1b\n"]), r"is dynamic \('a\\x1b\\n'\): bind it with --dim 'a\\x1b\\n'=N"),
        (model(x=None), "input 'x' has no type or no rank: give its shape with --input x="),
    ):
        with pytest.raises(ModelError, match=message):
            import_model(m)


@pytest.mark.parametrize(
    "bind, message",
    [
        ({"dims": {"bacth": 1}}, r"no input has a dimension called 'bacth' \(there are: 'batch', 'n'\)"),
        ({"dims": {"batch": 0}}, "--dim batch gives the extent 0: expected a whole number from 1"),
        ({"dims": {"batch": -3}}, "gives the extent -3"),
        ({"dims": {"batch": 1.5}}, "gives the extent 1.5"),
        ({"dims": {"batch": 1 << 40}}, "gives the extent"),
        ({"input_shapes": {"q": (1,)}}, r"no input called 'q' \(there are: 'x', 'z'\)"),
        ({"input_shapes": {"w": (1,)}}, "no input called 'w'"),
        ({"input_shapes": {"x": (1,)}}, "input 'x' has rank 2, --input gives 1 extents"),
        ({"input_shapes": {"x": (1, 4)}}, "dimension 1 of input 'x' is 3 in the model, --input asks for 4"),
        ({"dims": {"batch": 2}, "input_shapes": {"x": (1, 3)}}, "'batch' is bound to 2 by --dim batch and to 1 by --input x"),
        ({"input_shapes": {"x": (1, 3), "z": (2, 2)}}, "'batch' is bound to 1 by --input x and to 2 by --input z"),
    ],
)
def test_mistakes(bind: Any, message: str) -> None:
    m = model(x=["batch", 3], z=["batch", "n"])
    m.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(3, np.float32), "w"))
    m.graph.input.append(helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [3]))
    with pytest.raises(UsageError, match=message):
        import_model(m, **bind)
