"""CumSum: running sums along one axis."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsec.compiler.axes import FIXED, Access, AxisMap, Dim, Iter
from sparsec.compiler.errors import ModelError
from sparsec.compiler.onnx_rules import ImportContext, OnnxNode, onnx_rule
from sparsec.compiler.ops.base import Array, InArrays, InTypes, Op, need, register, value
from sparsec.compiler.ops.slice import positive_axis
from sparsec.compiler.types import TensorType


def line_axes(shape: tuple[int, ...], axis: int, outputs: int = 1) -> AxisMap:
    """The map of ops that work on each line along `axis`, whose order matters, alone."""
    dims = tuple(Dim(f"d{i}", n) for i, n in enumerate(shape) if i != axis)
    access: tuple[Access, ...] = tuple(FIXED if i == axis else Iter(f"d{i}") for i in range(len(shape)))
    return AxisMap(dims, (access,), (access,) * outputs)


@register
@dataclass(frozen=True, slots=True)
class CumSum(Op):
    """y[i] = sum of x[j] over j <= i along `axis` (>= 0); `exclusive`: j < i; `reverse`: from the end."""

    axis: int
    exclusive: bool = False
    reverse: bool = False
    name = "CumSum"
    summary = "running sums along one axis"

    def infer(self, inputs: InTypes) -> tuple[TensorType, ...]:
        x = need(inputs, 0, "data")
        if not 0 <= self.axis < x.rank:
            raise ModelError(f"cannot sum {x} along axis {self.axis}")
        return (TensorType(x.dtype, x.shape),)

    def evaluate(self, inputs: InArrays) -> tuple[Array, ...]:
        x = value(inputs, 0)
        line = np.flip(x, self.axis) if self.reverse else x
        y = np.cumsum(line, axis=self.axis, dtype=x.dtype)
        if self.exclusive:
            y = np.roll(y, 1, axis=self.axis)
            y[(slice(None),) * self.axis + (slice(0, 1),)] = 0
        return (np.ascontiguousarray(np.flip(y, self.axis) if self.reverse else y),)

    def axes(self, inputs: InTypes) -> AxisMap:
        return line_axes(need(inputs, 0, "data").shape, self.axis)


@onnx_rule("CumSum", becomes="CumSum", constraints="axis constant")
def _import_cumsum(ctx: ImportContext, node: OnnxNode) -> str:
    axis = positive_axis(int(node.need_const(ctx, 1, "axis").reshape(())), ctx.type(node.inputs[0]).rank)
    return ctx.emit(CumSum(axis, bool(node.attr("exclusive", 0)), bool(node.attr("reverse", 0))), node.inputs[0])
