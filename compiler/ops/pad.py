"""Pad: margins of a constant or of the data itself around every dimension."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsec.compiler.axes import FIXED, Access, AxisMap, Dim, Iter, Offset
from sparsec.compiler.errors import ModelError
from sparsec.compiler.onnx_rules import ImportContext, OnnxNode, onnx_rule
from sparsec.compiler.ops.base import Array, InArrays, InTypes, Op, need, normal_axis, register, value
from sparsec.compiler.types import TensorType

MODES = ("constant", "reflect", "edge", "wrap")


@register
@dataclass(frozen=True, slots=True)
class Pad(Op):
    """y is x with `pads[i]` positions before and `pads[rank + i]` after dimension i; negative ones are cut off, first.

    `mode`: constant (`value`), reflect (mirrored without the edge), edge (repeated) or wrap (periodic).
    """

    pads: tuple[int, ...]
    mode: str = "constant"
    fill: float = 0.0
    name = "Pad"
    summary = "constant, reflected, repeated or periodic margins; negative ones crop"

    def infer(self, inputs: InTypes) -> tuple[TensorType, ...]:
        x = need(inputs, 0, "data")
        if len(self.pads) != 2 * x.rank or self.mode not in MODES:
            raise ModelError(f"pads {list(self.pads)} with mode {self.mode!r} do not fit {x}: it takes two numbers a dimension")
        shape = tuple(n + self.pads[i] + self.pads[x.rank + i] for i, n in enumerate(x.shape))
        for i, n in enumerate(x.shape):
            before, after = self.pads[i], self.pads[x.rank + i]
            kept = n + min(before, 0) + min(after, 0)
            if kept < 0 or shape[i] < 0 or (self.mode != "constant" and kept < 1 and max(before, after) > 0):
                raise ModelError(f"pads {before}, {after} leave nothing of dimension {i} of {x}")
            if self.mode == "reflect" and max(before, after, 0) >= max(kept, 1):
                raise ModelError(f"pads {before}, {after} reflect more than dimension {i} of {x} has")
        return (TensorType(x.dtype, shape),)

    def evaluate(self, inputs: InArrays) -> tuple[Array, ...]:
        x, n = value(inputs, 0), value(inputs, 0).ndim
        x = x[tuple(slice(max(-self.pads[i], 0), x.shape[i] - max(-self.pads[n + i], 0)) for i in range(n))]
        margins = [(max(self.pads[i], 0), max(self.pads[n + i], 0)) for i in range(n)]
        if self.mode == "constant":
            return (np.pad(x, margins, constant_values=np.asarray(self.fill).astype(x.dtype).item()),)
        if self.mode == "reflect":
            return (np.pad(x, margins, mode="reflect"),)
        return (np.pad(x, margins, mode="edge" if self.mode == "edge" else "wrap"),)

    def axes(self, inputs: InTypes) -> AxisMap:
        out, rank = self.infer(inputs)[0].shape, need(inputs, 0, "data").rank
        dims: list[Dim] = []
        source: list[Access] = []
        result: list[Access] = []
        for i, n in enumerate(out):
            before, after = self.pads[i], self.pads[rank + i]
            if before or after:
                if self.mode != "constant" or before < 0 or after < 0:
                    source.append(FIXED)
                    result.append(FIXED)
                    continue
            dims.append(Dim(f"d{i}", n))
            source.append(Offset(f"d{i}", before) if before or after else Iter(f"d{i}"))
            result.append(Iter(f"d{i}"))
        return AxisMap(tuple(dims), (tuple(source),), (tuple(result),))


@onnx_rule("Pad", becomes="Pad", constraints="pads, axes and the constant value are constant")
def _import_pad(ctx: ImportContext, node: OnnxNode) -> str:
    rank, mode = ctx.type(node.inputs[0]).rank, node.attr("mode", "constant")
    given = [int(p) for p in node.need_const(ctx, 1, "pads").reshape(-1)]
    axes = [normal_axis(int(a), rank) for a in node.need_const(ctx, 3, "axes").reshape(-1)] if node.has(3) else list(range(rank))
    if len(given) != 2 * len(axes):
        raise node.refuse(f"it has {len(given)} pads for {len(axes)} axes, expected two an axis")
    pads = [0] * (2 * rank)
    for i, a in enumerate(axes):
        pads[a], pads[rank + a] = given[i], given[len(axes) + i]
    fill = float(node.need_const(ctx, 2, "constant value").reshape(())) if node.has(2) and mode == "constant" else 0.0
    return ctx.emit(Pad(tuple(pads), mode, fill), node.inputs[0]) if any(pads) else node.inputs[0]
