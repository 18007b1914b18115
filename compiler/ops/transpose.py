"""Transpose, and the operators that are a transposition between two reshapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparsec.compiler.axes import Access, AxisMap, Dim, Iter
from sparsec.compiler.errors import ModelError
from sparsec.compiler.onnx_rules import ImportContext, OnnxNode, onnx_rule
from sparsec.compiler.ops.base import Array, InArrays, InTypes, Op, need, register, value
from sparsec.compiler.ops.reshape import Reshape
from sparsec.compiler.types import TensorType


@register
@dataclass(frozen=True, slots=True)
class Transpose(Op):
    """y's dimension i is x's dimension `perm[i]`."""

    perm: tuple[int, ...]
    name = "Transpose"
    summary = "dimensions in another order"

    def infer(self, inputs: InTypes) -> tuple[TensorType, ...]:
        x = need(inputs, 0, "data")
        if sorted(self.perm) != list(range(x.rank)):
            raise ModelError(f"perm {list(self.perm)} does not permute the dimensions of {x}")
        return (TensorType(x.dtype, tuple(x.shape[p] for p in self.perm)),)

    def evaluate(self, inputs: InArrays) -> tuple[Array, ...]:
        return (np.asarray(np.transpose(value(inputs, 0), self.perm), order="C"),)

    def axes(self, inputs: InTypes) -> AxisMap:
        x = need(inputs, 0, "data")
        dims = tuple(Dim(f"d{i}", n) for i, n in enumerate(x.shape))
        line: tuple[Access, ...] = tuple(Iter(d.name) for d in dims)
        return AxisMap(dims, (line,), (tuple(line[p] for p in self.perm),))


def emit_shuffle(ctx: ImportContext, x: str, split: Sequence[int], perm: Sequence[int], shape: Sequence[int]) -> str:
    """Emit reshape to `split`, transposition by `perm`, reshape to `shape`."""
    return ctx.emit(Reshape(tuple(shape)), ctx.emit(Transpose(tuple(perm)), ctx.emit(Reshape(tuple(split)), x)))


@onnx_rule("Transpose", becomes="Transpose")
def _import_transpose(ctx: ImportContext, node: OnnxNode) -> str:
    perm = tuple(node.attr("perm", range(ctx.type(node.inputs[0]).rank)[::-1]))
    return ctx.emit(Transpose(perm), node.inputs[0])


@onnx_rule("DepthToSpace", becomes="Reshape, Transpose")
def _import_depth_to_space(ctx: ImportContext, node: OnnxNode) -> str:
    n, c, h, w = ctx.type(node.inputs[0]).shape
    b, mode = int(node.attr("blocksize")), node.attr("mode", "DCR")
    if b < 1 or c % (b * b) or mode not in ("DCR", "CRD"):
        raise node.refuse(f"blocksize {b} and mode {mode!r} do not fit {c} channels: expected a divisor, DCR or CRD")
    rest, shape = c // (b * b), (n, c // (b * b), h * b, w * b)
    if mode == "DCR":
        return emit_shuffle(ctx, node.inputs[0], (n, b, b, rest, h, w), (0, 3, 4, 1, 5, 2), shape)
    return emit_shuffle(ctx, node.inputs[0], (n, rest, b, b, h, w), (0, 1, 4, 2, 5, 3), shape)


@onnx_rule("SpaceToDepth", becomes="Reshape, Transpose")
def _import_space_to_depth(ctx: ImportContext, node: OnnxNode) -> str:
    n, c, h, w = ctx.type(node.inputs[0]).shape
    b, mode = int(node.attr("blocksize")), node.attr("mode", "DCR")
    if b < 1 or h % b or w % b or mode not in ("DCR", "CRD"):
        raise node.refuse(f"blocksize {b} and mode {mode!r} do not fit extents {h} x {w}: expected a divisor, DCR or CRD")
    split, shape = (n, c, h // b, b, w // b, b), (n, c * b * b, h // b, w // b)
    return emit_shuffle(ctx, node.inputs[0], split, (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4), shape)
