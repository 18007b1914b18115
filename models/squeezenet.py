"""SqueezeNet 1.1 (Iandola et al., 2016, arXiv:1602.07360), the caffe2 export from the onnx package."""

from __future__ import annotations

import onnx

from models import _light
from models._registry import Entry, ModelInfo


def _squeezenet(*, seed: int, batch: int) -> onnx.ModelProto:
    # The last convolution is averaged over the whole map: a larger gain keeps the softmax from being uniform.
    return _light.load("squeezenet", seed=seed, batch=batch, gains={"conv10_w_0": 3.0})


MODELS = {
    "squeezenet": Entry(
        ModelInfo(
            "squeezenet",
            "SqueezeNet 1.1, softmax over a [N, 1000, 1, 1] map, opset 9 caffe2 export",
            "arXiv:1602.07360; onnx package, light_squeezenet.onnx",
            (("data_0", (1, 3, 224, 224)),),
        ),
        _squeezenet,
    )
}
