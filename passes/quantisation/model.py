"""Quantise an ONNX model after training: from a file or ModelProto to a QDQ model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from sparsec.compiler.errors import UsageError
from sparsec.compiler.exporter.nodes import NodeEditor
from sparsec.compiler.exporter.weights import WeightEditor
from sparsec.compiler.importer.claims import METADATA_KEY
from sparsec.compiler.quantisation_report import QuantisationReport, QuantisedLayer, ValueReport
from sparsec.passes.pruning.calibrated.data import Samples, Source, model_inputs, read_samples
from sparsec.passes.pruning.model import Model, editor_of
from sparsec.passes.quantisation.fold_batchnorm import fold_batchnorm
from sparsec.passes.quantisation.insert import write
from sparsec.passes.quantisation.layers import Layer, Refusal, find_layers
from sparsec.passes.quantisation.observe import observe
from sparsec.passes.quantisation.prepare import float_values, prepare
from sparsec.passes.quantisation.ranges import Affine, Histogram, choose
from sparsec.passes.quantisation.select import Selection, Selector, moves
from sparsec.passes.quantisation.settings import Settings
from sparsec.passes.quantisation.side import Errors, measure_errors
from sparsec.passes.quantisation.weights import QuantisedWeights, quantise_weights

Array = np.ndarray[Any, Any]
_BATCH = 16  # samples that run at a time where the model leaves that open


@dataclass(frozen=True)
class QuantisedModel:
    """A quantised model in memory."""

    report: QuantisationReport
    proto: onnx.ModelProto

    def save(self, path: str | Path) -> None:
        """Write the model to `path`, whole or not at all."""
        WeightEditor(self.proto, None).save(Path(path))


def quantise(
    model: Model,
    data: Source,
    settings: Settings | None = None,
    *,
    progress: Callable[[str], None] | None = None,
) -> QuantisedModel:
    """Quantise `model`, which is not changed, for inputs like the calibration `data` (see `calibrated.data.read_samples`).

    The result is ONNX with QuantizeLinear and DequantizeLinear. Raises a SparsecError.
    """
    say, settings = progress or (lambda _: None), settings or Settings()
    say("import")
    proto = prepare(editor_of(model).embedded())
    samples = read_samples(data, model_inputs(proto), _BATCH)
    work = _Work(proto, samples, settings, say)
    return work.run()


class _Work:
    """One quantisation."""

    def __init__(self, proto: onnx.ModelProto, samples: Samples, settings: Settings, say: Callable[[str], None]) -> None:
        self.samples, self.settings, self.say = samples, settings, say
        self.floats = float_values(proto)
        self.editor = NodeEditor(proto)
        fold_batchnorm(self.editor)
        self.found = find_layers(self.editor)
        self.layers = [x for x in self.found if isinstance(x, Layer) and x.x in self.floats]
        if not self.layers:
            raise UsageError(_nothing(self.found))

    def run(self) -> QuantisedModel:
        editor, settings = self.editor, self.settings
        self.say("calibrate")
        folded = editor.finish()
        every = Selector(editor, self.layers, self.floats).run()
        histograms = observe(folded, self.samples, _sources(editor, every), settings.threads)
        layers = self.layers
        selection = every
        affines = self._affines(selection, histograms)
        weights = {x.name: self._weights(x, affines[x.x]) for x in layers}
        self.say("measure")
        errors = measure_errors(editor, layers, affines, weights, self.samples, settings.threads)
        biases = {x.name: _bias(x, errors[x.name], settings.correct_bias) for x in layers}
        self.say("write")
        quantised = write(editor, layers, selection.values, affines, weights, biases)
        kept = [p for p in quantised.metadata_props if p.key != METADATA_KEY]
        del quantised.metadata_props[:]
        quantised.metadata_props.extend(kept)
        report = QuantisationReport(
            method=str(settings.method),
            samples=len(self.samples),
            layers=tuple(self._report(x, affines, weights, errors) for x in self.found),
            values=tuple(_value_report(v, affines[v], h) for v, h in histograms.items() if v in affines),
        )
        return QuantisedModel(report, quantised)

    def _affines(self, selection: Selection, histograms: Mapping[str, Histogram]) -> dict[str, Affine]:
        found = {}
        for group in selection.groups:
            merged = Histogram()
            for v in group:
                if v in histograms:
                    merged.merge(histograms[v])
            chosen = choose(merged, self.settings.method, self.settings.percentile, power_of_two=self.settings.power_of_two)
            found.update(dict.fromkeys(group, chosen))
        return found

    def _weights(self, layer: Layer, x: Affine) -> QuantisedWeights:
        return quantise_weights(
            layer.weights,
            layer.axis,
            per_channel=self.settings.per_channel,
            power_of_two=self.settings.power_of_two,
            bias=layer.bias,
            x_scale=x.scale,
        )

    def _report(
        self,
        layer: Layer | Refusal,
        affines: Mapping[str, Affine],
        weights: Mapping[str, QuantisedWeights],
        errors: Mapping[str, Errors],
    ) -> QuantisedLayer:
        if isinstance(layer, Refusal) or layer.name not in weights:
            return QuantisedLayer(node=layer.name, status="float", remarks=(layer.why if isinstance(layer, Refusal) else "",))
        w, x, e = weights[layer.name], affines[layer.x], errors[layer.name]
        ratio = e.sqnr(corrected=self.settings.correct_bias)
        return QuantisedLayer(
            node=layer.name,
            status="int8",
            shape=layer.weights.shape,
            x_scale=x.scale,
            x_zero_point=x.zero,
            w_scale_low=float(w.scale.min()),
            w_scale_high=float(w.scale.max()),
            zeros=float((layer.weights == 0).mean()),
            zeros_quantised=float((w.data == 0).mean()),
            sqnr=ratio if np.isfinite(ratio) else None,
        )


def _sources(editor: NodeEditor, selection: Selection) -> list[str]:
    """The values whose numbers decide about ranges: what only moves others' numbers does not."""
    return [v for v in selection.values if (n := editor.producers.get(v)) is None or not moves(editor, n)]


def _bias(layer: Layer, errors: Errors, correct: bool) -> Array | None:
    if not correct:
        return layer.bias
    bias = layer.bias if layer.bias is not None else np.zeros(layer.channels, np.float32)
    return (bias - errors.mean).astype(np.float32)


def _value_report(name: str, found: Affine, histogram: Histogram) -> ValueReport:
    x, counts = histogram.centres, histogram.counts
    outside = counts[(x < found.low - found.scale / 2) | (x > found.high + found.scale / 2)].sum()
    return ValueReport(
        name=name,
        low=histogram.low,
        high=histogram.high,
        scale=found.scale,
        zero_point=found.zero,
        saturated=float(outside / max(counts.sum(), 1)),
    )


def _nothing(found: Sequence[Layer | Refusal]) -> str:
    refusals = [f"{x.name!r}: {x.why}" for x in found if isinstance(x, Refusal)]
    why = f" ({'; '.join(refusals[:3])})" if refusals else ""
    return f"the model has no Conv, Gemm or MatMul of float32 data and constant weights: there is nothing to quantise{why}"
