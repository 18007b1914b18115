"""matmul: batched products of two float32 operands known only at run time, row-major, with an epilogue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, ClassVar

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernel import Geometry, Kernel, Pointer
from sparsec.backends.cpu.kernels.blocked_epilogue import balanced_tile, extra_pointers, full_slots
from sparsec.backends.cpu.scalar_c import emit_vec
from sparsec.backends.cpu.walk import Walk, broadcast_strides, row_major_strides
from sparsec.compiler.scalar import Program

LOOPS = 4  # over matrices
FULL = 2  # full extra operands that a geometry has room for
CHUNK = 128  # of the inner dimension, in which rows of the left operand are staged
_PANEL_BYTES = 512 << 10  # of packed right operand: half of a common second-level cache
KINDS = ("row", "full", "scalar")


@dataclass(frozen=True, slots=True)
class MatMulGeometry(Geometry):
    """Extents; strides of matrices in elements, `a_row`, `a_inner`, `b_inner`, `b_column` inside them.

    `group`: panels of two vectors of columns that are packed and used together.
    """

    m: int
    n: int
    k: int
    group: int
    a_row: int
    a_inner: int
    b_inner: int
    b_column: int
    extent: tuple[int, ...] = field(metadata={"length": LOOPS})
    a_stride: tuple[int, ...] = field(metadata={"length": LOOPS})
    b_stride: tuple[int, ...] = field(metadata={"length": LOOPS})
    e_stride: tuple[int, ...] = field(metadata={"length": FULL * LOOPS})


@dataclass(frozen=True, slots=True)
class MatMul(Kernel):
    """y[b, m, n] = epilogue(sum over k of a[b, m, k] * b[b, k, n], extras).

    Extra operands by kind: row, one value a column [n]; full, of y's shape (batch dimensions may broadcast); scalar. `thin`: few
    rows, b is read as it is; else b is packed into scratch, a group of panels at a time, and `rows` rows (the last tile:
    `rest`) by two vectors are computed in registers.
    """

    trans_a: bool
    trans_b: bool
    thin: bool
    rows: int
    rest: int
    epilogue: Program
    kinds: tuple[str, ...] = ()
    family: ClassVar[str] = "matmul"
    template: ClassVar[str] = "matmul.c.j2"
    geometry: ClassVar[type[Geometry]] = MatMulGeometry

    def label(self) -> str:
        form = ("t" if self.trans_a else "n") + ("t" if self.trans_b else "n")
        return f"f32_matmul_{form}_{'thin' if self.thin else f'{self.rows}_{self.rest}'}"

    def pointers(self) -> tuple[Pointer, ...]:
        return (Pointer("a"), Pointer("b"), *extra_pointers(self.kinds), Pointer("y", const=False))

    def scratch_bytes(self, geometry: Any, isa: Isa) -> int:
        if self.thin:
            return 0
        staged = self.rows * -(-geometry.k // CHUNK) * CHUNK
        packed = geometry.group * 2 * isa.lanes * geometry.k
        return 4 * int(staged + self.rows * 2 * isa.lanes + packed)

    def context(self, isa: Isa) -> dict[str, Any]:
        names = ["acc", *(f"v{i}" for i in range(len(self.kinds)))]
        return {
            "L": isa.lanes,
            "KC": CHUNK,
            "loops": LOOPS,
            "slots": full_slots(self.kinds),
            "program": emit_vec(self.epilogue, names),
        }


def matmul(
    a: Sequence[int],
    b: Sequence[int],
    isa: Isa,
    *,
    trans_a: bool = False,
    trans_b: bool = False,
    epilogue: Program | None = None,
    kinds: tuple[str, ...] = (),
    full: Sequence[Sequence[int]] = (),
) -> tuple[MatMul, MatMulGeometry]:
    """The kernel for row-major operands of shapes `a` and `b` (rank >= 2, as in the MatMul op); y may not overlap an operand.

    `full` are the shapes of the full extras. Raises ValueError for more than 4 loops over matrices, or other kinds.
    """
    program = epilogue or Program()
    if any(k not in KINDS for k in kinds) or kinds.count("full") > FULL or program.n_args > 1 + len(kinds):
        raise ValueError(f"a matmul's epilogue takes operands of kinds {KINDS}, {FULL} full ones at most, not {list(kinds)}")
    m, k = (a[-1], a[-2]) if trans_a else (a[-2], a[-1])
    n = b[-2] if trans_b else b[-1]
    batch = tuple(max(p) for p in zip(*_aligned(a[:-2], b[:-2]), strict=True))
    extras = [tuple(e) for e in full]
    if prod(b[:-2]) == 1 and not trans_a and prod(batch) == prod(a[:-2]) and all(_same(e, (*batch, m, n)) for e in extras):
        m, batch, extras, a = prod(batch) * m, (), [(prod(batch) * m, n)] * len(extras), (prod(batch) * m, k)
    strides = [_matrix_strides(s, batch) for s in (a, b, *extras)]
    walk = Walk(batch, tuple(strides)).collapsed()
    if walk.rank > LOOPS:
        raise ValueError(f"a matmul of {list(a)} and {list(b)} has more than {LOOPS} loops over matrices")
    walk = walk.padded(LOOPS)
    thin = m == 1 or (m <= 2 and not trans_a)
    rows, rest = balanced_tile(max(m, 1), (isa.registers - 4) // 2)
    panels = -(-n // (2 * isa.lanes))
    group = max(1, min(panels, _PANEL_BYTES // max(1, 8 * isa.lanes * k)))
    spec = MatMul(trans_a, trans_b, thin, 0 if thin else rows, 0 if thin else rest, program, kinds)
    spare = (0,) * (LOOPS * (FULL - len(extras)))
    geometry = MatMulGeometry(
        m, n, k, group,
        1 if trans_a else k, m if trans_a else 1, 1 if trans_b else n, k if trans_b else 1,
        walk.extents, walk.strides[0], walk.strides[1], tuple(s for e in walk.strides[2:] for s in e) + spare,
    )  # fmt: skip
    return spec, geometry


def _aligned(a: Sequence[int], b: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    rank = max(len(a), len(b))
    return (1,) * (rank - len(a)) + tuple(a), (1,) * (rank - len(b)) + tuple(b)


def _same(shape: tuple[int, ...], full: tuple[int, ...]) -> bool:
    return (1,) * (len(full) - len(shape)) + shape == full


def _matrix_strides(shape: Sequence[int], batch: Sequence[int]) -> tuple[int, ...]:
    """Strides of the matrices of an operand over the loops of `batch`, 0 where it broadcasts."""
    if len(shape) <= 2:
        return (0,) * len(batch)
    own = row_major_strides(shape)[:-2]
    lead = len(batch) - len(own)
    seen = broadcast_strides(shape[:-2], batch)
    return tuple(0 if not s else own[i - lead] for i, s in enumerate(seen))
