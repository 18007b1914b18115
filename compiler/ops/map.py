"""Map: a scalar program over broadcast operands. Every elementwise ONNX operator becomes one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsec.compiler.axes import BROADCAST, Access, AxisMap, Dim, Iter
from sparsec.compiler.onnx_rules import ImportContext
from sparsec.compiler.ops.base import Array, InArrays, InTypes, Op, broadcast_shapes, need, register, value
from sparsec.compiler.scalar import Program
from sparsec.compiler.types import TensorType


def broadcast_access(shape: tuple[int, ...], out: tuple[int, ...]) -> tuple[Access, ...]:
    """How an operand of `shape` is read when broadcast to `out` over iteration dims d0, d1, ..."""
    lead = len(out) - len(shape)
    return tuple(
        Iter(f"d{i + lead}") if (shape[i] == out[i + lead] and shape[i] != 1) or out[i + lead] == 1 else BROADCAST
        for i in range(len(shape))
    )


@register
@dataclass(frozen=True, slots=True)
class Map(Op):
    """out = program(in0, in1, ...), numpy broadcasting. Any dtypes the program's functions accept."""

    program: Program
    name = "Map"
    summary = "elementwise scalar program over broadcast operands"

    def infer(self, inputs: InTypes) -> tuple[TensorType, ...]:
        types = [need(inputs, i, f"argument {i}") for i in range(len(inputs))]
        shape = broadcast_shapes(*(t.shape for t in types))
        self.program.check([t.dtype for t in types])
        return (TensorType(self.program.infer([t.dtype for t in types]), shape),)

    def evaluate(self, inputs: InArrays) -> tuple[Array, ...]:
        arrays = [value(inputs, i) for i in range(len(inputs))]
        shape = broadcast_shapes(*(a.shape for a in arrays))
        out = self.program.evaluate(arrays)
        if out.shape != shape:
            out = np.ascontiguousarray(np.broadcast_to(out, shape))
        return (out,)

    def axes(self, inputs: InTypes) -> AxisMap:
        out = self.infer(inputs)[0].shape
        dims = tuple(Dim(f"d{i}", n) for i, n in enumerate(out))
        return AxisMap(
            dims,
            tuple(broadcast_access(t.shape, out) if t else () for t in inputs),
            (tuple(Iter(d.name) for d in dims),),
        )


def emit_map(ctx: ImportContext, program: str, *inputs: str) -> str:
    """Emit the Map of a program given as text, for import rules; argument i is `inputs[i]`."""
    return ctx.emit(Map(Program.parse(program)), *inputs)
