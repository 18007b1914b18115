"""ScatterND: a copy of a tensor with slices replaced or combined."""

from __future__ import annotations

from dataclasses import dataclass

from sparsec.compiler.errors import ModelError
from sparsec.compiler.onnx_rules import ImportContext, OnnxNode, onnx_rule
from sparsec.compiler.ops.base import Array, InArrays, InTypes, Op, need, register, value
from sparsec.compiler.ops.gather import check_indices, clamp_indices
from sparsec.compiler.ops.scatter import check_reduction, update
from sparsec.compiler.types import TensorType


@register
@dataclass(frozen=True, slots=True)
class ScatterND(Op):
    """y = x; y[indices[i..., 0], ..., indices[i..., k - 1], rest...] = updates[i..., rest...], or combined by `reduction`.

    `reduction` is none, add, mul, min or max. Where none meets equal indices, the last in row-major order stays.
    """

    reduction: str = "none"
    name = "ScatterND"
    summary = "slices replaced, or combined by add, mul, min, max"

    def infer(self, inputs: InTypes) -> tuple[TensorType, ...]:
        x, i, u = need(inputs, 0, "data"), check_indices(need(inputs, 1, "indices")), need(inputs, 2, "updates")
        check_reduction(self.reduction)
        k = i.shape[-1] if i.rank else 0
        if not 1 <= k <= x.rank or u.shape != (*i.shape[:-1], *x.shape[k:]) or u.dtype != x.dtype:
            raise ModelError(f"cannot scatter slices {u} by {i} into {x}")
        if 0 in x.shape[:k] and i.elements > 0:
            raise ModelError(f"cannot scatter slices into {x}: it is empty")
        return (TensorType(x.dtype, x.shape),)

    def evaluate(self, inputs: InArrays) -> tuple[Array, ...]:
        y, i = value(inputs, 0).copy(), value(inputs, 1)
        position = tuple(clamp_indices(i[..., j], y.shape[j]) for j in range(i.shape[-1]))
        update(y, position, value(inputs, 2), self.reduction)
        return (y,)


@onnx_rule("ScatterND", becomes="ScatterND", constraints="indices int64")
def _import_scatter_nd(ctx: ImportContext, node: OnnxNode) -> str:
    return ctx.emit(ScatterND(node.attr("reduction", "none")), *node.inputs[:3])
