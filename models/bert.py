"""BERT base encoder (Devlin et al., 2018, arXiv:1810.04805) as Hugging Face's ``BertModel`` exports."""

from __future__ import annotations

import math

import numpy as np
import onnx

from models import _transformer as t
from models._registry import Entry, ModelInfo
from models._writer import Writer, batch_dim

_POSITIONS = 512
_EPSILON = 1e-12


def _embeddings(w: Writer, ids: str, types: str, sizes: t.Sizes, vocab: int, torchscript: bool) -> str:
    """Sum word, token type and position embeddings, [batch, seq, hidden], and normalise."""
    scope = "/embeddings"
    prefix = "embeddings"

    def table(kind: str, rows: int) -> str:
        name = f"{prefix}.{kind}_embeddings.weight"
        return w.param(name, w.weights.normal(name, (rows, sizes.hidden), 0.05))

    position_ids = w.param("embeddings.position_ids", np.arange(_POSITIONS, dtype=np.int64)[None])
    derived = sizes.seq == -1 or torchscript
    end = t.extent(w, scope, ids, 1) if derived else w.constant(scope, [sizes.seq])
    starts, axes, steps = w.constant(scope, [0]), w.constant(scope, [1]), w.constant(scope, [1])
    positions = w.op(scope, "Slice", position_ids, starts, end, axes, steps)
    words = w.op(f"{scope}/word_embeddings", "Gather", table("word", vocab), ids)
    kinds = w.op(f"{scope}/token_type_embeddings", "Gather", table("token_type", 2), types)
    total = w.op(scope, "Add", words, kinds)
    places = w.op(f"{scope}/position_embeddings", "Gather", table("position", _POSITIONS), positions)
    total = w.op(scope, "Add", total, places)
    return t.layer_norm(w, f"{scope}/LayerNorm", total, sizes.hidden, _EPSILON)


def _additive_mask(w: Writer, mask: str) -> str:
    """Turn the 0/1 mask [batch, seq] into 0 and the lowest float, [batch, 1, 1, seq]."""
    wide = w.op("", "Unsqueeze", w.op("", "Unsqueeze", mask, w.constant("", [1])), w.constant("", [2]))
    wide = w.op("", "Cast", wide, to=onnx.TensorProto.FLOAT)
    inverted = w.op("", "Sub", w.constant("", 1.0, np.float32), wide)
    return w.op("", "Mul", inverted, w.constant("", np.finfo(np.float32).min, np.float32))


def _layer(w: Writer, scope: str, x: str, mask: str, sizes: t.Sizes, torchscript: bool, out: str | None) -> str:
    """Write one post-normalised layer."""
    width = (sizes.hidden, sizes.hidden)
    attended = t.attention(w, f"{scope}/attention/self", x, sizes, mask, torchscript)
    attended = t.linear(w, f"{scope}/attention/output/dense", attended, width, 1.0 / math.sqrt(sizes.hidden))
    x = w.op(f"{scope}/attention/output", "Add", attended, x)
    x = t.layer_norm(w, f"{scope}/attention/output/LayerNorm", x, sizes.hidden, _EPSILON)
    y = t.feed_forward(w, f"{scope}/intermediate", f"{scope}/output", x, sizes)
    y = w.op(f"{scope}/output", "Add", y, x)
    return t.layer_norm(w, f"{scope}/output/LayerNorm", y, sizes.hidden, _EPSILON, out=out)


def encoder(
    *,
    seed: int,
    batch: int,
    seq_len: int,
    layers: int,
    hidden: int,
    heads: int,
    inner: int,
    vocab: int,
    form: str,
    opset: int | None,
    dynamic_batch: bool,
    dynamic_seq: bool,
) -> onnx.ModelProto:
    """Build a BERT encoder of any size: int64 ids, mask and types [batch, seq] to hidden states and pooled output."""
    if not 1 <= seq_len <= _POSITIONS:
        raise ValueError(f"seq_len must be between 1 and {_POSITIONS}, not {seq_len}")
    if layers < 1:
        raise ValueError(f"layers must be at least 1, not {layers}")
    w, torchscript = t.start(seed, form, opset)
    n, s = batch_dim(batch, dynamic_batch), batch_dim(seq_len, dynamic_seq, "sequence")
    sizes = t.Sizes(-1 if dynamic_batch else batch, -1 if dynamic_seq else seq_len, hidden, heads, inner)
    ids = w.input("input_ids", (n, s), onnx.TensorProto.INT64)
    mask = w.input("attention_mask", (n, s), onnx.TensorProto.INT64)
    types = w.input("token_type_ids", (n, s), onnx.TensorProto.INT64)
    w.output("last_hidden_state", (n, s, hidden))
    w.output("pooler_output", (n, hidden))

    bias = _additive_mask(w, mask)
    x = _embeddings(w, ids, types, sizes, vocab, torchscript)
    for index in range(layers):
        out = "last_hidden_state" if index == layers - 1 else None
        x = _layer(w, f"/encoder/layer.{index}", x, bias, sizes, torchscript, out)

    first = w.op("/pooler", "Gather", x, w.constant("/pooler", 0), axis=1)
    pooled = w.gemm("/pooler/dense", first, (hidden, hidden), gain=0.6)
    w.op("/pooler/activation", "Tanh", pooled, out="pooler_output")
    return w.model


def _bert_base(
    *,
    seed: int,
    batch: int,
    seq_len: int = 128,
    layers: int = 12,
    form: str = "torchscript",
    opset: int | None = None,
    dynamic_batch: bool = False,
    dynamic_seq: bool = False,
) -> onnx.ModelProto:
    return encoder(
        seed=seed,
        batch=batch,
        seq_len=seq_len,
        layers=layers,
        hidden=768,
        heads=12,
        inner=3072,
        vocab=30522,
        form=form,
        opset=opset,
        dynamic_batch=dynamic_batch,
        dynamic_seq=dynamic_seq,
    )


MODELS = {
    "bert_base": Entry(
        ModelInfo(
            "bert_base",
            "BERT base uncased encoder with pooler, opset 14 in the TorchScript exporter's form (dynamo: opset 18)",
            "arXiv:1810.04805; layout of transformers.BertModel",
            (("input_ids", (1, 128)), ("attention_mask", (1, 128)), ("token_type_ids", (1, 128))),
            {
                "seq_len": 128,
                "layers": 12,
                "form": "torchscript",
                "opset": None,
                "dynamic_batch": False,
                "dynamic_seq": False,
            },
        ),
        _bert_base,
    )
}
