"""Softmax and LogSoftmax along one axis."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsec.compiler.axes import Access, AxisMap, Dim, DimKind, Iter
from sparsec.compiler.errors import ModelError
from sparsec.compiler.onnx_rules import ImportContext, OnnxNode, onnx_rule
from sparsec.compiler.ops.base import Array, InArrays, InTypes, Op, need, register, value
from sparsec.compiler.types import TensorType


@register
@dataclass(frozen=True, slots=True)
class Softmax(Op):
    """y = exp(x - max) / sum(exp(x - max)) along `axis` (>= 0), or its logarithm with `log`.

    Floating point; 16-bit floats are computed in float32.
    """

    axis: int
    log: bool = False
    name = "Softmax"
    summary = "softmax or its logarithm along one axis"

    def infer(self, inputs: InTypes) -> tuple[TensorType, ...]:
        x = need(inputs, 0, "data")
        if not 0 <= self.axis < x.rank or not x.dtype.is_float:
            raise ModelError(f"softmax along axis {self.axis} needs floating-point data with such an axis, not {x}")
        return (TensorType(x.dtype, x.shape),)

    def evaluate(self, inputs: InArrays) -> tuple[Array, ...]:
        x = value(inputs, 0)
        if x.size == 0:
            return (x.copy(),)
        with np.errstate(all="ignore"):
            wide = x.astype(np.float32) if x.dtype.itemsize < 4 else x
            shifted = wide - wide.max(axis=self.axis, keepdims=True)
            e = np.exp(shifted)
            total = e.sum(axis=self.axis, keepdims=True)
            y = shifted - np.log(total) if self.log else e / total
        return (y.astype(x.dtype, copy=False),)

    def axes(self, inputs: InTypes) -> AxisMap:
        x = need(inputs, 0, "data")
        kinds = [DimKind.NORMALISED if i == self.axis else DimKind.PARALLEL for i in range(x.rank)]
        dims = tuple(Dim(f"d{i}", n, k) for i, (n, k) in enumerate(zip(x.shape, kinds, strict=True)))
        line: tuple[Access, ...] = tuple(Iter(d.name) for d in dims)
        return AxisMap(dims, (line,), (line,))


@onnx_rule("Softmax", "LogSoftmax", becomes="Softmax", constraints="floating point")
def _import_softmax(ctx: ImportContext, node: OnnxNode) -> str:
    rank, axis = ctx.type(node.inputs[0]).rank, int(node.attr("axis", -1))
    return ctx.emit(Softmax(axis + rank if axis < 0 else axis, node.op_type == "LogSoftmax"), node.inputs[0])
