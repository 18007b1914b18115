"""`sparsec quantise`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sparsec.compiler.cli.budget import LabelsOption
from sparsec.compiler.cli.console import Steps, emit_json, say, table
from sparsec.compiler.cli.groups import with_groups
from sparsec.compiler.cli.options import CalibOption, JsonOption, ModelArgument, QuietOption
from sparsec.compiler.cli.quantising import Precision, Quantising
from sparsec.compiler.errors import UsageError

if TYPE_CHECKING:
    from sparsec.compiler.quantisation_report import QuantisationReport, QuantisedLayer


@with_groups
def quantise(
    model: ModelArgument,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="The .onnx file to write.", show_default=False)],
    calib: CalibOption = None,
    *,
    quantising: Quantising,
    labels: LabelsOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Quantise an ONNX model to int8 for inputs like DATA, and write it with QuantizeLinear and DequantizeLinear.

    Any runtime loads the result. Weights become int8 with a scale for each output channel, activations uint8 with a scale and a
    zero point, biases int32; softmax, normalisation and products of two activations stay float. Zeros of pruned weights stay
    zeros. Prints for every layer its scales, its signal to quantisation noise, and why it stays float if it does.
    """
    from sparsec.passes.quantisation.model import quantise as quantise_model

    if labels is not None and not quantising.labelled:
        raise UsageError("--labels are what accuracy is measured by: give --keep-float auto:accuracy:X, too")
    settings = quantising.settings(Precision.int8, calib, labels)
    assert settings is not None and calib is not None
    with Steps("quantise", total=None, quiet=quiet) as progress:
        quantised = quantise_model(model, calib, settings, progress=progress)
        quantised.save(output)
    if json:
        emit_json(quantised.report.model_dump(mode="json"))
    else:
        print_report(quantised.report)
        say(f"\nwritten to {output}")


def print_report(report: QuantisationReport) -> None:
    """The table of layers, and the whole model's signal to noise."""
    columns = ("layer", "weights", "precision", ">x scale", ">x zero", ">w scales", ">zeros", ">SQNR", "remarks")
    table(columns, [_row(x) for x in report.layers])
    outputs = f"; outputs {report.sqnr:.1f} dB" if report.sqnr is not None else ""
    outputs += f", {report.metric} loss {report.loss:.3g}" if report.loss is not None else ""
    say(
        f"\n{len(report.quantised)} of {len(report.layers)} layers in int8, {len(report.values)} ranges by {report.method} "
        f"from {report.samples} samples{outputs}"
    )
    say("SQNR: signal to quantisation noise of a layer's results, in dB, on the inputs that it has in the float model")


def _row(layer: QuantisedLayer) -> list[str]:
    shape, ratio = "x".join(map(str, layer.shape)), "" if layer.sqnr is None else f"{layer.sqnr:.1f}"
    remarks = "; ".join(layer.remarks)
    if layer.status == "float":
        return [layer.node, shape, "float", "", "", "", "", ratio, remarks]
    w = f"{layer.w_scale_low:.3g}"
    w += f" .. {layer.w_scale_high:.3g}" if layer.w_scale_low != layer.w_scale_high else ""
    zeros = f"{100 * (layer.zeros_quantised or 0):.1f} %"
    return [layer.node, shape, layer.status, f"{layer.x_scale:.3g}", str(layer.x_zero_point), w, zeros, ratio, remarks]
