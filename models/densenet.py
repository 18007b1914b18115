"""DenseNet-121 (Huang et al., 2016, arXiv:1608.06993), the caffe2 export from the onnx package."""

from __future__ import annotations

import onnx

from models import _light
from models._registry import Entry, ModelInfo


def _densenet121(*, seed: int, batch: int) -> onnx.ModelProto:
    return _light.load("densenet121", seed=seed, batch=batch)


MODELS = {
    "densenet121": Entry(
        ModelInfo(
            "densenet121",
            "DenseNet-121, logits [N, 1000, 1, 1], normalisation as BatchNormalization + Mul + Add, opset 9 caffe2 export",
            "arXiv:1608.06993; onnx package, light_densenet121.onnx",
            (("data_0", (1, 3, 224, 224)),),
        ),
        _densenet121,
    )
}
