"""Gather: slices of a tensor along one axis, chosen by integer indices (embedding tables, channel selection)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsec.compiler.axes import FIXED, Access, AxisMap, Dim, Iter
from sparsec.compiler.dtypes import DType
from sparsec.compiler.errors import ModelError
from sparsec.compiler.onnx_rules import ImportContext, OnnxNode, onnx_rule
from sparsec.compiler.ops.base import Array, InArrays, InTypes, Op, need, register, value
from sparsec.compiler.ops.reshape import Reshape
from sparsec.compiler.ops.slice import emit_slice, positive_axis
from sparsec.compiler.types import TensorType


def check_indices(t: TensorType) -> TensorType:
    """The type of an index operand: int32 or int64."""
    if t.dtype not in (DType.I32, DType.I64):
        raise ModelError(f"indices must be int32 or int64, not {t}")
    return t


def clamp_indices(indices: Array, extent: int) -> Array:
    """Indices as positions: negative ones count from the end, and what is out of range goes to the nearest end.

    ONNX leaves out-of-range indices undefined; clamping keeps compiled code inside its buffers.
    """
    wide = indices.astype(np.int64)
    return np.asarray(np.clip(np.where(wide < 0, wide + extent, wide), 0, max(extent - 1, 0)))


def check_range(indices: Array, x: TensorType, axis: int) -> None:
    """Raise ModelError when constant indices reach outside of `axis` of `x`."""
    n = x.shape[axis]
    if indices.size and not (-n <= int(indices.min()) and int(indices.max()) < n):
        raise ModelError(f"indices from {indices.min()} to {indices.max()} reach outside of axis {axis} of {x}")


@register
@dataclass(frozen=True, slots=True)
class Gather(Op):
    """y[a..., i..., b...] = x[a..., indices[i...], b...] with `axis` (>= 0) between a and b.

    Indices are int32 or int64; negative ones count from the end, those out of range are clamped.
    """

    axis: int
    name = "Gather"
    summary = "slices along one axis chosen by integer indices"

    def infer(self, inputs: InTypes) -> tuple[TensorType, ...]:
        x, i = need(inputs, 0, "data"), check_indices(need(inputs, 1, "indices"))
        if not 0 <= self.axis < x.rank or (x.shape[self.axis] == 0 and i.elements > 0):
            raise ModelError(f"cannot gather {i} along axis {self.axis} of {x}")
        return (TensorType(x.dtype, (*x.shape[: self.axis], *i.shape, *x.shape[self.axis + 1 :])),)

    def evaluate(self, inputs: InArrays) -> tuple[Array, ...]:
        x = value(inputs, 0)
        return (np.take(x, clamp_indices(value(inputs, 1), x.shape[self.axis]), axis=self.axis),)

    def axes(self, inputs: InTypes) -> AxisMap:
        x, i = need(inputs, 0, "data"), need(inputs, 1, "indices")
        kept = [(f"d{k}", n) for k, n in enumerate(x.shape) if k != self.axis]
        picks = [(f"i{k}", n) for k, n in enumerate(i.shape)]
        data: list[Access] = [FIXED if k == self.axis else Iter(f"d{k}") for k in range(x.rank)]
        chosen: list[Access] = [Iter(n) for n, _ in picks]
        dims = tuple(Dim(n, e) for n, e in (*kept, *picks))
        return AxisMap(dims, (tuple(data), tuple(chosen)), ((*data[: self.axis], *chosen, *data[self.axis + 1 :]),))


@onnx_rule("Gather", becomes="Gather, Slice", constraints="indices int32 or int64")
def _import_gather(ctx: ImportContext, node: OnnxNode) -> str:
    """A constant index, or constant indices in even steps, take a Slice, which moves no data where it can be a view."""
    x, i = ctx.type(node.inputs[0]), check_indices(ctx.type(node.inputs[1]))
    axis = positive_axis(int(node.attr("axis", 0)), x.rank)
    array = ctx.const(node.inputs[1])
    if array is not None:
        check_range(array, x, axis)
    progression = None if array is None else _progression(clamp_indices(array, x.shape[axis]))
    if progression is None:
        return ctx.emit(Gather(axis), *node.inputs[:2])
    start, step = progression
    part = emit_slice(ctx, node.inputs[0], axis, start, i.elements, step)
    shape = (*x.shape[:axis], *i.shape, *x.shape[axis + 1 :])
    return part if ctx.type(part).shape == shape else ctx.emit(Reshape(shape), part)


def _progression(indices: Array) -> tuple[int, int] | None:
    """(start, step) when the indices are start, start + step, ... with a step that is not 0."""
    flat = indices.reshape(-1)
    if flat.size == 0:
        return None
    step = int(flat[1] - flat[0]) if flat.size > 1 else 1
    if step == 0 or np.any(np.diff(flat) != step):
        return None
    return int(flat[0]), step
