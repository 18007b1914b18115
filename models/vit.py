"""ViT-B/16 (Dosovitskiy et al., 2020, arXiv:2010.11929) as Hugging Face's ``ViTForImageClassification`` exports."""

from __future__ import annotations

import math

import numpy as np
import onnx

from models import _transformer as t
from models._registry import Entry, ModelInfo
from models._writer import Writer, batch_dim

_EPSILON = 1e-12
_HIDDEN, _HEADS, _INNER, _PATCH, _SIDE = 768, 12, 3072, 16, 14


def _patches(w: Writer, pixels: str, torchscript: bool) -> str:
    """Project the patches and flatten them, [batch, 196, hidden]."""
    scope = "/vit/embeddings/patch_embeddings"
    x = w.conv(f"{scope}/projection", pixels, (_HIDDEN, 3, _PATCH, _PATCH), stride=_PATCH, gain=1.5)
    if torchscript:
        starts, ends, axes = w.constant(scope, [0]), w.constant(scope, [2]), w.constant(scope, [0])
        kept = w.op(scope, "Slice", w.op(scope, "Shape", x), starts, ends, axes)
        target = w.op(scope, "Concat", kept, w.constant(scope, [-1]), axis=0)
    else:
        target = w.constant(scope, [0, _HIDDEN, _SIDE * _SIDE])
    return w.op(scope, "Transpose", w.reshape(scope, x, target), perm=[0, 2, 1])


def _class_token(w: Writer, pixels: str, batch: int, torchscript: bool) -> str:
    """Repeat the class token for each image, [batch, 1, hidden]."""
    scope, name = "/vit/embeddings", "vit.embeddings.cls_token"
    token = w.param(name, w.weights.normal(name, (1, 1, _HIDDEN), 0.5))
    if not torchscript and batch != -1:
        return w.op(scope, "Expand", token, w.constant(scope, [batch, 1, _HIDDEN]))
    if not torchscript:
        first = w.op(scope, "Shape", pixels, start=0, end=1)
        return w.op(scope, "Expand", token, w.op(scope, "Concat", first, w.constant(scope, [1, _HIDDEN]), axis=0))
    # expand(batch, -1, -1): the exporter replaces each -1 by 1 at run time.
    sizes = w.op(scope, "Concat", t.extent(w, scope, pixels, 0), w.constant(scope, [-1]), w.constant(scope, [-1]), axis=0)
    sizes = w.reshape(scope, sizes, w.constant(scope, [-1]))
    one = onnx.numpy_helper.from_array(np.array([1], dtype=np.int64))
    ones = w.op(scope, "ConstantOfShape", w.op(scope, "Shape", sizes), value=one)
    kept = w.op(scope, "Equal", sizes, w.op(scope, "Mul", ones, w.constant(scope, -1)))
    return w.op(scope, "Expand", token, w.op(scope, "Where", kept, ones, sizes))


def _layer(w: Writer, scope: str, x: str, sizes: t.Sizes, torchscript: bool) -> str:
    """Write one pre-normalised layer."""
    y = t.layer_norm(w, f"{scope}/layernorm_before", x, _HIDDEN, _EPSILON)
    y = t.attention(w, f"{scope}/attention/attention", y, sizes, None, torchscript)
    y = t.linear(w, f"{scope}/attention/output/dense", y, (_HIDDEN, _HIDDEN), 1.0 / math.sqrt(_HIDDEN))
    x = w.op(scope, "Add", y, x)
    y = t.layer_norm(w, f"{scope}/layernorm_after", x, _HIDDEN, _EPSILON)
    y = t.feed_forward(w, f"{scope}/intermediate", f"{scope}/output", y, sizes)
    return w.op(f"{scope}/output", "Add", y, x)


def _vit_b16(
    *,
    seed: int,
    batch: int,
    layers: int = 12,
    form: str = "torchscript",
    opset: int | None = None,
    dynamic_batch: bool = False,
) -> onnx.ModelProto:
    if layers < 1:
        raise ValueError(f"layers must be at least 1, not {layers}")
    w, torchscript = t.start(seed, form, opset)
    n = batch_dim(batch, dynamic_batch)
    sizes = t.Sizes(-1 if dynamic_batch else batch, _SIDE * _SIDE + 1, _HIDDEN, _HEADS, _INNER)
    pixels = w.input("pixel_values", (n, 3, _SIDE * _PATCH, _SIDE * _PATCH))
    w.output("logits", (n, 1000))

    x = _patches(w, pixels, torchscript)
    x = w.op("/vit/embeddings", "Concat", _class_token(w, pixels, sizes.batch, torchscript), x, axis=1)
    name = "vit.embeddings.position_embeddings"
    x = w.op("/vit/embeddings", "Add", x, w.param(name, w.weights.normal(name, (1, sizes.seq, _HIDDEN), 0.2)))
    for index in range(layers):
        x = _layer(w, f"/vit/encoder/layer.{index}", x, sizes, torchscript)
    x = t.layer_norm(w, "/vit/layernorm", x, _HIDDEN, _EPSILON)
    w.gemm("/classifier", w.op("", "Gather", x, w.constant("", 0), axis=1), (1000, _HIDDEN), out="logits")
    return w.model


MODELS = {
    "vit_b16": Entry(
        ModelInfo(
            "vit_b16",
            "ViT-B/16 classifier (logits), opset 14 in the TorchScript exporter's form (dynamo: opset 18)",
            "arXiv:2010.11929; layout of transformers.ViTForImageClassification",
            (("pixel_values", (1, 3, 224, 224)),),
            {"layers": 12, "form": "torchscript", "opset": None, "dynamic_batch": False},
        ),
        _vit_b16,
    )
}
