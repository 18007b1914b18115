"""MobileNetV2 (Sandler et al., 2018, arXiv:1801.04381) as torchvision's module exports through TorchScript.

The exporter folds batch normalisation into the convolutions (weights ``onnx::Conv_N`` with biases), and writes ReLU6 as
``Clip`` whose bounds are ``Constant`` nodes.
"""

from __future__ import annotations

import numpy as np
import onnx

from models._registry import Entry, ModelInfo
from models._writer import Writer, batch_dim

# Expansion, output channels, repeats, stride of the first: table 2 of the paper.
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
# Projections are linear: unit gain relative to ReLU6 inputs would let the residual sums grow.
_PROJECT_GAIN = 0.6


def _conv(w: Writer, scope: str, x: str, shape: tuple[int, int, int, int], stride: int, gain: float = 1.0) -> str:
    """Write a convolution, weights OIHW, with the bias left by the folded normalisation; depthwise when I is 1."""
    out, per_group, kernel, _ = shape
    weight = w.folded("Conv", w.weights.conv(f"{scope}.weight", shape, gain))
    bias = w.folded("Conv", w.weights.normal(f"{scope}.bias", (out,), 0.2 * gain))
    pad = (kernel - 1) // 2
    return w.op(
        scope,
        "Conv",
        x,
        weight,
        bias,
        dilations=[1, 1],
        group=out if per_group == 1 else 1,
        kernel_shape=[kernel, kernel],
        pads=[pad] * 4,
        strides=[stride, stride],
    )


def _relu6(w: Writer, scope: str, x: str) -> str:
    low, high = w.constant(scope, 0.0, np.float32), w.constant(scope, 6.0, np.float32)
    return w.op(scope, "Clip", x, low, high)


def _block(w: Writer, scope: str, x: str, channels: int, out: int, expand: int, stride: int) -> str:
    """Write an inverted residual: expand 1x1, depthwise 3x3, project 1x1, and the sum when the shape allows it."""
    hidden, layer, y = channels * expand, 0, x
    if expand != 1:
        y = _conv(w, f"{scope}/conv/conv.{layer}/conv.{layer}.0", y, (hidden, channels, 1, 1), 1)
        y = _relu6(w, f"{scope}/conv/conv.{layer}/conv.{layer}.2", y)
        layer += 1
    y = _conv(w, f"{scope}/conv/conv.{layer}/conv.{layer}.0", y, (hidden, 1, 3, 3), stride)
    y = _relu6(w, f"{scope}/conv/conv.{layer}/conv.{layer}.2", y)
    y = _conv(w, f"{scope}/conv/conv.{layer + 1}", y, (out, hidden, 1, 1), 1, _PROJECT_GAIN)
    return w.op(scope, "Add", x, y) if stride == 1 and channels == out else y


def _mobilenet_v2(*, seed: int, batch: int, dynamic_batch: bool = False) -> onnx.ModelProto:
    w = Writer("main_graph", seed=seed, opset=13, ir_version=7)
    n = batch_dim(batch, dynamic_batch)
    x = w.input("input", (n, 3, 224, 224))
    x = _conv(w, "/features/features.0/features.0.0", x, (32, 3, 3, 3), 2)
    x = _relu6(w, "/features/features.0/features.0.2", x)
    channels, index = 32, 1
    for expand, out, repeats, first_stride in _STAGES:
        for repeat in range(repeats):
            stride = first_stride if repeat == 0 else 1
            x = _block(w, f"/features/features.{index}", x, channels, out, expand, stride)
            channels, index = out, index + 1
    x = _conv(w, "/features/features.18/features.18.0", x, (1280, channels, 1, 1), 1)
    x = _relu6(w, "/features/features.18/features.18.2", x)
    x = w.op("", "GlobalAveragePool", x)
    x = w.op("", "Flatten", x, axis=1)
    w.output("output", (n, 1000))
    w.gemm("/classifier/classifier.1", x, (1000, 1280), out="output")
    return w.model


MODELS = {
    "mobilenet_v2": Entry(
        ModelInfo(
            "mobilenet_v2",
            "MobileNetV2 1.0 classifier (logits), opset 13 in the TorchScript exporter's form",
            "arXiv:1801.04381; layout of torchvision.models.mobilenet_v2",
            (("input", (1, 3, 224, 224)),),
            {"dynamic_batch": False},
        ),
        _mobilenet_v2,
    )
}
