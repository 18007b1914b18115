"""Pieces of transformers, as torch's TorchScript exporter and its dynamo exporter write them.

``torchscript``: layer normalisation (before opset 17) and GELU are decomposed, and attention's reshapes take their
batch and sequence extents from ``Shape``/``Gather``/``Unsqueeze``/``Concat`` chains. ``dynamo``: ``LayerNormalization``,
attention with both operands scaled by the square root of the scale, reshapes with constant targets, ``Gelu`` from
opset 20.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from models._writer import Writer, dotted

FORMS = ("torchscript", "dynamo")


@dataclass(frozen=True)
class Sizes:
    """Extents of a transformer: batch and seq are -1 where they are dynamic."""

    batch: int
    seq: int
    hidden: int
    heads: int
    inner: int

    @property
    def head(self) -> int:
        """Width of one head."""
        return self.hidden // self.heads


def start(seed: int, form: object, opset: object) -> tuple[Writer, bool]:
    """Start a graph in the given form at the given opset (None: 14, dynamo 18); also tell whether it is TorchScript's."""
    if form not in FORMS:
        raise ValueError(f"unknown form {form!r} (known: {', '.join(FORMS)})")
    torchscript = form == "torchscript"
    chosen = (14 if torchscript else 18) if opset is None else opset
    lowest = 13 if torchscript else 17
    if not isinstance(chosen, int) or not lowest <= chosen <= 23:
        raise ValueError(f"opset of the {form} form must be between {lowest} and 23, not {chosen}")
    return Writer("main_graph", seed=seed, opset=chosen, ir_version=8 if chosen < 19 else 10), torchscript


def linear(w: Writer, scope: str, x: str, shape: tuple[int, int], std: float) -> str:
    """Write a fully connected layer over the last axis; ``shape`` is (in, out).

    The exporters store the transposed weight and write the bias as the first operand of the sum.
    """
    weight = w.folded("MatMul", w.weights.normal(dotted(scope, "weight"), shape, std))
    bias = w.param(dotted(scope, "bias"), w.weights.normal(dotted(scope, "bias"), shape[1:], 0.02))
    return w.op(scope, "Add", bias, w.op(scope, "MatMul", x, weight))


def layer_norm(w: Writer, scope: str, x: str, width: int, epsilon: float, out: str | None = None) -> str:
    """Write a layer normalisation over the last axis, fused from opset 17 on."""
    scale = w.param(dotted(scope, "weight"), w.weights.uniform(dotted(scope, "weight"), (width,), 0.8, 1.2))
    bias = w.param(dotted(scope, "bias"), w.weights.normal(dotted(scope, "bias"), (width,), 0.05))
    if w.opset >= 17:
        return w.op(scope, "LayerNormalization", x, scale, bias, out=out, axis=-1, epsilon=epsilon)
    centred = w.op(scope, "Sub", x, w.op(scope, "ReduceMean", x, axes=[-1], keepdims=1))
    squared = w.op(scope, "Pow", centred, w.constant(scope, 2.0, np.float32))
    variance = w.op(scope, "ReduceMean", squared, axes=[-1], keepdims=1)
    deviation = w.op(scope, "Sqrt", w.op(scope, "Add", variance, w.constant(scope, epsilon, np.float32)))
    scaled = w.op(scope, "Mul", w.op(scope, "Div", centred, deviation), scale)
    return w.op(scope, "Add", scaled, bias, out=out)


def gelu(w: Writer, scope: str, x: str) -> str:
    """Write the exact GELU, by ``Erf`` before opset 20."""
    if w.opset >= 20:
        return w.op(scope, "Gelu", x, approximate="none")
    erf = w.op(scope, "Erf", w.op(scope, "Div", x, w.constant(scope, math.sqrt(2.0), np.float32)))
    shifted = w.op(scope, "Add", erf, w.constant(scope, 1.0, np.float32))
    half = w.constant(scope, 0.5, np.float32)
    return w.op(scope, "Mul", w.op(scope, "Mul", x, shifted), half)


def extent(w: Writer, scope: str, x: str, axis: int) -> str:
    """Write the extent of an axis as a one-element int64 vector, in the exporter's three nodes."""
    scalar = w.op(scope, "Gather", w.op(scope, "Shape", x), w.constant(scope, axis), axis=0)
    return w.op(scope, "Unsqueeze", scalar, w.constant(scope, [0]))


def reshape_tail(w: Writer, scope: str, x: str, tail: list[int]) -> str:
    """Write ``x.reshape(x.shape[0], x.shape[1], *tail)``."""
    pieces = [extent(w, scope, x, 0), extent(w, scope, x, 1), *(w.constant(scope, [n]) for n in tail)]
    return w.reshape(scope, x, w.op(scope, "Concat", *pieces, axis=0))


def attention(w: Writer, scope: str, x: str, sizes: Sizes, mask: str | None, torchscript: bool) -> str:
    """Write self-attention up to the context, [batch, seq, hidden]; ``mask`` is added to the scores."""
    width, std = (sizes.hidden, sizes.hidden), 1.0 / math.sqrt(sizes.hidden)
    # Queries and keys are larger than trained ones, or the softmax over random scores would be nearly uniform.
    q = linear(w, f"{scope}/query", x, width, 1.3 * std)
    k = linear(w, f"{scope}/key", x, width, 1.3 * std)
    v = linear(w, f"{scope}/value", x, width, std)
    to_heads, to_keys = [0, 2, 1, 3], [0, 2, 3, 1]
    if torchscript:
        k, v, q = (reshape_tail(w, scope, y, [sizes.heads, sizes.head]) for y in (k, v, q))
        v, q = (w.op(scope, "Transpose", y, perm=to_heads) for y in (v, q))
        scores = w.op(scope, "MatMul", q, w.op(scope, "Transpose", k, perm=to_keys))
        scores = w.op(scope, "Div", scores, w.constant(scope, math.sqrt(sizes.head), np.float32))
    else:
        target = [sizes.batch, sizes.seq, sizes.heads, sizes.head]
        # A Reshape may infer one extent: with both dynamic, the batch is copied from the input by 0.
        target = [0, *target[1:]] if target[:2] == [-1, -1] else target
        k, v, q = (w.reshape(scope, y, w.constant(scope, target)) for y in (k, v, q))
        v, q = (w.op(scope, "Transpose", y, perm=to_heads) for y in (v, q))
        root = w.constant(scope, sizes.head**-0.25, np.float32)
        q = w.op(scope, "Mul", q, root)
        k = w.op(scope, "Mul", w.op(scope, "Transpose", k, perm=to_keys), root)
        scores = w.op(scope, "MatMul", q, k)
    if mask is not None:
        scores = w.op(scope, "Add", scores, mask)
    context = w.op(scope, "MatMul", w.op(scope, "Softmax", scores, axis=-1), v)
    context = w.op(scope, "Transpose", context, perm=to_heads)
    if torchscript:
        return reshape_tail(w, scope, context, [sizes.hidden])
    flat = [0, -1, sizes.hidden] if sizes.batch == -1 else [sizes.batch, sizes.seq, sizes.hidden]
    return w.reshape(scope, context, w.constant(scope, flat))


def feed_forward(w: Writer, scope: str, output_scope: str, x: str, sizes: Sizes) -> str:
    """Write hidden -> inner, GELU, inner -> hidden."""
    y = linear(w, f"{scope}/dense", x, (sizes.hidden, sizes.inner), 1.0 / math.sqrt(sizes.hidden))
    y = gelu(w, f"{scope}/intermediate_act_fn", y)
    return linear(w, f"{output_scope}/dense", y, (sizes.inner, sizes.hidden), 1.0 / math.sqrt(sizes.inner))
