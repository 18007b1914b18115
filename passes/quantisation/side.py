"""Every layer beside its quantised form, on the inputs that it has in the float model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from sparsec.compiler.exporter.nodes import NodeEditor
from sparsec.passes.pruning.calibrated.data import Samples
from sparsec.passes.pruning.calibrated.run import Probe
from sparsec.passes.quantisation.insert import Writer
from sparsec.passes.quantisation.layers import Layer
from sparsec.passes.quantisation.ranges import Affine
from sparsec.passes.quantisation.weights import QuantisedWeights, sqnr

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Errors:
    """Of one layer's results: each channel's mean error [OC], quantised - float, over `count` numbers, and sums of squares.

    `mean` is drawn towards 0 by as much as chance explains (the positive part of James and Stein, "Estimation with quadratic
    loss", 1961): few samples do not move biases by noise.
    """

    mean: Array
    count: int
    signal: float
    noise: float
    corrected: float  # noise that is left when the mean error is taken away

    def sqnr(self, *, corrected: bool = False) -> float:
        """Signal to quantisation noise in dB."""
        return sqnr(self.signal, self.corrected if corrected else self.noise)


def measure_errors(
    model: onnx.ModelProto,
    layers: Sequence[Layer],
    affines: Mapping[str, Affine],
    weights: Mapping[str, QuantisedWeights],
    samples: Samples,
    threads: int = 0,
) -> dict[str, Errors]:
    """By layer name: what its bytes for data and weights do to its result, its inputs being those of the float model."""
    proto, pairs = _beside(model, layers, affines, weights)
    sums = {layer.name: _Sums(layer) for layer in layers}
    values = [v for layer in layers for v in pairs[layer.name]]
    for batch in Probe(proto, threads).batches(samples, values):
        for i, layer in enumerate(layers):
            sums[layer.name].add(batch[2 * i], batch[2 * i + 1])
    return {name: found.result() for name, found in sums.items()}


class _Sums:
    """Sums over samples of one layer."""

    def __init__(self, layer: Layer) -> None:
        self.axis = 1 if layer.node.op_type == "Conv" else -1
        self.total, self.squares, self.count = np.zeros(layer.channels), np.zeros(layer.channels), 0
        self.signal = 0.0

    def add(self, real: Array, quantised: Array) -> None:
        error = np.moveaxis(quantised.astype(np.float64) - real, self.axis, 0).reshape(len(self.total), -1)
        self.total += error.sum(axis=1)
        self.count += error.shape[1]
        self.squares += np.square(error).sum(axis=1)
        self.signal += float(np.square(real, dtype=np.float64).sum())

    def result(self) -> Errors:
        n = max(self.count, 1)
        mean = self.total / n
        chance = np.maximum(self.squares / n - mean**2, 0) / max(n - 1, 1)  # variance of the mean
        mean *= np.maximum(1 - chance / np.maximum(mean**2, 1e-300), 0)
        corrected = self.squares.sum() - float((2 * mean * self.total - n * mean**2).sum())
        return Errors(mean, self.count, self.signal, float(self.squares.sum()), max(float(corrected), 0.0))


def _beside(
    model: onnx.ModelProto, layers: Sequence[Layer], affines: Mapping[str, Affine], weights: Mapping[str, QuantisedWeights]
) -> tuple[onnx.ModelProto, dict[str, tuple[str, str]]]:
    """The float model with a quantised twin beside each layer, neither with a bias that is not its own; names of both results."""
    side = NodeEditor(model)
    nodes = {n.output[0]: n for n in side.nodes if n.output}
    pairs = {}
    for layer in layers:
        node = nodes[layer.node.output[0]]
        twin = onnx.NodeProto()
        twin.CopyFrom(node)
        twin.name, twin.output[0] = side.fresh(f"{layer.name}_twin"), side.fresh(f"{node.output[0]}_twin")
        side.nodes.append(twin)
        writer, x = Writer(side), affines[layer.x]
        real = side.fresh(f"{layer.x}_twin")
        parameters = side.constant(np.float32(x.scale), f"{real}_scale"), side.constant(np.uint8(x.zero), f"{real}_zero")
        q = side.add("QuantizeLinear", [layer.x, *parameters], side.fresh(f"{real}_q"))
        side.add("DequantizeLinear", [q.output[0], *parameters], real)
        twin.input[0] = real
        twin_layer = Layer(layer.name, twin, layer.x, layer.weights, layer.axis, layer.bias, twin.output[0])
        writer.layer(twin_layer, x, weights[layer.name], layer.bias if node.op_type != "MatMul" else None)
        pairs[layer.name] = node.output[0], twin.output[0]
    return side.finish([v for pair in pairs.values() for v in pair]), pairs
