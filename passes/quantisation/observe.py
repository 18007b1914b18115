"""Histograms of the values inside a model, over calibration samples."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from sparsec.compiler.errors import ModelError
from sparsec.passes.pruning.calibrated.data import Samples
from sparsec.passes.pruning.calibrated.run import Probe
from sparsec.passes.quantisation.ranges import Histogram


def observe(proto: onnx.ModelProto, samples: Samples, values: Sequence[str], threads: int = 0) -> dict[str, Histogram]:
    """A histogram of every value, filled batch by batch. ModelError for one that becomes NaN or infinite."""
    found = {v: Histogram() for v in values}
    for batch in Probe(proto, threads).batches(samples, values):
        for value, array in zip(values, batch, strict=True):
            if not found[value].add(array):
                raise ModelError(
                    f"value {value!r} is NaN or infinite on the calibration data: calibrate with inputs that the model is for",
                    tensor=value,
                )
    return found
