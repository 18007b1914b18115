"""Tile: a tensor repeated whole along its dimensions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsec.compiler.axes import Access, AxisMap, Dim, Iter, Merged
from sparsec.compiler.errors import ModelError
from sparsec.compiler.onnx_rules import ImportContext, OnnxNode, onnx_rule
from sparsec.compiler.ops.base import Array, InArrays, InTypes, Op, need, register, value
from sparsec.compiler.ops.expand import Expand, extents
from sparsec.compiler.types import TensorType


@register
@dataclass(frozen=True, slots=True)
class Tile(Op):
    """y[i...] = x[i... modulo x's extents]; y's extents are x's times `repeats`."""

    repeats: tuple[int, ...]
    name = "Tile"
    summary = "the whole tensor repeated along its dimensions"

    def infer(self, inputs: InTypes) -> tuple[TensorType, ...]:
        x = need(inputs, 0, "data")
        if len(self.repeats) != x.rank or any(r < 0 for r in self.repeats):
            raise ModelError(f"repeats {list(self.repeats)} do not fit {x}")
        return (TensorType(x.dtype, tuple(n * r for n, r in zip(x.shape, self.repeats, strict=True))),)

    def evaluate(self, inputs: InArrays) -> tuple[Array, ...]:
        return (np.tile(value(inputs, 0), self.repeats),)

    def axes(self, inputs: InTypes) -> AxisMap:
        x = need(inputs, 0, "data")
        dims, out = [], []
        for i, (n, r) in enumerate(zip(x.shape, self.repeats, strict=True)):
            dims.append(Dim(f"d{i}", n))
            access: Access = Iter(f"d{i}")
            if r != 1:
                dims.append(Dim(f"r{i}", r))
                access = Merged((f"r{i}", f"d{i}"))
            out.append(access)
        return AxisMap(tuple(dims), (tuple(Iter(f"d{i}") for i in range(x.rank)),), (tuple(out),))


@onnx_rule("Tile", becomes="Tile, Expand", constraints="repeats constant")
def _import_tile(ctx: ImportContext, node: OnnxNode) -> str:
    x, repeats = ctx.type(node.inputs[0]), extents(node.need_const(ctx, 1, "repeats"))
    if len(repeats) != x.rank:
        raise ModelError(f"repeats {list(repeats)} do not fit {x}")
    if all(r == 1 for r in repeats):
        return node.inputs[0]
    if all(n == 1 or r == 1 for n, r in zip(x.shape, repeats, strict=True)):
        return ctx.emit(Expand(tuple(n * r for n, r in zip(x.shape, repeats, strict=True))), node.inputs[0])
    return ctx.emit(Tile(repeats), node.inputs[0])
