"""The dense form of a model: what pruning is measured against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

from sparsec.compiler.exporter.weights import WeightEditor
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.importer.claims import claims_metadata
from sparsec.compiler.limits import Limits
from sparsec.compiler.sparsity.weights import layer_weights
from sparsec.passes.pruning.model import editor_of

_SMALL = 0.01  # of the root mean square of a layer's weights: results hardly change, and no product is denormal


def fill_zeros(
    model: str | Path | onnx.ModelProto | bytes,
    *,
    dims: Mapping[str, int] | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    limits: Limits | None = None,
) -> WeightEditor:
    """The model with small random numbers (always the same) in the place of zeros in the weights of Conv and MatMul nodes.

    `model` itself is not changed. Weights that other nodes compute stay as they are. Raises a SparsecError.
    """
    graph = import_model(model, dims=dims or {}, input_shapes=input_shapes or {}, limits=limits or Limits())
    editor, rng = editor_of(model), np.random.default_rng(0)
    for layer in layer_weights(graph):
        w = graph.constants[layer.value]
        zero = w == 0
        if zero.any() and editor.holder(layer.value) is not None:
            scale = _SMALL * (np.sqrt(np.square(w, dtype=np.float64).sum() / max(np.count_nonzero(w), 1)) or 1.0)
            noise = scale * rng.choice([-1.0, 1.0], w.shape) * rng.uniform(0.5, 1.0, w.shape)
            editor.replace(layer.value, np.where(zero, noise, w).astype(w.dtype))
    for key, text in claims_metadata({}).items():
        editor.set_metadata(key, text)
    return editor
