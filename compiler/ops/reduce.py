"""Reduce: sum, mean, max, min or product over a set of axes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsec.compiler.axes import FIXED, Access, AxisMap, Dim, DimKind, Iter
from sparsec.compiler.dtypes import DType
from sparsec.compiler.errors import ModelError
from sparsec.compiler.onnx_rules import ImportContext, OnnxNode, onnx_rule
from sparsec.compiler.ops.base import Array, InArrays, InTypes, Op, need, register, value
from sparsec.compiler.ops.map import emit_map
from sparsec.compiler.ops.reshape import Reshape
from sparsec.compiler.types import TensorType

KINDS = ("sum", "mean", "max", "min", "prod")


@register
@dataclass(frozen=True, slots=True)
class Reduce(Op):
    """y = kind of x over the axes `over` (ascending, >= 0), which stay with extent 1 under `keepdims` and else vanish.

    `kind` is one of sum, mean, max, min, prod. Over no elements a sum is 0, a product 1, a maximum the type's lowest value.
    """

    kind: str
    over: tuple[int, ...]
    keepdims: bool = True
    name = "Reduce"
    summary = "sum, mean, max, min or product over axes"

    def infer(self, inputs: InTypes) -> tuple[TensorType, ...]:
        x = need(inputs, 0, "data")
        if self.kind not in KINDS:
            raise ModelError(f"a reduction is one of {', '.join(KINDS)}, not {self.kind!r}")
        if any(not 0 <= a < x.rank for a in self.over) or list(self.over) != sorted(set(self.over)):
            raise ModelError(f"cannot reduce {x} over axes {list(self.over)}")
        if x.dtype is DType.BOOL and self.kind not in ("max", "min"):
            raise ModelError(f"the {self.kind} of booleans {x} is not defined")
        shape = tuple(1 if i in self.over else d for i, d in enumerate(x.shape) if self.keepdims or i not in self.over)
        return (TensorType(x.dtype, shape),)

    def evaluate(self, inputs: InArrays) -> tuple[Array, ...]:
        x = value(inputs, 0)
        if self.kind == "mean":
            with np.errstate(all="ignore"):
                y = x.mean(axis=self.over, keepdims=self.keepdims, dtype=None if x.dtype.kind == "f" else np.float64)
        elif self.kind in ("max", "min"):
            extreme: np.ufunc = np.maximum if self.kind == "max" else np.minimum
            y = extreme.reduce(x, axis=self.over, keepdims=self.keepdims, initial=_extreme(x, self.kind == "min"))
        else:
            total: np.ufunc = np.add if self.kind == "sum" else np.multiply
            y = total.reduce(x, axis=self.over, keepdims=self.keepdims, dtype=x.dtype)
        return (np.asarray(y).astype(x.dtype, copy=False),)

    def axes(self, inputs: InTypes) -> AxisMap:
        x = need(inputs, 0, "data")
        kinds = [DimKind.REDUCED if i in self.over else DimKind.PARALLEL for i in range(x.rank)]
        dims = tuple(Dim(f"d{i}", n, k) for i, (n, k) in enumerate(zip(x.shape, kinds, strict=True)))
        line: tuple[Access, ...] = tuple(Iter(d.name) for d in dims)
        out = tuple(FIXED if i in self.over else a for i, a in enumerate(line) if self.keepdims or i not in self.over)
        return AxisMap(dims, (line,), (out,))

    def macs(self, inputs: InTypes) -> int:
        return need(inputs, 0, "data").elements if self.kind in ("sum", "mean") else 0


def _extreme(x: Array, largest: bool) -> float | int | bool:
    """The neutral element of min (`largest`) or max."""
    if x.dtype == np.bool_:
        return largest
    if x.dtype.kind in "iu":
        info = np.iinfo(x.dtype)
        return int(info.max if largest else info.min)
    return np.inf if largest else -np.inf


def reduction_axes(ctx: ImportContext, node: OnnxNode, rank: int) -> tuple[int, ...] | None:
    """The axes of an ONNX reduction (input 1); all when absent or empty, unless that means none: then None."""
    axes = [int(a) for a in node.need_const(ctx, 1, "axes").reshape(-1)] if node.has(1) else []
    if axes:
        if any(not -rank <= a < rank for a in axes):
            raise ModelError(f"axes {list(axes)} are not within rank {rank}")
        return tuple(sorted({a % rank for a in axes}))
    return None if node.attr("noop_with_empty_axes", 0) == 1 else tuple(range(rank))


# ONNX operator -> (program before, reduction, program after)
_REDUCTIONS = {
    "ReduceSum": ("", "sum", ""),
    "ReduceMean": ("", "mean", ""),
    "ReduceMax": ("", "max", ""),
    "ReduceMin": ("", "min", ""),
    "ReduceProd": ("", "prod", ""),
    "ReduceL1": ("abs(a0)", "sum", ""),
    "ReduceL2": ("mul(a0,a0)", "sum", "sqrt(a0)"),
    "ReduceSumSquare": ("mul(a0,a0)", "sum", ""),
    "ReduceLogSum": ("", "sum", "log(a0)"),
}


@onnx_rule(*_REDUCTIONS, becomes="Reduce, Map", constraints="axes constant")
def _import_reduce(ctx: ImportContext, node: OnnxNode) -> str:
    x = node.inputs[0]
    before, kind, after = _REDUCTIONS[node.op_type]
    axes = reduction_axes(ctx, node, ctx.type(x).rank)
    y = emit_map(ctx, before, x) if before else x
    if axes is not None:
        y = ctx.emit(Reduce(kind, axes, node.attr("keepdims", 1) == 1), y)
    return emit_map(ctx, after, y) if after else y


@onnx_rule("ReduceLogSumExp", becomes="Reduce, Map", constraints="axes constant")
def _import_log_sum_exp(ctx: ImportContext, node: OnnxNode) -> str:
    """The maximum is taken out first, so that no exponential overflows (0 where it is infinite)."""
    x = node.inputs[0]
    axes, keep = reduction_axes(ctx, node, ctx.type(x).rank), node.attr("keepdims", 1) == 1
    if axes is None:
        return emit_map(ctx, "exp(a0);log(t0)", x)
    top = emit_map(ctx, "isinf(a0);where(t0,0.0,a0)", ctx.emit(Reduce("max", axes, True), x))
    total = ctx.emit(Reduce("sum", axes, keep), emit_map(ctx, "sub(a0,a1);exp(t0)", x, top))
    if not keep:
        top = ctx.emit(Reshape(ctx.type(total).shape), top)
    return emit_map(ctx, "log(a0);add(t0,a1)", total, top)


@onnx_rule("GlobalAveragePool", "GlobalMaxPool", becomes="Reduce")
def _import_global_pool(ctx: ImportContext, node: OnnxNode) -> str:
    rank = ctx.type(node.inputs[0]).rank
    kind = "mean" if node.op_type == "GlobalAveragePool" else "max"
    return ctx.emit(Reduce(kind, tuple(range(2, rank)), True), node.inputs[0])


@onnx_rule("GlobalLpPool", becomes="Reduce, Map")
def _import_global_lp_pool(ctx: ImportContext, node: OnnxNode) -> str:
    rank, p = ctx.type(node.inputs[0]).rank, float(node.attr("p", 2))
    if p < 1 or not ctx.type(node.inputs[0]).dtype.is_float:
        raise node.refuse(f"its p is {p} and its data are {ctx.type(node.inputs[0])}: expected p >= 1 and floating point")
    powers = emit_map(ctx, "mul(a0,a0)" if p == 2 else f"abs(a0);pow(t0,{p!r})", node.inputs[0])
    total = ctx.emit(Reduce("sum", tuple(range(2, rank)), True), powers)
    return emit_map(ctx, "sqrt(a0)" if p == 2 else f"pow(a0,{1 / p!r})", total)
