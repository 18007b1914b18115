"""ResNet-50 (He et al., 2015, arXiv:1512.03385), the caffe2 export from the onnx package."""

from __future__ import annotations

import onnx

from models import _light
from models._registry import Entry, ModelInfo

# The last normalisation of a block is small, so that the sum over the blocks keeps its range.
_GAINS = {"branch2c_bn_s_0": 0.3, "branch2c_bn_b_0": 0.3}


def _resnet50(*, seed: int, batch: int) -> onnx.ModelProto:
    return _light.load("resnet50", seed=seed, batch=batch, gains=_GAINS)


MODELS = {
    "resnet50": Entry(
        ModelInfo(
            "resnet50",
            "ResNet-50 classifier with softmax, opset 9 caffe2 export",
            "arXiv:1512.03385; onnx package, light_resnet50.onnx",
            (("gpu_0/data_0", (1, 3, 224, 224)),),
        ),
        _resnet50,
    )
}
