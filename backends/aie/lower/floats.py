"""What the array does with float32 sums of bfloat16 products: add a bias and a residual, cut to bounds, round to bfloat16.

The bias is added first, so that the sums are the interpreter's in another order; `tolerance` says how far that may be.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sparsec.backends.aie.lower.shifts import Shifts
from sparsec.compiler.dtypes import DType
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.matmul import MatMul
from sparsec.passes.common.chains import chain_of

Array = np.ndarray[Any, Any]


def floats_of(graph: Graph, node: Node) -> Shifts | str:
    """How the array finishes the node's float32 sums; or why it cannot, as a clause."""
    op, y = node.op, graph.types[node.output]
    assert isinstance(op, Conv | MatMul)
    if y.dtype is not DType.BF16:
        return f"its result is {y.dtype.value}, and the array stores bfloat16 where it multiplies that"
    chain = chain_of(graph, node)
    if chain.stopped is not None:
        return f"its epilogue's step {chain.stopped} is none that the array has behind sums of bfloat16"
    if chain.at < len(op.epilogue.steps) - 1:
        return "it does more to its result than to round it"
    return Shifts(chain.bias, 0, chain.residual, bounds=chain.bounds, divisor=chain.divisor)


def divided(weights: Array, divisor: float) -> Array:
    """Weights [blocks, 8, 1, 1, ...] over a number, as sums of two of bfloat16 along the third axis.

    They are off by 2^-18 of each at most, as both round to nearest with 8 bits; where the first is exact, it is the only one.
    """
    exact = weights.astype(np.float64) / divisor
    first = exact.astype(weights.dtype)
    second = (exact - first.astype(np.float64)).astype(weights.dtype)
    return np.concatenate((first, second), axis=2) if second.any() else first
