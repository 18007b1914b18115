"""A float model that can be quantised again and again, with one set of layers or another."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx

from sparsec.compiler.errors import UsageError
from sparsec.compiler.exporter.nodes import NodeEditor
from sparsec.passes.pruning.calibrated.data import Source, model_inputs, read_samples
from sparsec.passes.quantisation.fold_batchnorm import fold_batchnorm
from sparsec.passes.quantisation.insert import write
from sparsec.passes.quantisation.layers import Layer, Refusal, find_layers
from sparsec.passes.quantisation.observe import observe
from sparsec.passes.quantisation.prepare import batch_for, float_values
from sparsec.passes.quantisation.ranges import Affine, Histogram, choose
from sparsec.passes.quantisation.select import Selection, Selector, moves
from sparsec.passes.quantisation.settings import Settings
from sparsec.passes.quantisation.side import Errors, measure_errors
from sparsec.passes.quantisation.weights import QuantisedWeights, quantise_weights

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Plan:
    """What one quantisation does: parameters of values, and weights of layers by name."""

    selection: Selection
    affines: Mapping[str, Affine]
    weights: Mapping[str, QuantisedWeights]


class Quantiser:
    """The float model with normalisation folded, and what calibration says of it."""

    def __init__(self, proto: onnx.ModelProto, data: Source, settings: Settings, say: Callable[[str], None]) -> None:
        """UsageError for a model without layers to quantise, and for data that it does not take."""
        self.settings, self.source, self.say = settings, data, say
        self._chosen: dict[tuple[str, ...], Affine] = {}
        editor = NodeEditor(proto)
        fold_batchnorm(editor)
        self.folded = editor.finish()
        self.floats = float_values(self.folded)
        self.found = self._layers(NodeEditor(self.folded))
        self.layers = [x for x in self.found if isinstance(x, Layer)]
        if not self.layers:
            raise UsageError(_nothing([x for x in self.found if isinstance(x, Refusal)]))
        self.samples = read_samples(data, model_inputs(proto), batch_for(self.floats))

    @cached_property
    def histograms(self) -> Mapping[str, Histogram]:
        """Of every value that can become bytes; what only moves others' numbers has none of its own."""
        self.say("calibrate")
        editor, layers = self._open(())
        values = Selector(editor, layers, self.floats).run().values
        sources = [v for v in values if (n := editor.producers.get(v)) is None or not moves(editor, n)]
        return observe(self.folded, self.samples, sources, self.settings.threads)

    @cached_property
    def errors(self) -> Mapping[str, Errors]:
        """By layer, what bytes do to its result."""
        _ = self.histograms
        self.say("measure layers")
        editor, layers = self._open(())
        plan = self._plan(editor, layers)
        return measure_errors(self.folded, layers, plan.affines, plan.weights, self.samples, self.settings.threads)

    def build(self, floats: Collection[str]) -> tuple[onnx.ModelProto, Plan]:
        """The quantised model in which the layers named stay float."""
        editor, layers = self._open(floats)
        plan = self._plan(editor, layers)
        biases = {x.name: self._bias(x) for x in layers}
        return write(editor, layers, plan.selection.values, plan.affines, plan.weights, biases), plan

    def _layers(self, editor: NodeEditor) -> list[Layer | Refusal]:
        why = "its data are not known to be float32"
        return [x if isinstance(x, Refusal) or x.x in self.floats else Refusal(x.name, why) for x in find_layers(editor)]

    def _open(self, floats: Collection[str]) -> tuple[NodeEditor, list[Layer]]:
        editor = NodeEditor(self.folded)
        return editor, [x for x in self._layers(editor) if isinstance(x, Layer) and x.name not in floats]

    def _plan(self, editor: NodeEditor, layers: list[Layer]) -> Plan:
        selection = Selector(editor, layers, self.floats).run()
        affines: dict[str, Affine] = {}
        for group in selection.groups:
            affines.update(dict.fromkeys(group, self._choose(tuple(v for v in group if v in self.histograms))))
        return Plan(selection, affines, {x.name: self._weights(x, affines[x.x]) for x in layers})

    def _choose(self, values: tuple[str, ...]) -> Affine:
        """One scale and zero point for all of `values`."""
        if values not in self._chosen:
            merged = Histogram()
            for v in values:
                merged.merge(self.histograms[v])
            how = self.settings
            self._chosen[values] = choose(merged, how.method, how.percentile, power_of_two=how.power_of_two)
        return self._chosen[values]

    def _weights(self, layer: Layer, x: Affine) -> QuantisedWeights:
        how = self.settings
        return quantise_weights(
            layer.weights,
            layer.axis,
            per_channel=how.per_channel,
            power_of_two=how.power_of_two,
            reduce_range=how.reduce_range,
            bias=layer.bias,
            x_scale=x.scale,
        )

    def _bias(self, layer: Layer) -> Array | None:
        if not self.settings.correct_bias:
            return layer.bias
        bias = layer.bias if layer.bias is not None else np.zeros(layer.channels, np.float32)
        return (bias - self.errors[layer.name].mean).astype(np.float32)


def _nothing(found: list[Refusal]) -> str:
    why = f" ({'; '.join(f'{x.name!r}: {x.why}' for x in found[:3])})" if found else ""
    return f"the model has no Conv, Gemm or MatMul of float32 data and constant weights: there is nothing to quantise{why}"
