"""Products of two computed tensors: H products [M, K] x [K, N] are a convolution of H groups whose weights lie in DDR.

Data are an image of H x K channels and M positions, results one of H x N channels, each head's channels in blocks of their own.
The second operand is an image, too. Its 8 positions of 8 channels are 64 elements one behind the other, and a block of weights:
as [input][output] where inputs are its positions (probabilities by values), as [output][input] where outputs are (queries by
keys), which cores take `transposed`. What else a chunk has, its control, bias and steps (its `frame`), is constant.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sparsec.backends.aie.lower.geometry import BLOCK, heads_of, plane
from sparsec.compiler.dtypes import DType
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.ops.matmul import MatMul

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Computed:
    """Weights out of a tensor `value`: `inner` x `outer` blocks of each of the `heads`, from the `first` on. `macs` are products
    of one head; its image has as many `rows` as whole blocks of positions reach."""

    value: str
    heads: int
    inner: int
    outer: int
    transposed: bool
    macs: int
    rows: int
    first: int = 0

    def part(self, first: int, end: int) -> Computed:
        """Heads [first, end)."""
        return replace(self, heads=end - first, first=self.first + first)

    def pattern(self, dtype: Any) -> Array:
        """[output blocks, 8, input blocks, 8, 1, 1] with ones where blocks are."""
        found = np.zeros((self.heads, self.outer, BLOCK, self.heads, self.inner, BLOCK, 1, 1), dtype)
        for h in range(self.heads):
            found[h, :, :, h] = 1
        return found.reshape(self.heads * self.outer, BLOCK, self.heads * self.inner, BLOCK, 1, 1)


def computed_of(graph: Graph, node: Node) -> Computed | str:
    """The second operand of a MatMul as weights; or why it is none, as a clause."""
    op = node.op
    assert isinstance(op, MatMul)
    x, w = (graph.types[v] for v in node.inputs[:2])
    if any(v in graph.constants for v in node.inputs[:2]):
        return "its data are constant"
    if x.dtype is not DType.BF16 or w.dtype is not DType.BF16:
        return f"it multiplies {x.dtype.value} by computed {w.dtype.value}, and the array computed tensors of bfloat16"
    if op.trans_a or x.rank != w.rank or x.rank not in (2, 3) or x.shape[:-2] != w.shape[:-2] or 0 in (*x.shape, *w.shape):
        turned = " transposed" if op.trans_a else ""
        return f"it multiplies {list(x.shape)}{turned} by {list(w.shape)}, not as many matrices by as many"
    n, k = w.shape[-2:] if op.trans_b else w.shape[-1:-3:-1]
    extent = plane(w)
    assert extent is not None
    rows = -(-(-(-w.shape[-2] // BLOCK) * BLOCK) // extent[2])
    return Computed(node.inputs[1], heads_of(x), -(-k // BLOCK), -(-n // BLOCK), op.trans_b, x.shape[-2] * k * n, rows)
