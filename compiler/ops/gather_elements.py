"""GatherElements: one element of a line chosen for every output element."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsec.compiler.errors import ModelError
from sparsec.compiler.onnx_rules import ImportContext, OnnxNode, onnx_rule
from sparsec.compiler.ops.base import Array, InArrays, InTypes, Op, need, register, value
from sparsec.compiler.ops.gather import check_indices, clamp_indices
from sparsec.compiler.ops.slice import positive_axis
from sparsec.compiler.types import TensorType


@register
@dataclass(frozen=True, slots=True)
class GatherElements(Op):
    """y[i...] = x[i... with position `axis` (>= 0) replaced by indices[i...]].

    Indices are int32 or int64, of x's rank, no larger than x in the other dimensions; clamped as Gather's are.
    """

    axis: int
    name = "GatherElements"
    summary = "one element of a line for every output element"

    def infer(self, inputs: InTypes) -> tuple[TensorType, ...]:
        x, i = need(inputs, 0, "data"), check_indices(need(inputs, 1, "indices"))
        others = [k for k in range(x.rank) if k != self.axis]
        if i.rank != x.rank or not 0 <= self.axis < x.rank or any(i.shape[k] > x.shape[k] for k in others):
            raise ModelError(f"cannot gather elements of {x} by {i} along axis {self.axis}")
        if x.shape[self.axis] == 0 and i.elements > 0:
            raise ModelError(f"cannot gather elements of {x}: axis {self.axis} is empty")
        return (TensorType(x.dtype, i.shape),)

    def evaluate(self, inputs: InArrays) -> tuple[Array, ...]:
        x, i = value(inputs, 0), value(inputs, 1)
        box = tuple(slice(None) if k == self.axis else slice(0, n) for k, n in enumerate(i.shape))
        return (np.take_along_axis(x[box], clamp_indices(i, x.shape[self.axis]), axis=self.axis),)


@onnx_rule("GatherElements", becomes="GatherElements", constraints="indices int32 or int64")
def _import_gather_elements(ctx: ImportContext, node: OnnxNode) -> str:
    axis = positive_axis(int(node.attr("axis", 0)), ctx.type(node.inputs[0]).rank)
    return ctx.emit(GatherElements(axis), *node.inputs[:2])
