"""VGG-16 and VGG-19 (Simonyan and Zisserman, 2014, arXiv:1409.1556).

VGG-19 is the caffe2 export from the onnx package, VGG-16 is written as torchvision's module exports through
TorchScript, whose adaptive pooling to the size that is already there becomes a 1x1 ``AveragePool``.
"""

from __future__ import annotations

import onnx

from models import _light
from models._registry import Entry, ModelInfo
from models._writer import Writer, batch_dim

# Channels of each 3x3 convolution; 0 is a 2x2 max pooling. Column D of the paper's table 1.
_VGG16 = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)


def _vgg19(*, seed: int, batch: int) -> onnx.ModelProto:
    # the paper draws the classifier from N(0, 0.01^2): logits of order one, so that the softmax is not nearly one-hot
    return _light.load("vgg19", seed=seed, batch=batch, gains={"fc8_w_0": 0.3})


def _vgg16(*, seed: int, batch: int, dynamic_batch: bool = False) -> onnx.ModelProto:
    w = Writer("main_graph", seed=seed, opset=13, ir_version=7)
    n = batch_dim(batch, dynamic_batch)
    x, channels, index = w.input("input", (n, 3, 224, 224)), 3, 0
    for out in _VGG16:
        scope = f"/features/features.{index}"
        if out == 0:
            x = w.op(scope, "MaxPool", x, ceil_mode=0, kernel_shape=[2, 2], pads=[0] * 4, strides=[2, 2])
            index += 1
            continue
        x = w.conv(scope, x, (out, channels, 3, 3), pads=[1] * 4)
        x = w.op(f"/features/features.{index + 1}", "Relu", x)
        channels, index = out, index + 2
    x = w.op("/avgpool", "AveragePool", x, kernel_shape=[1, 1], strides=[1, 1])
    x = w.op("", "Flatten", x, axis=1)
    w.output("output", (n, 1000))
    x = w.op("/classifier/classifier.1", "Relu", w.gemm("/classifier/classifier.0", x, (4096, 25088)))
    x = w.op("/classifier/classifier.4", "Relu", w.gemm("/classifier/classifier.3", x, (4096, 4096)))
    w.gemm("/classifier/classifier.6", x, (1000, 4096), out="output")
    return w.model


MODELS = {
    "vgg16": Entry(
        ModelInfo(
            "vgg16",
            "VGG-16 classifier (logits), opset 13 in the TorchScript exporter's form",
            "arXiv:1409.1556, configuration D; layout of torchvision.models.vgg16",
            (("input", (1, 3, 224, 224)),),
            {"dynamic_batch": False},
        ),
        _vgg16,
    ),
    "vgg19": Entry(
        ModelInfo(
            "vgg19",
            "VGG-19 classifier with softmax, opset 9 caffe2 export",
            "arXiv:1409.1556; onnx package, light_vgg19.onnx",
            (("data_0", (1, 3, 224, 224)),),
        ),
        _vgg19,
    ),
}
