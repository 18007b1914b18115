"""Operators as they were in old opsets, against onnxruntime, which still runs them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import models
from sparsec.compiler.errors import UnsupportedError
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.importer.check import MIN_OPSET, max_opset
from sparsec.compiler.interpreter import interpret
from tests.reference import assert_close, check_node, make_model, run_ort

Array = np.ndarray[Any, Any]


def data(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("op_type", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("axis", [None, 0, 1, 2, -1])
def test_softmax_saw_a_matrix_before_13(op_type: str, axis: int | None) -> None:
    attributes = {} if axis is None else {"axis": axis}
    check_node(op_type, {"x": data(2, 3, 4)}, opset=12, **attributes)
    check_node(op_type, {"x": data(2, 3, 4)}, opset=13, **attributes)
    check_node(op_type, {"x": data(2, 3, 1, 1)}, opset=7, **attributes)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("scales", [(1, 1, 2, 2), (1, 1, 1.6, 2.5), (1, 1, 3, 1)])
def test_upsample_and_the_first_resize(mode: str, scales: tuple[float, ...]) -> None:
    x, given = {"x": data(1, 2, 4, 5)}, {"s": np.array(scales, np.float32)}
    check_node("Upsample", x, opset=8, mode=mode, scales=[float(s) for s in scales])
    check_node("Upsample", x, given, opset=9, mode=mode)
    check_node("Resize", x, given, opset=10, mode=mode)


def test_attributes_that_became_inputs() -> None:
    x = {"x": data(1, 2, 1, 3)}
    check_node("Squeeze", x, opset=12, axes=[0, 2])
    check_node("Squeeze", x, opset=12)
    check_node("Unsqueeze", x, opset=12, axes=[0, 5])
    check_node("Clip", x, opset=7, min=-0.5, max=0.25)
    check_node("Clip", x, opset=10, max=0.25)
    check_node("Clip", x, opset=7)
    check_node("Pad", x, opset=10, pads=[0, 1, 2, 0, 0, 0, 1, 1], value=2.5)
    check_node("Pad", x, opset=7, pads=[0, 0, 0, 2, 0, 0, 0, 1], mode="edge")
    check_node("Dropout", x, opset=10, ratio=0.3)
    check_node("Split", x, opset=7, outputs=2, axis=1)
    for op_type in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceL2"):
        check_node(op_type, x, opset=12, axes=[1, 3], keepdims=0)
        check_node(op_type, x, opset=12)
    check_node("ReduceMean", x, opset=17, axes=[-1])


def test_group_normalization_18_scales_groups() -> None:
    weights = {"s": data(2), "b": data(2, seed=1)}
    node = helper.make_node("GroupNormalization", ["x", "s", "b"], ["y"], name="node", num_groups=2)
    x = data(1, 6, 4)
    model = make_model([node], {"x": x}, ["y"], weights, opset=18)
    grouped = x.reshape(1, 2, 12)
    normal = (grouped - grouped.mean(-1, keepdims=True)) / np.sqrt(grouped.var(-1, keepdims=True) + 1e-5)
    expected = (normal * weights["s"][:, None] + weights["b"][:, None]).reshape(1, 6, 4)
    np.testing.assert_allclose(interpret(import_model(model), {"x": x})["y"], expected, rtol=1e-4, atol=1e-5)


def test_forms_that_are_refused() -> None:
    weights = {n: np.ones(3, np.float32) for n in "smbv"}
    node = helper.make_node("BatchNormalization", ["x", *"smbv"], ["y"], name="node", spatial=0)
    with pytest.raises(UnsupportedError, match="spatial=0"):
        import_model(make_model([node], {"x": data(1, 3, 2, 2)}, ["y"], weights, opset=7))


@pytest.mark.parametrize("name", ["tiny_cnn", "tiny_nhwc", "tiny_transformer"])
def test_models_at_every_opset_that_the_converter_reaches(name: str) -> None:
    """The same network in every opset from 7 on gives the same numbers, whatever form its operators then have."""
    model = models.build(name)
    feeds = models.inputs(model)
    reference = run_ort(model, feeds)
    reached = []
    for opset in range(MIN_OPSET, max_opset() + 1):
        try:
            converted = onnx.version_converter.convert_version(model, opset)
        except (RuntimeError, onnx.version_converter.ConvertError):
            continue  # the converter has no adapter for an operator of this model
        reached.append(opset)
        graph = import_model(converted)
        assert_close(interpret(graph, feeds), reference, 1e-4)
    assert set(range(model.opset_import[0].version, max_opset() + 1)) <= set(reached)
