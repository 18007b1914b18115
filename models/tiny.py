"""Tiny networks with the shapes of the large ones, for fast tests: a CNN, a transformer, and a TensorFlow-style NHWC net."""

from __future__ import annotations

import numpy as np
import onnx

from models import bert
from models._registry import Entry, ModelInfo
from models._writer import Writer, batch_dim, dotted


def _conv_bn(w: Writer, scope: str, x: str, shape: tuple[int, int, int, int], group: int = 1, scale: float = 1.0) -> str:
    """Write a same-padded convolution (OIHW) and its normalisation."""
    pad = shape[2] // 2
    y = w.conv(f"{scope}/conv", x, shape, pads=[pad] * 4, group=group, bias=False)
    return w.batch_norm(f"{scope}/bn", y, shape[0], scale=scale)


def _tiny_cnn(*, seed: int, batch: int, dynamic_batch: bool = False) -> onnx.ModelProto:
    w = Writer("main_graph", seed=seed, opset=13, ir_version=7)
    n = batch_dim(batch, dynamic_batch)
    x = w.input("input", (n, 3, 16, 16))
    w.output("output", (n, 10))
    x = w.op("/stem", "Relu", _conv_bn(w, "/stem", x, (16, 3, 3, 3)))
    y = w.op("/block/first", "Relu", _conv_bn(w, "/block/first", x, (16, 16, 3, 3)))
    y = _conv_bn(w, "/block/second", y, (16, 16, 3, 3), scale=0.5)
    x = w.op("/block", "Relu", w.op("/block", "Add", y, x))
    x = w.op("/pool", "MaxPool", x, ceil_mode=0, kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2])
    deep = w.op("/depthwise", "Relu", _conv_bn(w, "/depthwise", x, (16, 1, 3, 3), group=16))
    wide = w.op("/pointwise", "Relu", w.conv("/pointwise", x, (24, 16, 1, 1)))
    x = w.op("", "Concat", deep, wide, axis=1)
    x = w.op("", "Flatten", w.op("", "GlobalAveragePool", x), axis=1)
    w.gemm("/fc", x, (10, 40), out="output", gain=2.0)
    return w.model


def _tiny_transformer(
    *,
    seed: int,
    batch: int,
    seq_len: int = 12,
    layers: int = 2,
    form: str = "torchscript",
    opset: int | None = None,
    dynamic_batch: bool = False,
    dynamic_seq: bool = False,
) -> onnx.ModelProto:
    return bert.encoder(
        seed=seed,
        batch=batch,
        seq_len=seq_len,
        layers=layers,
        hidden=32,
        heads=2,
        inner=64,
        vocab=97,
        form=form,
        opset=opset,
        dynamic_batch=dynamic_batch,
        dynamic_seq=dynamic_seq,
    )


def _relu6(w: Writer, scope: str, x: str) -> str:
    """Write a ReLU6 in NHWC; tf2onnx keeps the bounds as scalar initializers."""
    low, high = (w.param(dotted(scope, leaf), np.array(bound, np.float32)) for leaf, bound in (("low", 0.0), ("high", 6.0)))
    return w.op(scope, "Clip", x, low, high)


def _nhwc_conv(w: Writer, scope: str, x: str, shape: tuple[int, ...], stride: int = 1, group: int = 1) -> str:
    """Write convolution (OIHW, as tf2onnx folds it) and normalisation between a pair of transposes, NHWC to NHWC."""
    pad = 0 if stride == 2 or shape[2] == 1 else 1
    x = w.op(scope, "Transpose", x, perm=[0, 3, 1, 2])
    y = w.conv(f"{scope}/Conv2D", x, shape, pads=[pad] * 4, stride=stride, group=group, bias=False)
    y = w.batch_norm(f"{scope}/FusedBatchNormV3", y, shape[0], epsilon=1e-3)
    return w.op(scope, "Transpose", y, perm=[0, 2, 3, 1])


def _padded(w: Writer, scope: str, x: str) -> str:
    """Write Keras' ``ZeroPadding2D(((0, 1), (0, 1)))``, which precedes its convolutions of stride 2."""
    pads = w.param(dotted(scope, "paddings"), np.array([0, 0, 0, 0, 0, 1, 1, 0], np.int64))
    return w.op(scope, "Pad", x, pads, mode="constant")


def _tiny_nhwc(*, seed: int, batch: int, dynamic_batch: bool = False) -> onnx.ModelProto:
    w = Writer("tf2onnx", seed=seed, opset=15)
    n = batch_dim(batch, dynamic_batch, "unk__1")
    x = w.input("input_1", (n, 16, 16, 3))
    w.output("predictions", (n, 10))
    x = _relu6(w, "/Conv1_relu", _nhwc_conv(w, "/Conv1", _padded(w, "/Conv1_pad", x), (16, 3, 3, 3), stride=2))
    y = _relu6(w, "/expand_relu", _nhwc_conv(w, "/expand", x, (32, 16, 1, 1)))
    y = _relu6(w, "/depthwise_relu", _nhwc_conv(w, "/depthwise", y, (32, 1, 3, 3), group=32))
    x = w.op("/add", "Add", x, _nhwc_conv(w, "/project", y, (16, 32, 1, 1)))
    x = _relu6(w, "/last_relu", _nhwc_conv(w, "/last", _padded(w, "/last_pad", x), (40, 16, 3, 3), stride=2))
    x = w.op("/global_average_pooling2d", "ReduceMean", x, axes=[1, 2], keepdims=0)
    kernel = w.param("predictions.kernel", w.weights.normal("predictions.kernel", (40, 10), 0.25))
    bias = w.param("predictions.bias", w.weights.normal("predictions.bias", (10,), 0.05))
    x = w.op("/predictions", "Add", w.op("/predictions", "MatMul", x, kernel), bias)
    w.op("/predictions", "Softmax", x, out="predictions", axis=-1)
    return w.model


MODELS = {
    "tiny_cnn": Entry(
        ModelInfo(
            "tiny_cnn",
            "Residual, pooling, depthwise and concatenation on 3x16x16, opset 13",
            "written for tests",
            (("input", (1, 3, 16, 16)),),
            {"dynamic_batch": False},
        ),
        _tiny_cnn,
    ),
    "tiny_nhwc": Entry(
        ModelInfo(
            "tiny_nhwc",
            "NHWC net in tf2onnx's form: transposes around convolutions, Pad, ReLU6 as Clip, opset 15",
            "written for tests, after the layout of Keras' MobileNetV2",
            (("input_1", (1, 16, 16, 3)),),
            {"dynamic_batch": False},
        ),
        _tiny_nhwc,
    ),
    "tiny_transformer": Entry(
        ModelInfo(
            "tiny_transformer",
            "BERT encoder of 2 layers, 32 wide, 2 heads, opset 14 (dynamo: opset 18)",
            "written for tests, after bert_base",
            (("input_ids", (1, 12)), ("attention_mask", (1, 12)), ("token_type_ids", (1, 12))),
            {
                "seq_len": 12,
                "layers": 2,
                "form": "torchscript",
                "opset": None,
                "dynamic_batch": False,
                "dynamic_seq": False,
            },
        ),
        _tiny_transformer,
    ),
}
