"""ZFNet-512 (Zeiler and Fergus, 2013, arXiv:1311.2901), the caffe2 export from the onnx package."""

from __future__ import annotations

import onnx

from models import _light
from models._registry import Entry, ModelInfo


def _zfnet512(*, seed: int, batch: int) -> onnx.ModelProto:
    return _light.load("zfnet512", seed=seed, batch=batch)


MODELS = {
    "zfnet512": Entry(
        ModelInfo(
            "zfnet512",
            "ZFNet-512 with LRN, softmax, opset 9 caffe2 export",
            "arXiv:1311.2901; onnx package, light_zfnet512.onnx",
            (("gpu_0/data_0", (1, 3, 224, 224)),),
        ),
        _zfnet512,
    )
}
