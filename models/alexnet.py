"""AlexNet (Krizhevsky et al., 2012), the two-group form of the BVLC reference, the caffe2 export from the onnx package."""

from __future__ import annotations

import onnx

from models import _light
from models._registry import Entry, ModelInfo


def _alexnet(*, seed: int, batch: int) -> onnx.ModelProto:
    return _light.load("bvlc_alexnet", seed=seed, batch=batch)


MODELS = {
    "alexnet": Entry(
        ModelInfo(
            "alexnet",
            "AlexNet with LRN and grouped convolutions, softmax, opset 9 caffe2 export",
            "NIPS 2012, 'ImageNet classification with deep convolutional neural networks'; onnx package, light_bvlc_alexnet.onnx",
            (("data_0", (1, 3, 224, 224)),),
        ),
        _alexnet,
    )
}
