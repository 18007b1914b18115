"""Gradients of what the host computes between products: for operands of every operator, of the gradient of its result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sparsec.backends.systolic.scalar_gradients import program_gradients, summed_to
from sparsec.compiler.errors import UsageError
from sparsec.compiler.graph import ABSENT, Node
from sparsec.compiler.ops.base import Op
from sparsec.compiler.ops.concat import Concat
from sparsec.compiler.ops.expand import Expand
from sparsec.compiler.ops.gather import Gather
from sparsec.compiler.ops.gather_elements import GatherElements
from sparsec.compiler.ops.gather_nd import GatherND
from sparsec.compiler.ops.layer_norm import LayerNorm
from sparsec.compiler.ops.lrn import LRN
from sparsec.compiler.ops.map import Map
from sparsec.compiler.ops.pad import Pad
from sparsec.compiler.ops.pool import Pool
from sparsec.compiler.ops.reduce import Reduce
from sparsec.compiler.ops.reshape import Reshape
from sparsec.compiler.ops.resize import Resize
from sparsec.compiler.ops.slice import Slice
from sparsec.compiler.ops.softmax import Softmax
from sparsec.compiler.ops.tile import Tile
from sparsec.compiler.ops.transpose import Transpose

Array = np.ndarray[Any, Any]


def host_gradients(node: Node, operands: Sequence[Array], result: Array, upstream: Array) -> list[Array]:
    """Of a node's operands (zeros for those that are no data); UsageError for an operator without a gradient here."""
    x = operands[0]
    match node.op:
        case Map(program=program):
            return program_gradients(node.name, program, operands, upstream)
        case Reshape() | Transpose() | Concat() | Slice() | Expand() | Tile() | Gather() | GatherElements() | GatherND():
            return _moved(node.op, operands, upstream)
        case Pad() as op:
            return _moved(replace(op, fill=0.0), operands, upstream)
        case Resize(mode="nearest") as op:
            return _moved(replace(op, extrapolation=0.0), operands, upstream)
        case Pool(kind="max") | Reduce(kind="max" | "min"):
            return [_winners(node.op, x, upstream)]
        case Pool() as op:
            return [_pooled(op, x, result, upstream)]
        case Reduce(kind="sum" | "mean" as kind, over=over, keepdims=keepdims):
            kept = upstream if keepdims else np.expand_dims(upstream, over)
            whole = np.broadcast_to(kept, x.shape)
            return [whole * upstream.dtype.type(upstream.size / x.size) if kind == "mean" else whole]
        case Softmax(axis=axis, log=False):
            return [result * (upstream - (upstream * result).sum(axis=axis, keepdims=True))]
        case Softmax(axis=axis, log=True):
            return [upstream - np.exp(result) * upstream.sum(axis=axis, keepdims=True)]
        case LayerNorm() as op if ABSENT not in node.inputs:
            return _normalised(op, operands, upstream)
        case LRN() as op:
            return [_across_channels(op, x, upstream)]
    raise UsageError(f"node {node.name!r} is a {node.op.name}, which has no gradient here", node=node.name)


def _moved(op: Op, operands: Sequence[Array], upstream: Array) -> list[Array]:
    """Of an operator that moves elements: it is evaluated on their numbers, of which 0 is none; indices stay what they are."""
    ends = np.cumsum([1, *(a.size for a in operands)])
    numbers = [
        np.arange(first, first + a.size).reshape(a.shape) if a.dtype.kind == "f" else a
        for first, a in zip(ends, operands, strict=False)
    ]
    (taken,) = op.evaluate(numbers)
    whole = np.bincount(taken.reshape(-1), upstream.reshape(-1), ends[-1]).astype(upstream.dtype)
    return [whole[first : first + a.size].reshape(a.shape) for first, a in zip(ends, operands, strict=False)]


def _winners(op: Pool | Reduce, x: Array, upstream: Array) -> Array:
    """Of a maximum or minimum, which is the same of ranks: the first of equals takes the gradient."""
    order = np.argsort(x, axis=None, kind="stable") if op.kind == "min" else np.argsort(-x, axis=None, kind="stable")[::-1]
    ranks = np.empty(x.size, np.int64)
    ranks[order] = np.arange(x.size)
    (won,) = op.evaluate([ranks.reshape(x.shape)])
    return np.bincount(order[won.reshape(-1)], upstream.reshape(-1), x.size).astype(upstream.dtype).reshape(x.shape)


def _pooled(op: Pool, x: Array, result: Array, upstream: Array) -> Array:
    """Of means and norms of windows: every element of a window takes its share, and 0 is the number of what is padding."""
    numbers = op.windows(np.arange(1, x.size + 1).reshape(x.shape), 0)
    each = (..., *(None,) * len(op.kernel))
    if op.kind == "avg":
        share = (upstream / op.counts(x))[each]
    else:
        taps = op.windows(x, 0)
        norm = np.where(result == 0, 1, result)[each]  # a window of zeros gives no gradient
        share = upstream[each] * np.sign(taps) * (np.abs(taps) / norm) ** (op.p - 1)
    shares = np.broadcast_to(share, numbers.shape).reshape(-1)
    return np.bincount(numbers.reshape(-1), shares, x.size + 1)[1:].astype(upstream.dtype).reshape(x.shape)


def _normalised(op: LayerNorm, operands: Sequence[Array], upstream: Array) -> list[Array]:
    """Of a layer normalisation's data, scale and bias."""
    x, over = operands[0], tuple(range(op.axis, operands[0].ndim))
    centred = x if op.rms else x - x.mean(axis=over, keepdims=True)
    deviation = np.sqrt(np.square(centred).mean(axis=over, keepdims=True) + x.dtype.type(op.epsilon))
    y, g = centred / deviation, upstream * operands[1] if len(operands) > 1 else upstream
    along = g - y * (g * y).mean(axis=over, keepdims=True)
    if not op.rms:
        along = along - g.mean(axis=over, keepdims=True)
    vectors = [summed_to(part, a.shape) for part, a in zip((upstream * y, upstream), operands[1:], strict=False)]
    return [along / deviation, *vectors]


def _across_channels(op: LRN, x: Array, upstream: Array) -> Array:
    """Of a local response normalisation: a channel is divided by its own window, and is in the windows of its neighbours."""
    kind = x.dtype.type
    base = op.base(x)
    others = op.around(upstream * x * base ** kind(-op.beta - 1), turned=True)
    return np.asarray(upstream * base ** kind(-op.beta) - kind(2 * op.alpha * op.beta / op.size) * x * others)
