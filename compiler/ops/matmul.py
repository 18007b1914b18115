"""MatMul: batched matrix product with optional transposition and an epilogue. Gemm and fully connected layers become one."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

import numpy as np

from sparsec.compiler.axes import BROADCAST, Access, AxisMap, Dim, DimKind, Iter
from sparsec.compiler.errors import ModelError
from sparsec.compiler.ops.base import Array, InArrays, InTypes, Op, broadcast_shapes, need, register, value
from sparsec.compiler.ops.epilogue import apply_epilogue, epilogue_access, epilogue_type
from sparsec.compiler.ops.integer import accumulator, centred, summed
from sparsec.compiler.scalar import Program
from sparsec.compiler.types import TensorType


@register
@dataclass(frozen=True, slots=True)
class MatMul(Op):
    """y[..., m, n] = epilogue(sum over k of a[..., m, k] * b[..., k, n], *extras), both operands of rank >= 2.

    `trans_a` / `trans_b`: the operand is stored [..., K, M] / [..., N, K]. Leading dimensions broadcast. 8-bit a and
    int8 b sum (a - zero) * b in int32. `wide`: a and b are bfloat16, and sums are float32.
    """

    trans_a: bool = False
    trans_b: bool = False
    epilogue: Program = field(default_factory=Program)
    zero: int = 0
    wide: bool = False
    name = "MatMul"
    summary = "batched matrix product, optional transposition of either operand, fused epilogue"

    def _sizes(self, inputs: InTypes) -> tuple[int, int, int, tuple[int, ...]]:
        a, b = need(inputs, 0, "left operand"), need(inputs, 1, "right operand")
        if a.rank < 2 or b.rank < 2:
            raise ModelError(f"MatMul needs operands of rank 2 or more, not {a} and {b}")
        m, k = a.shape[-2:][::-1] if self.trans_a else a.shape[-2:]
        kb, n = b.shape[-2:][::-1] if self.trans_b else b.shape[-2:]
        if k != kb:
            raise ModelError(f"MatMul reduces over {k} of {a} but {kb} of {b}")
        return m, n, k, broadcast_shapes(a.shape[:-2], b.shape[:-2])

    def infer(self, inputs: InTypes) -> tuple[TensorType, ...]:
        m, n, _, batch = self._sizes(inputs)
        a, b = need(inputs, 0, "left operand"), need(inputs, 1, "right operand")
        dtype = accumulator(a, b, self.zero, "MatMul", wide=self.wide)
        acc = TensorType(dtype, (*batch, m, n))
        return (epilogue_type(self.epilogue, acc, inputs[2:]),)

    def evaluate(self, inputs: InArrays) -> tuple[Array, ...]:
        dtype = np.dtype(np.float32) if self.wide else value(inputs, 0).dtype
        a, b = centred(value(inputs, 0), value(inputs, 1), self.zero, wide=self.wide)
        acc = np.matmul(np.swapaxes(a, -1, -2) if self.trans_a else a, np.swapaxes(b, -1, -2) if self.trans_b else b)
        return (apply_epilogue(self.epilogue, summed(acc, dtype), inputs[2:]),)  # bfloat16 products come as float32

    def axes(self, inputs: InTypes) -> AxisMap:
        m, n, k, batch = self._sizes(inputs)
        a, b = need(inputs, 0, "left operand"), need(inputs, 1, "right operand")
        dims = (*(Dim(f"B{i}", d) for i, d in enumerate(batch)), Dim("M", m), Dim("N", n), Dim("K", k, DimKind.REDUCED))

        def lead(shape: tuple[int, ...]) -> list[Access]:
            skip = len(batch) - (len(shape) - 2)
            return [Iter(f"B{i + skip}") if d == batch[i + skip] else BROADCAST for i, d in enumerate(shape[:-2])]

        out = (*(Iter(f"B{i}") for i in range(len(batch))), Iter("M"), Iter("N"))
        last_a = (Iter("K"), Iter("M")) if self.trans_a else (Iter("M"), Iter("K"))
        last_b = (Iter("N"), Iter("K")) if self.trans_b else (Iter("K"), Iter("N"))
        return AxisMap(
            dims,
            ((*lead(a.shape), *last_a), (*lead(b.shape), *last_b), *epilogue_access(out, (*batch, m, n), inputs[2:])),
            (out,),
        )

    def macs(self, inputs: InTypes) -> int:
        m, n, k, batch = self._sizes(inputs)
        return prod(batch) * m * n * k
