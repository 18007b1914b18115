"""matmul_direct: batched matrix products by their definition, row-major: float64, integers (which wrap), and empty sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, ClassVar

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernel import Geometry, Kernel, Pointer
from sparsec.backends.cpu.walk import Walk, broadcast_strides
from sparsec.compiler.dtypes import DType

LOOPS = 4  # over matrices
# the C type of the arithmetic: unsigned where integers wrap
ARITHMETIC = {
    DType.F32: "float",
    DType.F64: "double",
    DType.I32: "uint32_t",
    DType.U32: "uint32_t",
    DType.I64: "uint64_t",
    DType.U64: "uint64_t",
}


@dataclass(frozen=True, slots=True)
class MatMulDirectGeometry(Geometry):
    """Extents; strides in elements, of matrices over the loops of the batch, and of rows and columns inside them."""

    matrices: int
    m: int
    n: int
    k: int
    a_row: int
    a_inner: int
    b_inner: int
    b_column: int
    extent: tuple[int, ...] = field(metadata={"length": LOOPS})
    a_stride: tuple[int, ...] = field(metadata={"length": LOOPS})
    b_stride: tuple[int, ...] = field(metadata={"length": LOOPS})


@dataclass(frozen=True, slots=True)
class MatMulDirect(Kernel):
    """y[b, m, n] = sum over k of a[b, m, k] * b[b, k, n]; a unit of work is one row of y."""

    dtype: DType
    family: ClassVar[str] = "matmul_direct"
    template: ClassVar[str] = "matmul_direct.c.j2"
    geometry: ClassVar[type[Geometry]] = MatMulDirectGeometry

    def label(self) -> str:
        return f"{self.dtype.value}_matmul_direct"

    def pointers(self) -> tuple[Pointer, ...]:
        t = ARITHMETIC[self.dtype]
        return (Pointer("a", t), Pointer("b", t), Pointer("y", t, const=False))

    def context(self, isa: Isa) -> dict[str, Any]:
        return {"T": ARITHMETIC[self.dtype], "loops": LOOPS}


def matmul_direct(
    dtype: DType, a: Sequence[int], b: Sequence[int], *, trans_a: bool = False, trans_b: bool = False
) -> tuple[MatMulDirect, MatMulDirectGeometry]:
    """The kernel for row-major operands of shapes `a` and `b` (rank >= 2, as in the MatMul op); y may not overlap an operand.

    Raises ValueError for narrower types, and for more than 4 loops over matrices.
    """
    if dtype not in ARITHMETIC:
        raise ValueError(f"a direct product takes {', '.join(d.value for d in ARITHMETIC)}, not {dtype.value}")
    m, k = (a[-1], a[-2]) if trans_a else (a[-2], a[-1])
    n = b[-2] if trans_b else b[-1]
    rank = max(len(a), len(b)) - 2
    shapes = [(1,) * (rank - len(s) + 2) + tuple(s[:-2]) for s in (a, b)]
    batch = tuple(q if p == 1 else p for p, q in zip(*shapes, strict=True))
    strides = [
        tuple(step * size for step in broadcast_strides(shape, batch)) for shape, size in zip(shapes, (m * k, k * n), strict=True)
    ]
    walk = Walk(batch, tuple(strides)).collapsed()
    if walk.rank > LOOPS:
        raise ValueError(f"a product of {list(a)} and {list(b)} has more than {LOOPS} loops over matrices")
    walk = walk.padded(LOOPS)
    geometry = MatMulDirectGeometry(
        prod(batch), m, n, k,
        1 if trans_a else k, m if trans_a else 1, 1 if trans_b else n, k if trans_b else 1,
        walk.extents, walk.strides[0], walk.strides[1],
    )  # fmt: skip
    return MatMulDirect(dtype), geometry
