"""The report of a quantisation."""

from __future__ import annotations

import math
from collections.abc import Mapping

from sparsec.compiler.quantisation_report import QuantisationReport, QuantisedLayer, ValueReport
from sparsec.passes.pruning.calibrated.quality import metric_name
from sparsec.passes.quantisation.build import Plan, Quantiser
from sparsec.passes.quantisation.layers import Layer, Refusal
from sparsec.passes.quantisation.ranges import Affine, Histogram
from sparsec.passes.quantisation.sensitive import Kept


def make_report(quantiser: Quantiser, plan: Plan, kept: Kept, ratio: float) -> QuantisationReport:
    """All layers and values; `kept` says of layers that could be quantised why they are not."""
    wanted = quantiser.settings.keep_float
    return QuantisationReport(
        method=str(quantiser.settings.method),
        samples=quantiser.samples.count,
        layers=tuple(_layer(quantiser, plan, x, kept.layers) for x in quantiser.found),
        values=tuple(_value(v, plan.affines[v], h) for v, h in quantiser.histograms.items() if v in plan.affines),
        sqnr=ratio if math.isfinite(ratio) else None,
        metric=None if kept.loss is None else metric_name(wanted.metric),
        loss=kept.loss,
    )


def _layer(quantiser: Quantiser, plan: Plan, layer: Layer | Refusal, kept: Mapping[str, str]) -> QuantisedLayer:
    if isinstance(layer, Refusal):
        return QuantisedLayer(node=layer.name, status="float", remarks=(layer.why,))
    errors = quantiser.errors[layer.name]
    ratio = errors.sqnr(corrected=quantiser.settings.correct_bias)
    found = QuantisedLayer(
        node=layer.name,
        status="float",
        shape=layer.weights.shape,
        sqnr=ratio if math.isfinite(ratio) else None,
        remarks=(kept[layer.name],) if layer.name in kept else (),
    )
    if layer.name in kept:
        return found
    w, x = plan.weights[layer.name], plan.affines[layer.x]
    deviation = math.sqrt(errors.signal / max(errors.count, 1))
    shift = abs(errors.mean).max(initial=0.0) / deviation if deviation and quantiser.settings.correct_bias else None
    return found.model_copy(
        update={
            "status": "int8",
            "x_scale": x.scale,
            "x_zero_point": x.zero,
            "w_scale_low": float(w.scale.min()),
            "w_scale_high": float(w.scale.max()),
            "zeros": float((layer.weights == 0).mean()),
            "zeros_quantised": float((w.data == 0).mean()),
            "bias_shift": None if shift is None else float(shift),
        }
    )


def _value(name: str, found: Affine, histogram: Histogram) -> ValueReport:
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
