"""Relayout: the same value in another storage order. Layout assignment puts these in; nothing else needs them."""

from __future__ import annotations

from dataclasses import dataclass

from sparsec.compiler.axes import AxisMap, Dim, Iter
from sparsec.compiler.layout import Layout
from sparsec.compiler.ops.base import Array, InArrays, InTypes, Op, need, register, value
from sparsec.compiler.types import TensorType


@register
@dataclass(frozen=True, slots=True)
class Relayout(Op):
    """y = x, stored as `layout`."""

    layout: Layout
    name = "Relayout"
    summary = "conversion between storage orders (not an ONNX operator)"

    def infer(self, inputs: InTypes) -> tuple[TensorType, ...]:
        return (need(inputs, 0, "data").with_layout(self.layout),)

    def evaluate(self, inputs: InArrays) -> tuple[Array, ...]:
        return (value(inputs, 0),)

    def axes(self, inputs: InTypes) -> AxisMap:
        shape = need(inputs, 0, "data").shape
        access = tuple(Iter(f"d{i}") for i in range(len(shape)))
        return AxisMap(tuple(Dim(f"d{i}", n) for i, n in enumerate(shape)), (access,), (access,))
