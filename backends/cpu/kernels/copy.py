"""copy: strided N-D copies of elements of any size: transpositions, slices, expansions, parts of concatenations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, ClassVar

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernel import Geometry, Kernel, Pointer
from sparsec.backends.cpu.walk import Walk

LOOPS = 8
_PLANES = 4  # as many interleaved rows compilers turn into vector code
UNSIGNED = {1: "uint8_t", 2: "uint16_t", 4: "uint32_t", 8: "uint64_t"}


@dataclass(frozen=True, slots=True)
class CopyGeometry(Geometry):
    """`rows` times `inner` elements (times `outer` when transposing); offsets and strides in elements."""

    rows: int
    inner: int
    outer: int
    x_offset: int
    x_inner: int
    y_offset: int
    y_inner: int
    y_outer: int
    extent: tuple[int, ...] = field(metadata={"length": LOOPS})
    x_stride: tuple[int, ...] = field(metadata={"length": LOOPS})
    y_stride: tuple[int, ...] = field(metadata={"length": LOOPS})


@dataclass(frozen=True, slots=True)
class Copy(Kernel):
    """y[i...] = x[i...] with strides on either side, `loops` loops around a row of mode `mode`.

    rows: contiguous on both sides; splat: one element of x fills a contiguous row; transpose: the two innermost loops are
    contiguous on opposite sides; split: the same when x interleaves `planes` (2 to 4) rows of y, as colours in an image; merge:
    the reverse; strided: anything else.
    """

    itemsize: int
    loops: int
    mode: str
    planes: int = 0
    family: ClassVar[str] = "copy"
    template: ClassVar[str] = "copy.c.j2"
    geometry: ClassVar[type[Geometry]] = CopyGeometry

    def label(self) -> str:
        return f"b{8 * self.itemsize}_copy_{self.mode}{self.planes or ''}_{self.loops}d"

    def pointers(self) -> tuple[Pointer, ...]:
        ctype = UNSIGNED[self.itemsize]
        return (Pointer("x", ctype), Pointer("y", ctype, const=False))

    def context(self, isa: Isa) -> dict[str, Any]:
        vectors = self.itemsize == 4 and isa.lanes > 1
        return {"T": UNSIGNED[self.itemsize], "vectors": vectors, "tile": isa.lanes if vectors else 8}


def copy(
    shape: Sequence[int],
    x_strides: Sequence[int],
    y_strides: Sequence[int],
    itemsize: int,
    x_offset: int = 0,
    y_offset: int = 0,
) -> tuple[Copy, CopyGeometry]:
    """The kernel that copies `shape` elements; strides and offsets in elements, x's may be zero (expansion) or negative.

    Raises ValueError when more than 8 loops remain after merging.
    """
    walk = Walk(tuple(shape), (tuple(x_strides), tuple(y_strides))).collapsed()
    if walk.rank == 0:
        walk = Walk((1,), ((1,), (1,)))
    extents, (xs, ys) = walk.extents, walk.strides
    order = sorted(range(len(extents)), key=lambda d: -abs(ys[d]))  # write in order
    extents, xs, ys = (tuple(v[d] for d in order) for v in (extents, xs, ys))
    unit = next((d for d in range(len(extents)) if xs[d] == 1), None)
    outer = y_outer = planes = 0
    if ys[-1] == 1 and xs[-1] == 1:
        mode = "rows"
    elif ys[-1] == 1 and xs[-1] == 0:
        mode = "splat"
    elif ys[-1] == 1 and unit is not None:
        mode, outer, y_outer = "transpose", extents[unit], ys[unit]
        if outer <= _PLANES and xs[-1] == outer:
            mode, planes = "split", outer
        elif extents[-1] <= _PLANES and y_outer == extents[-1]:  # the long loop becomes the row
            mode, planes, y_outer = "merge", extents[-1], 0
            extents, xs, ys = ((*v[:-1], last) for v, last in ((extents, outer), (xs, xs[-1]), (ys, 1)))
        extents, xs, ys = (v[:unit] + v[unit + 1 :] for v in (extents, xs, ys))
    else:
        mode = "strided"
    inner, x_inner, y_inner = extents[-1], xs[-1], ys[-1]
    loops, spare = len(extents) - 1, (0,) * (LOOPS - len(extents) + 1)
    if loops > LOOPS:
        raise ValueError(f"a copy of {list(shape)} has {loops} loops that do not merge, {LOOPS} are supported")
    geometry = CopyGeometry(
        prod(extents[:-1]), inner, outer, x_offset, x_inner, y_offset, y_inner, y_outer,
        extents[:-1] + spare, xs[:-1] + spare, ys[:-1] + spare,
    )  # fmt: skip
    return Copy(itemsize, loops, mode, planes), geometry
