"""ArgReduce: the position of the largest or smallest element along an axis."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsec.compiler.axes import FIXED, Access, AxisMap, Dim, Iter
from sparsec.compiler.dtypes import DType
from sparsec.compiler.errors import ModelError
from sparsec.compiler.onnx_rules import ImportContext, OnnxNode, onnx_rule
from sparsec.compiler.ops.base import Array, InArrays, InTypes, Op, need, normal_axis, register, value
from sparsec.compiler.ops.map import emit_map
from sparsec.compiler.types import TensorType


@register
@dataclass(frozen=True, slots=True)
class ArgReduce(Op):
    """y = index (int64) of the max or min (`kind`) of x along `axis`: of the first such element, or with `last` of the last."""

    kind: str
    axis: int
    keepdims: bool = True
    last: bool = False
    name = "ArgReduce"
    summary = "index of the largest or smallest element along one axis"

    def infer(self, inputs: InTypes) -> tuple[TensorType, ...]:
        x = need(inputs, 0, "data")
        if self.kind not in ("max", "min") or not 0 <= self.axis < x.rank or x.shape[self.axis] == 0:
            raise ModelError(f"arg {self.kind} along axis {self.axis} is not defined for {x}")
        shape = (*x.shape[: self.axis], *((1,) if self.keepdims else ()), *x.shape[self.axis + 1 :])
        return (TensorType(DType.I64, shape),)

    def evaluate(self, inputs: InArrays) -> tuple[Array, ...]:
        x = value(inputs, 0)
        find = np.argmax if self.kind == "max" else np.argmin
        if not self.last:
            found = find(x, axis=self.axis)
        else:
            found = x.shape[self.axis] - 1 - find(np.flip(x, self.axis), axis=self.axis)
        found = np.asarray(found, dtype=np.int64)
        return (np.expand_dims(found, self.axis) if self.keepdims else found,)

    def axes(self, inputs: InTypes) -> AxisMap:
        x = need(inputs, 0, "data")
        dims = tuple(Dim(f"d{i}", n) for i, n in enumerate(x.shape) if i != self.axis)
        line: tuple[Access, ...] = tuple(FIXED if i == self.axis else Iter(f"d{i}") for i in range(x.rank))
        return AxisMap(dims, (line,), (line if self.keepdims else (*line[: self.axis], *line[self.axis + 1 :]),))


@onnx_rule("ArgMax", "ArgMin", becomes="ArgReduce")
def _import_arg(ctx: ImportContext, node: OnnxNode) -> str:
    rank, axis = ctx.type(node.inputs[0]).rank, int(node.attr("axis", 0))
    kind = "max" if node.op_type == "ArgMax" else "min"
    op = ArgReduce(kind, axis + rank if axis < 0 else axis, node.attr("keepdims", 1) == 1, node.attr("select_last_index", 0) == 1)
    return ctx.emit(op, node.inputs[0])


@onnx_rule("Hardmax", becomes="ArgReduce, Map")
def _import_hardmax(ctx: ImportContext, node: OnnxNode) -> str:
    """One where the first maximum along the axis stands, else zero."""
    x = ctx.type(node.inputs[0])
    axis = normal_axis(int(node.attr("axis", -1)), x.rank)
    where = ctx.emit(ArgReduce("max", axis), node.inputs[0])
    positions = ctx.constant(np.arange(x.shape[axis], dtype=np.int64).reshape(-1, *[1] * (x.rank - 1 - axis)))
    return emit_map(ctx, f"eq(a0,a1);cast.{x.dtype.value}(t0)", where, positions)
