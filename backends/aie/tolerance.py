"""How far the array's bfloat16 results may be from the interpreter's: both round the same products' float32 sums to bfloat16.

Products of bfloat16 are exact in float32. A sum of n of them in float32 is off by no more than g = n u / (1 - n u) of the sum of
their absolute values, S, in any order, u = 2^-24 (Higham, Accuracy and Stability of Numerical Algorithms, 2nd edition, section
4.2). So two orders differ by 2 g S. Bounds keep that; rounding to bfloat16 adds 2^-8 of each value at most. A mean is
divided behind its sum by the interpreter, which rounds once more; the array multiplies by two summands of bfloat16 that together
are 2^-18 off the reciprocal at most, which makes twice as many products. Maxima are exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.ops.pool import Pool
from sparsec.compiler.scalar import Program
from sparsec.passes.common.chains import chain_of

Array = np.ndarray[Any, Any]
_UNIT, _ROUNDING = 2.0**-24, 2.0**-8  # of float32's sums, and of bfloat16
_SPLIT = 2.0**-18  # of a reciprocal as two of bfloat16
_LEAST = 2.0**-125  # below float32's and bfloat16's normal numbers, rounding is absolute


@dataclass(frozen=True)
class Comparison:
    """A layer's results beside the interpreter's for the same data: the largest difference, the largest value, the share of
    results that differ at all, and the largest difference as a share of what is allowed for its element."""

    node: str
    difference: float
    largest: float
    differing: float
    share: float

    @property
    def close(self) -> bool:
        """Whether every element is within what is allowed."""
        return self.share <= 1


def compare(graph: Graph, node: Node, values: Mapping[str, Array], found: Array) -> Comparison:
    """Compare `found`, the result of a product of bfloat16, with the interpreter's of the node's inputs in `values`."""
    inputs = [values[v] if v in values else graph.constants[v] for v in node.inputs]
    (wanted,) = node.op.evaluate(inputs)
    allowed = allowance(graph, node, inputs, wanted)
    exact = wanted.astype(np.float64)
    with np.errstate(invalid="ignore"):
        off = np.where(found == wanted, 0.0, abs(found.astype(np.float64) - exact))
    off = np.where(np.isnan(off), np.inf, off)
    share = float((off / allowed).max())
    return Comparison(node.name, float(off.max()), float(abs(exact).max()), float((off > 0).mean()), share)


def allowance(graph: Graph, node: Node, inputs: list[Array], wanted: Array) -> Array:
    """float64 of the result's shape: what may lie between the array's result and the interpreter's, `wanted`."""
    op = node.op
    if isinstance(op, Pool):
        return np.full(wanted.shape, _LEAST)
    assert isinstance(op, Conv | MatMul)
    bare = replace(op, epilogue=Program())
    (total,) = bare.evaluate([abs(inputs[0]), abs(inputs[1])])
    size = total.astype(np.float64)
    w, chain = inputs[1], chain_of(graph, node)
    size /= chain.divisor
    split = chain.divisor != 1
    reciprocal = _SPLIT * size if split else 0.0
    bias = abs(chain.bias).astype(np.float64)
    size += bias[:, None, None] if isinstance(op, Conv) else bias
    if chain.residual is not None:
        size += abs(inputs[chain.residual].astype(np.float64))
    terms = 2 + split + (1 + split) * (prod(w.shape[1:]) if isinstance(op, Conv) else w.shape[-1 if op.trans_b else -2])
    sums = 2 * terms * _UNIT / (1 - terms * _UNIT) * size + reciprocal
    result: Array = sums + _ROUNDING * (2 * abs(wanted.astype(np.float64)) + sums) + _LEAST
    return result
