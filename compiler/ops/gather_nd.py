"""GatherND: slices of a tensor chosen by tuples of indices."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from sparsec.compiler.errors import ModelError
from sparsec.compiler.onnx_rules import ImportContext, OnnxNode, onnx_rule
from sparsec.compiler.ops.base import Array, InArrays, InTypes, Op, need, register, value
from sparsec.compiler.ops.gather import check_indices, clamp_indices
from sparsec.compiler.types import TensorType


@register
@dataclass(frozen=True, slots=True)
class GatherND(Op):
    """y[b..., i..., rest...] = x[b..., indices[b..., i..., 0], ..., indices[b..., i..., k - 1], rest...].

    The first `batch_dims` dimensions b of both operands are the same. Indices are int32 or int64, clamped as Gather's are.
    """

    batch_dims: int = 0
    name = "GatherND"
    summary = "slices chosen by tuples of indices"

    def infer(self, inputs: InTypes) -> tuple[TensorType, ...]:
        x, i = need(inputs, 0, "data"), check_indices(need(inputs, 1, "indices"))
        b = self.batch_dims
        k = i.shape[-1] if i.rank else 0
        if not 0 <= b < min(x.rank, i.rank) or x.shape[:b] != i.shape[:b] or not 1 <= k <= x.rank - b:
            raise ModelError(f"cannot gather slices of {x} by {i} with {b} batch dimensions")
        return (TensorType(x.dtype, (*i.shape[:-1], *x.shape[b + k :])),)

    def evaluate(self, inputs: InArrays) -> tuple[Array, ...]:
        x, i = value(inputs, 0), value(inputs, 1)
        b, k = self.batch_dims, i.shape[-1]
        batch = prod(x.shape[:b])
        flat = x.reshape(batch, *x.shape[b:])
        tuples = i.reshape(batch, prod(i.shape[b:-1]), k)
        position = tuple(clamp_indices(tuples[..., j], x.shape[b + j]) for j in range(k))
        return (flat[(np.arange(batch)[:, None], *position)].reshape((*i.shape[:-1], *x.shape[b + k :])),)


@onnx_rule("GatherND", becomes="GatherND", constraints="indices int64")
def _import_gather_nd(ctx: ImportContext, node: OnnxNode) -> str:
    return ctx.emit(GatherND(int(node.attr("batch_dims", 0))), *node.inputs[:2])
