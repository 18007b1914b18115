"""Real exported graphs from the ``onnx`` package's ``light_*.onnx`` files, with their weights put back.

The onnx package ships well-known networks (caffe2 exports, IR 3, opset 9) with most weights replaced by
``ConstantOfShape``. ``load`` drops those nodes and writes seeded weights as initializers that are also graph inputs,
as the full files had them (IR 3 requires it). Everything else, with the exporter's quirks, stays as it is: unused
queue blobs, ``Dropout`` with a mask output, ``Softmax`` with its default axis, data inputs in the middle of the list.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import onnx
from onnx import numpy_helper

from models._weights import Floats, Weights
from models._writer import store

_Uses = dict[str, list[tuple[onnx.NodeProto, int]]]


def load(name: str, *, seed: int, batch: int, gains: Mapping[str, float] | None = None) -> onnx.ModelProto:
    """Load ``light_<name>.onnx`` with seeded weights and its batch dimension set to ``batch``.

    ``gains`` scales the tensors whose names end with the given suffixes (the longest match counts).
    """
    path = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / f"light_{name}.onnx"
    model = onnx.load(path)
    graph = model.graph
    uses: _Uses = defaultdict(list)
    for node in graph.node:
        for index, value in enumerate(node.input):
            uses[value].append((node, index))
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    shapes = {n.input[0]: (n.output[0], stored[n.input[0]]) for n in graph.node if n.op_type == "ConstantOfShape"}

    weights = Weights(seed)
    for tensor in graph.initializer:
        if tensor.name in shapes:
            target, dims = shapes[tensor.name]
            shape = tuple(int(d) for d in dims)
        elif tensor.data_type == onnx.TensorProto.FLOAT and uses[tensor.name]:
            target, shape = tensor.name, tuple(tensor.dims)
        else:
            continue
        gain = _gain(target, gains or {})
        store(tensor, target, _draw(weights, target, shape, uses, gain))
    for value in graph.input:
        if value.name in shapes:
            target, dims = shapes[value.name]
            value.CopyFrom(onnx.helper.make_tensor_value_info(target, onnx.TensorProto.FLOAT, [int(d) for d in dims]))
    kept = [node for node in graph.node if node.op_type != "ConstantOfShape"]
    del graph.node[:]
    graph.node.extend(kept)
    if batch != 1:
        _set_batch(graph, batch)
    return model


def _gain(name: str, gains: Mapping[str, float]) -> float:
    matches = [suffix for suffix in gains if name.endswith(suffix)]
    return gains[max(matches, key=len)] if matches else 1.0


def _draw(weights: Weights, name: str, shape: tuple[int, ...], uses: _Uses, gain: float) -> Floats:
    """Draw a tensor by the role that its first reader gives it."""
    node, index = uses[name][0]
    if node.op_type in ("Unsqueeze", "Reshape"):  # weights that are reshaped first: caffe's Scale layers, a classifier
        node, index = uses[node.output[0]][0]
        if node.op_type == "Gemm":
            return weights.conv(name, (shape[-2], shape[-1]), gain).reshape(shape)
    if node.op_type in ("Conv", "Gemm"):
        return weights.conv(name, shape, gain) if index == 1 else weights.normal(name, shape, 0.05)
    if node.op_type == "BatchNormalization":
        return weights.batch_norm(name, shape[0], gain)[index - 1]
    if node.op_type == "Mul":
        return weights.uniform(name, shape, 0.8 * gain, 1.2 * gain)
    if node.op_type == "Add":
        return weights.normal(name, shape, 0.2 * gain)
    raise ValueError(f"no weight role for {name}, read by {node.op_type} input {index}")


def _set_batch(graph: onnx.GraphProto, batch: int) -> None:
    """Replace the batch size 1 that the export fixed in the data inputs, the outputs and the activations' reshapes."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for value in [*(v for v in graph.input if v.name not in constants), *graph.output]:
        value.type.tensor_type.shape.dim[0].dim_value = batch
    for node in graph.node:
        if node.op_type == "Reshape" and node.input[0] not in constants:
            target = constants[node.input[1]]
            dims = numpy_helper.to_array(target).copy()
            if dims[0] == 1:
                dims[0] = batch
                store(target, target.name, dims)
