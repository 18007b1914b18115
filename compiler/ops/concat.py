"""Concat along one axis."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsec.compiler.axes import Access, AxisMap, Dim, Iter, Offset
from sparsec.compiler.errors import ModelError
from sparsec.compiler.onnx_rules import ImportContext, OnnxNode, onnx_rule
from sparsec.compiler.ops.base import Array, InArrays, InTypes, Op, need, register, value
from sparsec.compiler.types import TensorType


@register
@dataclass(frozen=True, slots=True)
class Concat(Op):
    """The operands one after the other along `axis` (>= 0); all other extents and the element type agree."""

    axis: int
    name = "Concat"
    summary = "operands joined along one axis"

    def infer(self, inputs: InTypes) -> tuple[TensorType, ...]:
        first = need(inputs, 0, "part 0")
        parts = [need(inputs, i, f"part {i}") for i in range(len(inputs))]
        if not 0 <= self.axis < first.rank:
            raise ModelError(f"cannot concatenate {first} along axis {self.axis}")
        for t in parts:
            if t.dtype != first.dtype or t.rank != first.rank or self._rest(t) != self._rest(first):
                raise ModelError(f"cannot concatenate {first} and {t} along axis {self.axis}: all else must agree")
        total = sum(t.shape[self.axis] for t in parts)
        return (TensorType(first.dtype, (*first.shape[: self.axis], total, *first.shape[self.axis + 1 :])),)

    def _rest(self, t: TensorType) -> tuple[int, ...]:
        return (*t.shape[: self.axis], *t.shape[self.axis + 1 :])

    def evaluate(self, inputs: InArrays) -> tuple[Array, ...]:
        return (np.concatenate([value(inputs, i) for i in range(len(inputs))], axis=self.axis),)

    def axes(self, inputs: InTypes) -> AxisMap:
        out = self.infer(inputs)[0].shape
        dims = tuple(Dim(f"d{i}", n) for i, n in enumerate(out))
        line: tuple[Access, ...] = tuple(Iter(d.name) for d in dims)
        start, parts = 0, []
        for i in range(len(inputs)):
            parts.append((*line[: self.axis], Offset(f"d{self.axis}", start), *line[self.axis + 1 :]))
            start += need(inputs, i, f"part {i}").shape[self.axis]
        return AxisMap(dims, tuple(parts), (line,))


@onnx_rule("Concat", becomes="Concat")
def _import_concat(ctx: ImportContext, node: OnnxNode) -> str:
    axis = int(node.attr("axis", 1))
    axis += ctx.type(node.inputs[0]).rank if axis < 0 else 0
    return node.inputs[0] if len(node.inputs) == 1 else ctx.emit(Concat(axis), *node.inputs)
