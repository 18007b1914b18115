"""Write QuantizeLinear and DequantizeLinear into a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from sparsec.compiler.exporter.nodes import NodeEditor
from sparsec.passes.quantisation.layers import Layer
from sparsec.passes.quantisation.ranges import Affine
from sparsec.passes.quantisation.weights import QuantisedWeights, quantise_bias

Array = np.ndarray[Any, Any]

_NOT_READ = ("Shape", "Size")  # want no numbers


class Writer:
    """Writes the quantised form of values and layers into an editor."""

    def __init__(self, editor: NodeEditor) -> None:
        """`editor` is changed."""
        self.editor = editor
        self._parameters: dict[Affine, tuple[str, str]] = {}

    def value(self, value: str, found: Affine) -> None:
        """Quantise a float32 value where it is made, and dequantise it for each node that reads it.

        Outputs of the model and what is read inside subgraphs stay as they are.
        """
        readers = [n for n in self.editor.readers.get(value, []) if n.op_type not in _NOT_READ and value in n.input]
        if not readers:
            return
        parameters = self._named(found, value)
        q = self.editor.fresh(f"{value}_quantized")
        self.editor.add("QuantizeLinear", [value, *parameters], q)
        for node in readers:
            real = self.editor.fresh(f"{value}_dequantized")
            self.editor.add("DequantizeLinear", [q, *parameters], real)
            replace_input(node, value, real)

    def layer(self, layer: Layer, x: Affine, weights: QuantisedWeights, bias: Array | None) -> None:
        """Give a layer int8 weights and an int32 bias, each behind a DequantizeLinear."""
        node, name = layer.node, layer.node.input[1]
        node.input[1] = self._constant(name, weights.data, weights.scale, weights.axis)
        if bias is None:
            return
        data, scale = quantise_bias(bias, x.scale, weights.scale)
        real = self._constant(f"{name}_bias", data, scale, 0)
        if node.op_type == "MatMul":
            self._add_behind(layer, real)
        else:
            operands = [*node.input][:2]
            del node.input[:]
            node.input.extend([*operands, real])
        if node.op_type == "Gemm":
            kept = [a for a in node.attribute if a.name not in ("alpha", "beta")]  # in the weights and the bias
            del node.attribute[:]
            node.attribute.extend(kept)

    def _add_behind(self, layer: Layer, bias: str) -> None:
        """The bias of a MatMul: the other operand of the Add behind it, which is new where there was none."""
        node = layer.node
        if layer.add is not None:
            other = next(v for v in layer.add.input if v != node.output[0])
            replace_input(layer.add, other, bias)
            return
        inner, result = self.editor.fresh(f"{node.output[0]}_product"), node.output[0]
        node.output[0] = inner
        self.editor.add("Add", [inner, bias], result)

    def _constant(self, name: str, data: Array, scale: Array, axis: int) -> str:
        zero = np.zeros(scale.shape, data.dtype)
        names = [self.editor.constant(a, f"{name}_{n}") for n, a in (("quantized", data), ("scale", scale), ("zero_point", zero))]
        real = self.editor.fresh(f"{name}_dequantized")
        self.editor.add("DequantizeLinear", names, real, **({"axis": axis} if scale.ndim else {}))
        return real

    def _named(self, found: Affine, value: str) -> tuple[str, str]:
        """Scale and zero point as initializers, the same ones for the same numbers."""
        if found not in self._parameters:
            names = (
                self.editor.constant(np.float32(found.scale), f"{value}_scale"),
                self.editor.constant(np.uint8(found.zero), f"{value}_zero_point"),
            )
            self._parameters[found] = names
        return self._parameters[found]


def replace_input(node: onnx.NodeProto, old: str, new: str) -> None:
    """The node reads another value in an operand's place."""
    for i, name in enumerate(node.input):
        if name == old:
            node.input[i] = new


def write(
    editor: NodeEditor,
    layers: Sequence[Layer],
    values: Sequence[str],
    affines: Mapping[str, Affine],
    weights: Mapping[str, QuantisedWeights],
    biases: Mapping[str, Array | None],
) -> onnx.ModelProto:
    """The quantised model: `affines` by value, `weights` and `biases` by layer name."""
    writer = Writer(editor)
    for layer in layers:
        writer.layer(layer, affines[layer.x], weights[layer.name], biases[layer.name])
    editor.index()
    for value in values:
        writer.value(value, affines[value])
    return editor.finish()
