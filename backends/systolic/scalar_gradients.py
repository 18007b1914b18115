"""Gradients of scalar programs: the derivative of every function by its operands, and the chain rule along the steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import special

from sparsec.compiler.errors import UsageError
from sparsec.compiler.scalar import Arg, Imm, Operand, Program, Step

Array = np.ndarray[Any, Any]
Partial = Callable[..., tuple[Any, ...]]  # of (result, *operands): the derivative by every operand


def _gelu(x: Array) -> Array:
    return np.asarray(0.5 * (1 + special.erf(x / np.sqrt(2))) + x * np.exp(-x * x / 2) / np.sqrt(2 * np.pi))


def _inside(y: Array) -> Array:
    return (y > 0) & (y < 1)


PARTIALS: dict[str, Partial] = {
    "identity": lambda y, x: (1.0,),
    "add": lambda y, a, b: (1.0, 1.0),
    "sub": lambda y, a, b: (1.0, -1.0),
    "mul": lambda y, a, b: (b, a),
    "div": lambda y, a, b: (1 / b, -y / b),
    "pow": lambda y, a, b: (b * np.power(a, b - 1), y * np.log(np.where(a > 0, a, 1))),
    "max": lambda y, a, b: (a >= b, a < b),
    "min": lambda y, a, b: (a <= b, a > b),
    "where": lambda y, c, a, b: (0.0, c, np.logical_not(c)),
    "neg": lambda y, x: (-1.0,),
    "abs": lambda y, x: (np.sign(x),),
    "exp": lambda y, x: (y,),
    "log": lambda y, x: (1 / x,),
    "sqrt": lambda y, x: (0.5 / y,),
    "rsqrt": lambda y, x: (-0.5 * y / x,),
    "reciprocal": lambda y, x: (-y * y,),
    "sin": lambda y, x: (np.cos(x),),
    "cos": lambda y, x: (-np.sin(x),),
    "tan": lambda y, x: (1 + y * y,),
    "asin": lambda y, x: (1 / np.sqrt(1 - x * x),),
    "acos": lambda y, x: (-1 / np.sqrt(1 - x * x),),
    "atan": lambda y, x: (1 / (1 + x * x),),
    "sinh": lambda y, x: (np.cosh(x),),
    "cosh": lambda y, x: (np.sinh(x),),
    "asinh": lambda y, x: (1 / np.sqrt(x * x + 1),),
    "acosh": lambda y, x: (1 / np.sqrt(x * x - 1),),
    "atanh": lambda y, x: (1 / (1 - x * x),),
    "erf": lambda y, x: (2 / np.sqrt(np.pi) * np.exp(-x * x),),
    "relu": lambda y, x: (x > 0,),
    "sigmoid": lambda y, x: (y * (1 - y),),
    "tanh": lambda y, x: (1 - y * y,),
    "gelu": lambda y, x: (_gelu(x),),
    "silu": lambda y, x: (special.expit(x) + y * (1 - special.expit(x)),),
    "hard_sigmoid": lambda y, x, a, b: (a * _inside(y), x * _inside(y), _inside(y)),
    "hard_swish": lambda y, x: (np.where(x <= -3, 0, np.where(x >= 3, 1, x / 3 + 0.5)),),
    "leaky_relu": lambda y, x, slope: (np.where(x < 0, slope, 1), np.where(x < 0, x, 0)),
    "elu": lambda y, x, alpha: (np.where(x < 0, y + alpha, 1), np.expm1(np.minimum(x, 0))),
    "softplus": lambda y, x: (special.expit(x),),
    "softsign": lambda y, x: (1 / np.square(1 + np.abs(x)),),
}


def program_gradients(node: str, program: Program, operands: Sequence[Array], upstream: Array) -> list[Array]:
    """Of a scalar program's arguments; UsageError, which names `node`, for a function without a derivative here.

    A cast between floating-point types is the identity, and one from or to anything else ends the gradient, as comparisons do.
    """
    found: list[Array] = [np.zeros(a.shape, upstream.dtype) for a in operands]
    if not program.steps:
        return [upstream, *found[1:]]
    values = [Program(program.steps[: i + 1]).evaluate(operands) for i in range(len(program.steps))]
    reached: list[Array] = [np.zeros(v.shape, upstream.dtype) for v in values]
    reached[-1] = upstream

    def value(a: Operand) -> Any:
        return np.float32(a.value) if isinstance(a, Imm) else operands[a.index] if isinstance(a, Arg) else values[a.index]

    for i in reversed(range(len(values))):
        step = program.steps[i]
        if not reached[i].any():
            continue
        for a, partial in zip(step.args, _partials(node, step, values[i], [value(a) for a in step.args]), strict=True):
            if not isinstance(a, Imm):
                into = found if isinstance(a, Arg) else reached
                share = reached[i] * np.where(reached[i] == 0, 0, partial)  # which may be infinite there
                into[a.index] = into[a.index] + summed_to(share, into[a.index].shape)
    return [g.astype(upstream.dtype, copy=False) for g in found]


def _partials(node: str, step: Step, result: Array, operands: list[Any]) -> tuple[Any, ...]:
    if step.fn == "cast":
        return (float(result.dtype.kind == operands[0].dtype.kind == "f"),)
    if step.fn not in PARTIALS:
        raise UsageError(f"node {node!r} computes {step.fn}, which has no gradient here", node=node)
    with np.errstate(all="ignore"):
        return PARTIALS[step.fn](result, *operands)


def summed_to(gradient: Array, shape: tuple[int, ...]) -> Array:
    """The gradient of an operand of `shape`, which was broadcast."""
    lead = gradient.ndim - len(shape)
    over = (*range(lead), *(lead + i for i, n in enumerate(shape) if n == 1 and gradient.shape[lead + i] != 1))
    return np.asarray(gradient.sum(axis=over, keepdims=True).reshape(shape))
