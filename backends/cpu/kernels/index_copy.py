"""index_copy: copies by one table of positions a dimension: padding in every mode, tiling, nearest resizing, crops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, ClassVar

import numpy as np

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernel import Geometry, Kernel, Pointer
from sparsec.backends.cpu.kernels.copy import UNSIGNED
from sparsec.backends.cpu.walk import row_major_strides

Array = np.ndarray[Any, Any]
LOOPS = 8


@dataclass(frozen=True, slots=True)
class IndexCopyGeometry(Geometry):
    """`extent`: of y's loops; `table`: where each loop's entries begin in the table; `inner`: contiguous elements inside them."""

    rows: int
    inner: int
    extent: tuple[int, ...] = field(metadata={"length": LOOPS})
    table: tuple[int, ...] = field(metadata={"length": LOOPS})


@dataclass(frozen=True, slots=True)
class IndexCopy(Kernel):
    """y[i0, i1, ..., run] = x[t0[i0] + t1[i1] + ... + run], or *fill where an entry is negative.

    Pointers: x, table (int64 offsets in elements, concatenated), fill (one element), y. The last loop is the row.
    """

    itemsize: int
    loops: int
    family: ClassVar[str] = "index_copy"
    template: ClassVar[str] = "index_copy.c.j2"
    geometry: ClassVar[type[Geometry]] = IndexCopyGeometry

    def label(self) -> str:
        return f"b{8 * self.itemsize}_index_copy_{self.loops}d"

    def pointers(self) -> tuple[Pointer, ...]:
        ctype = UNSIGNED[self.itemsize]
        return (Pointer("x", ctype), Pointer("table", "int64_t"), Pointer("fill", ctype), Pointer("y", ctype, const=False))

    def context(self, isa: Isa) -> dict[str, Any]:
        return {"T": UNSIGNED[self.itemsize]}


def index_copy(shape: Sequence[int], positions: Sequence[Array], itemsize: int) -> tuple[IndexCopy, IndexCopyGeometry, Array]:
    """The kernel for y[i, j, ...] = x[positions[0][i], positions[1][j], ...] of row-major x of `shape`; -1 means fill.

    Also returns the table to pass. Raises ValueError beyond 8 dimensions.
    """
    strides = row_major_strides(shape)
    inner, rank = 1, len(shape)
    while rank and np.array_equal(positions[rank - 1], np.arange(shape[rank - 1])):
        rank -= 1
        inner *= shape[rank]
    if rank > LOOPS:
        raise ValueError(f"a copy by tables takes {LOOPS} dimensions at most, not {rank}")
    tables = [np.where(p < 0, -1, p * s).astype(np.int64) for p, s in zip(positions[:rank], strides, strict=False)]
    if not tables:
        tables, rank = [np.zeros(1, np.int64)], 1
    extents = tuple(t.size for t in tables)
    starts = tuple(sum(extents[:i]) for i in range(rank))
    spare = LOOPS - rank
    geometry = IndexCopyGeometry(prod(extents[:-1]), inner, (*extents, *(1,) * spare), (*starts, *(0,) * spare))
    return IndexCopy(itemsize, rank), geometry, np.concatenate(tables)


def pad_positions(extent: int, before: int, after: int, mode: str) -> Array:
    """The positions that a dimension of `extent`, padded in one of ONNX's modes, is read from; negative margins crop first."""
    kept = np.arange(max(0, -before), extent - max(0, -after))
    lo, hi = max(0, before), max(0, after)
    if mode == "constant":
        return np.concatenate([np.full(lo, -1), kept, np.full(hi, -1)]).astype(np.int64)
    if mode == "reflect":
        return np.pad(kept, (lo, hi), mode="reflect")
    return np.pad(kept, (lo, hi), mode="edge" if mode == "edge" else "wrap")
