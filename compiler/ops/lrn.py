"""LRN: local response normalisation across neighbouring channels (Krizhevsky et al., 2012)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsec.compiler.axes import FIXED, Access, AxisMap, Dim, Iter
from sparsec.compiler.errors import ModelError
from sparsec.compiler.onnx_rules import ImportContext, OnnxNode, onnx_rule
from sparsec.compiler.ops.base import Array, InArrays, InTypes, Op, need, register, value
from sparsec.compiler.types import TensorType


@register
@dataclass(frozen=True, slots=True)
class LRN(Op):
    """y = x / (bias + alpha / size * s) ** beta, s the sum of squares over `size` channels around each (fewer at the ends).

    Data [N, C, *spatial], floating point. The window of channel c is c - (size - 1) // 2 to c + size // 2.
    """

    size: int
    alpha: float
    beta: float
    bias: float
    name = "LRN"
    summary = "local response normalisation across channels"

    def infer(self, inputs: InTypes) -> tuple[TensorType, ...]:
        x = need(inputs, 0, "data")
        if x.rank < 2 or not x.dtype.is_float or self.size < 1:
            raise ModelError(f"LRN over {self.size} channels needs floating-point data of rank 2 or more, not {x}")
        return (TensorType(x.dtype, x.shape),)

    def evaluate(self, inputs: InArrays) -> tuple[Array, ...]:
        x = value(inputs, 0)
        if x.size == 0:
            return (x.copy(),)
        return ((x / self.base(x) ** x.dtype.type(self.beta)).astype(x.dtype, copy=False),)

    def base(self, x: Array) -> Array:
        """What x is divided by, before its power."""
        return np.asarray(x.dtype.type(self.bias) + x.dtype.type(self.alpha / self.size) * self.around(x * x))

    def around(self, x: Array, *, turned: bool = False) -> Array:
        """Sums over every channel's window, or (`turned`) over the channels whose windows it is in."""
        before, after = (min(n, x.shape[1]) for n in ((self.size - 1) // 2, self.size // 2))
        margins = (after, before) if turned else (before, after)
        padded = np.pad(x, [(0, 0), margins, *[(0, 0)] * (x.ndim - 2)])
        return np.asarray(np.lib.stride_tricks.sliding_window_view(padded, before + after + 1, axis=1).sum(axis=-1))

    def axes(self, inputs: InTypes) -> AxisMap:
        x = need(inputs, 0, "data")
        dims = tuple(Dim(f"d{i}", n) for i, n in enumerate(x.shape) if i != 1)
        line: tuple[Access, ...] = tuple(FIXED if i == 1 else Iter(f"d{i}") for i in range(x.rank))
        return AxisMap(dims, (line,), (line,))


@onnx_rule("LRN", becomes="LRN")
def _import_lrn(ctx: ImportContext, node: OnnxNode) -> str:
    alpha, beta, bias = (float(node.attr(k, d)) for k, d in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0)))
    return ctx.emit(LRN(int(node.attr("size")), alpha, beta, bias), node.inputs[0])
