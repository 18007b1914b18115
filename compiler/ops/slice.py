"""Slice: a strided box out of a tensor. Split becomes one Slice a part."""

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
class Slice(Op):
    """y[i0, i1, ...] = x[starts[0] + i0 * steps[0], ...] for i < sizes; one entry for every dimension, steps may be negative."""

    starts: tuple[int, ...]
    steps: tuple[int, ...]
    sizes: tuple[int, ...]
    name = "Slice"
    summary = "a strided box: static starts, steps (negative too) and sizes for every dimension"

    def infer(self, inputs: InTypes) -> tuple[TensorType, ...]:
        x = need(inputs, 0, "data")
        if not x.rank == len(self.starts) == len(self.steps) == len(self.sizes):
            raise ModelError(f"a slice of {x} needs {x.rank} starts, steps and sizes")
        for n, start, step, size in zip(x.shape, self.starts, self.steps, self.sizes, strict=True):
            last = start + (size - 1) * step
            if step == 0 or size < 0 or (size > 0 and not (0 <= start < n and 0 <= last < n)):
                raise ModelError(f"a slice from {start} by {step}, {size} long, does not lie within extent {n} of {x}")
        return (TensorType(x.dtype, self.sizes),)

    def evaluate(self, inputs: InArrays) -> tuple[Array, ...]:
        box = []
        for start, step, size in zip(self.starts, self.steps, self.sizes, strict=True):
            stop = start + size * step
            box.append(slice(start, None if stop < 0 else stop, step) if size else slice(0, 0))
        return (np.ascontiguousarray(value(inputs, 0)[tuple(box)]).reshape(self.sizes),)

    def axes(self, inputs: InTypes) -> AxisMap:
        x = need(inputs, 0, "data")
        dims = tuple(Dim(f"d{i}", n) for i, n in enumerate(x.shape))
        whole = [(s, p, z) == (0, 1, n) for s, p, z, n in zip(self.starts, self.steps, self.sizes, x.shape, strict=True)]
        out: tuple[Access, ...] = tuple(
            Iter(f"d{i}") if whole[i] else Offset(f"d{i}", self.starts[i], self.steps[i]) for i in range(x.rank)
        )
        return AxisMap(dims, (tuple(Iter(d.name) for d in dims),), (out,))


def emit_slice(ctx: ImportContext, x: str, axis: int, start: int, size: int, step: int = 1) -> str:
    """Slice one axis (>= 0) and leave the others whole; `x` itself when that is all of it."""
    shape = ctx.type(x).shape
    if (start, step, size) == (0, 1, shape[axis]):
        return x
    rank = len(shape)
    starts, steps = [0] * rank, [1] * rank
    starts[axis], steps[axis] = start if size else 0, step
    return ctx.emit(Slice(tuple(starts), tuple(steps), (*shape[:axis], size, *shape[axis + 1 :])), x)


def positive_axis(axis: int, rank: int) -> int:
    """`axis` counted from the front, or a ModelError when there is no such axis."""
    if not -rank <= axis < rank:
        raise ModelError(f"axis {axis} is out of range for rank {rank}")
    return axis % rank


def _box(start: int, end: int, step: int, n: int) -> range:
    """The positions that ONNX's Slice takes: both ends counted from the front, then clamped to where the step can be."""
    start, low = (start + n if start < 0 else start), (0 if step > 0 else -1)
    if step < 0 and end in ((1 << 31) - 1, (1 << 63) - 1):  # onnxruntime reads the largest integers as "no end"
        end = -1
    else:
        end = min(max(end + n if end < 0 else end, low), n)
    return range(min(max(start, 0), n if step > 0 else n - 1), end, step)


@onnx_rule("Slice", becomes="Slice", constraints="starts, ends, axes and steps constant")
def _import_slice(ctx: ImportContext, node: OnnxNode) -> str:
    shape = ctx.type(node.inputs[0]).shape

    def numbers(i: int, what: str) -> list[int]:
        return [int(n) for n in node.need_const(ctx, i, what).reshape(-1)]

    first, end = numbers(1, "starts"), numbers(2, "ends")
    axes = numbers(3, "axes") if node.has(3) else list(range(len(first)))
    by = numbers(4, "steps") if node.has(4) else [1] * len(first)
    if not len(first) == len(end) == len(axes) == len(by):
        raise ModelError(f"starts {first}, ends {end}, axes {axes} and steps {by} differ in length")
    starts, steps, sizes = [0] * len(shape), [1] * len(shape), list(shape)
    for s, e, a, p in zip(first, end, axes, by, strict=True):
        axis = positive_axis(a, len(shape))
        if p == 0:
            raise ModelError(f"the step along axis {axis} is 0")
        box = _box(s, e, p, shape[axis])
        starts[axis], steps[axis], sizes[axis] = (box.start, p, len(box)) if len(box) else (0, 1, 0)
        if sizes[axis] == 1:
            steps[axis] = 1
    if (starts, steps, sizes) == ([0] * len(shape), [1] * len(shape), list(shape)):
        return node.inputs[0]
    return ctx.emit(Slice(tuple(starts), tuple(steps), tuple(sizes)), node.inputs[0])


@onnx_rule("Split", becomes="Slice", constraints="sizes constant")
def _import_split(ctx: ImportContext, node: OnnxNode) -> tuple[str, ...]:
    """Given sizes, or (rounded up) equal parts of which the last may be smaller."""
    x = ctx.type(node.inputs[0])
    axis = positive_axis(int(node.attr("axis", 0)), x.rank)
    n, count = x.shape[axis], len(node.outputs)
    if node.has(1):
        sizes = [int(s) for s in node.need_const(ctx, 1, "sizes of the parts").reshape(-1)]
    else:
        each = -(-n // count)
        sizes = [each] * (count - 1) + [n - each * (count - 1)]
    if len(sizes) != count or sum(sizes) != n or any(s < 0 for s in sizes):
        raise ModelError(f"extent {n} cannot be split into {count} parts of sizes {sizes}")
    starts = [sum(sizes[:i]) for i in range(count)]
    return tuple(emit_slice(ctx, node.inputs[0], axis, start, size) for start, size in zip(starts, sizes, strict=True))
