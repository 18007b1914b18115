"""Gradients of what the host computes between products: for operands of every operator, of the gradient of its result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import special

from sparsec.compiler.errors import UsageError
from sparsec.compiler.graph import ABSENT, Node
from sparsec.compiler.ops.concat import Concat
from sparsec.compiler.ops.layer_norm import LayerNorm
from sparsec.compiler.ops.map import Map
from sparsec.compiler.ops.pool import Pool
from sparsec.compiler.ops.reduce import Reduce
from sparsec.compiler.ops.reshape import Reshape
from sparsec.compiler.ops.slice import Slice
from sparsec.compiler.ops.softmax import Softmax
from sparsec.compiler.ops.transpose import Transpose
from sparsec.compiler.scalar import Arg, Imm, Operand, Program

Array = np.ndarray[Any, Any]
Partial = Callable[..., tuple[Any, ...]]  # of (result, *operands): the derivative by every operand


def _gelu(x: Array) -> Array:
    return np.asarray(0.5 * (1 + special.erf(x / np.sqrt(2))) + x * np.exp(-x * x / 2) / np.sqrt(2 * np.pi))


PARTIALS: dict[str, Partial] = {
    "identity": lambda y, x: (1.0,),
    "add": lambda y, a, b: (1.0, 1.0),
    "sub": lambda y, a, b: (1.0, -1.0),
    "mul": lambda y, a, b: (b, a),
    "div": lambda y, a, b: (1 / b, -y / b),
    "max": lambda y, a, b: (a >= b, a < b),
    "min": lambda y, a, b: (a <= b, a > b),
    "neg": lambda y, x: (-1.0,),
    "exp": lambda y, x: (y,),
    "sqrt": lambda y, x: (0.5 / y,),
    "rsqrt": lambda y, x: (-0.5 * y / x,),
    "reciprocal": lambda y, x: (-y * y,),
    "relu": lambda y, x: (x > 0,),
    "sigmoid": lambda y, x: (y * (1 - y),),
    "tanh": lambda y, x: (1 - y * y,),
    "gelu": lambda y, x: (_gelu(x),),
    "silu": lambda y, x: (special.expit(x) + y * (1 - special.expit(x)),),
}


def program_gradients(node: str, program: Program, operands: Sequence[Array], upstream: Array) -> list[Array]:
    """Of a scalar program's arguments; UsageError, which names `node`, for a function without a derivative here."""
    found = [np.zeros_like(a) for a in operands]
    if not program.steps:
        return [upstream, *found[1:]]
    values = [Program(program.steps[: i + 1]).evaluate(operands) for i in range(len(program.steps))]
    reached: list[Array] = [np.zeros_like(v) for v in values]
    reached[-1] = upstream

    def value(a: Operand) -> Any:
        return np.float32(a.value) if isinstance(a, Imm) else operands[a.index] if isinstance(a, Arg) else values[a.index]

    for i in reversed(range(len(values))):
        step = program.steps[i]
        if not reached[i].any():
            continue
        if step.fn not in PARTIALS:
            raise UsageError(f"node {node!r} computes {step.fn}, which has no gradient here", node=node)
        for a, partial in zip(step.args, PARTIALS[step.fn](values[i], *map(value, step.args)), strict=True):
            into = None if isinstance(a, Imm) else found if isinstance(a, Arg) else reached
            if into is not None and not isinstance(a, Imm):
                into[a.index] = into[a.index] + summed_to(reached[i] * partial, into[a.index].shape)
    return [g.astype(o.dtype, copy=False) for g, o in zip(found, operands, strict=True)]


def summed_to(gradient: Array, shape: tuple[int, ...]) -> Array:
    """The gradient of an operand of `shape`, which was broadcast."""
    lead = gradient.ndim - len(shape)
    over = (*range(lead), *(lead + i for i, n in enumerate(shape) if n == 1 and gradient.shape[lead + i] != 1))
    return np.asarray(gradient.sum(axis=over, keepdims=True).reshape(shape))


def host_gradients(node: Node, operands: Sequence[Array], result: Array, upstream: Array) -> list[Array]:
    """Of a node's operands (zeros for those that are no data); UsageError for an operator without a gradient here."""
    match node.op:
        case Map(program=program):
            return program_gradients(node.name, program, operands, upstream)
        case Reshape() | Transpose() | Concat() | Slice():
            return _moved(node, operands, upstream)
        case Pool(kind="max"):
            return [_winners(node, operands[0], upstream)]
        case Reduce(kind="sum" | "mean" as kind, over=over, keepdims=keepdims):
            kept = upstream if keepdims else np.expand_dims(upstream, over)
            whole = np.broadcast_to(kept, operands[0].shape)
            return [whole * np.float32(upstream.size / operands[0].size) if kind == "mean" else whole]
        case Softmax(axis=axis, log=False):
            return [result * (upstream - (upstream * result).sum(axis=axis, keepdims=True))]
        case LayerNorm(rms=False) as op if ABSENT not in node.inputs:
            return _normalised(op, operands, upstream)
    raise UsageError(f"node {node.name!r} is a {node.op.name}, which has no gradient here", node=node.name)


def _moved(node: Node, operands: Sequence[Array], upstream: Array) -> list[Array]:
    """Of an operator that moves elements: it is evaluated on their numbers."""
    ends = np.cumsum([0, *(a.size for a in operands)])
    numbers = [np.arange(first, first + a.size).reshape(a.shape) for first, a in zip(ends, operands, strict=False)]
    (taken,) = node.op.evaluate(numbers)
    whole = np.bincount(taken.reshape(-1), upstream.reshape(-1), ends[-1]).astype(upstream.dtype)
    return [part.reshape(a.shape) for part, a in zip(np.split(whole, ends[1:-1]), operands, strict=True)]


def _winners(node: Node, x: Array, upstream: Array) -> Array:
    """Of a maximum, which is the same of ranks: the first of equals takes the gradient."""
    order = np.argsort(-x, axis=None, kind="stable")[::-1]
    ranks = np.empty(x.size, np.int64)
    ranks[order] = np.arange(x.size)
    (won,) = node.op.evaluate([ranks.reshape(x.shape)])
    return np.bincount(order[won.reshape(-1)], upstream.reshape(-1), x.size).astype(upstream.dtype).reshape(x.shape)


def _normalised(op: LayerNorm, operands: Sequence[Array], upstream: Array) -> list[Array]:
    """Of a layer normalisation's data; its scale and bias are not trained."""
    x, over = operands[0], tuple(range(op.axis, operands[0].ndim))
    centred = x - x.mean(axis=over, keepdims=True)
    deviation = np.sqrt(np.square(centred).mean(axis=over, keepdims=True) + np.float32(op.epsilon))
    y, g = centred / deviation, upstream * operands[1] if len(operands) > 1 else upstream
    along = g - g.mean(axis=over, keepdims=True) - y * (g * y).mean(axis=over, keepdims=True)
    return [along / deviation, *(np.zeros_like(a) for a in operands[1:])]
