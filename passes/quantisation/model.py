"""Quantise an ONNX model after training: from a file or ModelProto to a QDQ model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx

from sparsec.compiler.exporter.weights import WeightEditor
from sparsec.compiler.importer.claims import claims_metadata
from sparsec.compiler.quantisation_report import QuantisationReport
from sparsec.passes.pruning.calibrated.data import Source
from sparsec.passes.pruning.model import Model, editor_of
from sparsec.passes.quantisation.build import Quantiser
from sparsec.passes.quantisation.prepare import prepare
from sparsec.passes.quantisation.report import make_report
from sparsec.passes.quantisation.sensitive import layers_to_keep, output_sqnr
from sparsec.passes.quantisation.settings import Settings


@dataclass(frozen=True)
class QuantisedModel:
    """A quantised model in memory."""

    report: QuantisationReport
    proto: onnx.ModelProto

    def save(self, path: str | Path) -> None:
        """Write the model to `path`, whole or not at all."""
        WeightEditor(self.proto, None).save(Path(path))


def quantise(
    model: Model, data: Source, settings: Settings | None = None, *, progress: Callable[[str], None] | None = None
) -> QuantisedModel:
    """Quantise `model`, which is not changed, for inputs like the calibration `data` (see `calibrated.data.read_samples`).

    The result is ONNX with QuantizeLinear and DequantizeLinear: weights int8 and symmetric, activations uint8, biases int32.
    Zeros of weights stay zeros; patterns that pruning recorded are dropped from the metadata, since the import of the result
    recognises them again (n:m of blocks as blocks). Raises a SparsecError.
    """
    say, settings = progress or (lambda _: None), settings or Settings()
    say("import")
    proto = prepare(editor_of(model).embedded())
    quantiser = Quantiser(proto, data, settings, say)
    kept = layers_to_keep(quantiser)
    say("write")
    quantised, plan = quantiser.build(kept.layers)
    say("compare")
    ratio = output_sqnr(quantiser, quantised)
    editor = WeightEditor(quantised, None)
    for key, nothing in claims_metadata({}).items():
        editor.set_metadata(key, nothing)
    return QuantisedModel(make_report(quantiser, plan, kept, ratio), editor.proto)
