"""relayout: tensors between row-major, planar and channel-blocked storage, and the zeroing of halos."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernel import Geometry, Kernel, Pointer
from sparsec.backends.cpu.walk import BlockedView, Walk, blocked_view, row_major_strides
from sparsec.compiler.dtypes import DType
from sparsec.compiler.layout import Blocked
from sparsec.compiler.types import TensorType

LOOPS = 4  # position loops: batch and up to three spatial dimensions
_FOUR = 4  # channels, whose bytes are one word
_ROW = 512  # positions a row is merged up to: enough to stream, and rows remain to divide among threads


@dataclass(frozen=True, slots=True)
class RelayoutGeometry(Geometry):
    """Strides and offsets in elements. `x_channel` is between channels, `x_block` and `y_block` between channel blocks."""

    blocks: int
    tail: int  # channels in the last block
    extent: tuple[int, ...] = field(metadata={"length": LOOPS})
    before: tuple[int, ...] = field(metadata={"length": LOOPS})  # halo of y
    after: tuple[int, ...] = field(metadata={"length": LOOPS})
    x_offset: int
    x_channel: int
    x_block: int
    x_stride: tuple[int, ...] = field(metadata={"length": LOOPS})
    y_offset: int  # pack: of the first halo position, unpack: of the first interior one
    y_channel: int
    y_block: int
    y_stride: tuple[int, ...] = field(metadata={"length": LOOPS})


@dataclass(frozen=True, slots=True)
class Relayout(Kernel):
    """`direction` pack: x (any strides) -> y blocked, whose halo and padded lanes become zero; unpack: x blocked -> y (any
    strides); halo: only zero the halo of y. `block` is 1 (planar) or the vector's lanes.

    `line` says how the innermost positions are laid out on the other side: transpose (positions contiguous), lanes (channels
    contiguous), rows (both sides blocked alike: whole rows are copied), strided (neither), none (direction halo). Vectors
    transpose float32; bytes are moved one by one there, but for blocks of 4 channels, fours, and of 2 or 3, few.
    """

    direction: str
    line: str
    block: int
    dtype: DType = DType.F32
    family: ClassVar[str] = "relayout"
    template: ClassVar[str] = "relayout.c.j2"
    geometry: ClassVar[type[Geometry]] = RelayoutGeometry

    def label(self) -> str:
        return f"{self.dtype.value}_{self.direction}_{self.line}_c{self.block}"

    def pointers(self) -> tuple[Pointer, ...]:
        y = Pointer("y", self.dtype.c, const=False)
        return (y,) if self.direction == "halo" else (Pointer("x", self.dtype.c), y)

    def context(self, isa: Isa) -> dict[str, Any]:
        if self.block not in (1, isa.lanes) and self.dtype is DType.F32:
            raise ValueError(f"relayout moves blocks of 1 or {isa.lanes} channels on {isa.name}, not {self.block}")
        return {"T": self.dtype.c, "vectors": self.dtype is DType.F32}


@dataclass(frozen=True, slots=True)
class _Side:
    """One side of a relayout: strides of a tensor seen with its channel dimension split in blocks."""

    offset: int
    channel: int
    block: int
    strides: tuple[int, ...]
    blocked: bool


def _side(t: TensorType, like: Blocked) -> _Side:
    layout = t.layout
    if isinstance(layout, Blocked):
        if layout.axis != like.axis or layout.block not in (1, like.block):
            raise ValueError(f"{t} and {like} are blocked differently: relayout through row-major storage")
        view = blocked_view(t)
        if layout.block == like.block:
            return _Side(view.offset, 1, view.block_stride, view.strides, True)
        return _Side(view.offset, view.block_stride, view.block_stride * like.block, view.strides, False)
    strides = row_major_strides(t.shape)
    others = tuple(s for i, s in enumerate(strides) if i != like.axis)
    return _Side(0, strides[like.axis], strides[like.axis] * like.block, others, False)


def relayout(source: TensorType, target: TensorType) -> tuple[Relayout, RelayoutGeometry]:
    """The kernel that stores `source` in `target`'s layout (same shape and element type); zeroes the target's halo, if any.

    Either side may be row-major, planar or blocked by the vector's lanes; two blocked sides have the same channel axis.
    Raises ValueError for other pairs, and for blocked to planar with a halo (unpack without, then `zero_halo`).
    """
    into, out_of = target.layout, source.layout
    packs = isinstance(into, Blocked) and (into.block > 1 or not isinstance(out_of, Blocked) or out_of.block == 1)
    layout = into if packs else out_of
    if not isinstance(layout, Blocked):
        raise ValueError(f"a relayout has a blocked side, unlike {source} -> {target}")
    if not packs and isinstance(into, Blocked) and into.halo:
        raise ValueError(f"unpacking {source} leaves the halo of {target} unwritten")
    x, y = _side(source, layout), _side(target, layout)
    view, block = blocked_view(target if packs else source), layout.block
    halo = layout.halo_of(source.rank) if packs else ()
    steps = [block if side.blocked else None for side in (x, y)]
    walk = Walk(view.extents, (x.strides, y.strides), halo).collapsed(_ROW).in_rows(steps)
    if block == 1:  # planar: channels are positions like others, and rows may run over them
        sides = ((x.block, *x.strides), (y.block, *y.strides))
        whole = Walk((view.blocks, *view.extents), sides, ((0, 0), *halo) if halo else ()).collapsed(_ROW).in_rows(steps)
        if whole.rank <= LOOPS:
            view, walk = replace(view, blocks=1), whole
    walk = walk.padded(LOOPS)
    line = _line(layout.block, walk, x, y, packs)
    if line == "transpose" and source.dtype is not DType.F32:
        few = packs and 1 < layout.block <= _FOUR and source.dtype.itemsize == 1
        line = ("fours" if layout.block == _FOUR else "few") if few else "strided"
    kernel = Relayout("pack" if packs else "unpack", line, layout.block, source.dtype)
    return kernel, _geometry(view, layout.block, walk, x, y)


def zero_halo(t: TensorType) -> tuple[Relayout, RelayoutGeometry]:
    """The kernel that zeroes the halo of `t` and leaves the interior alone (its producer writes that)."""
    layout = t.layout
    assert isinstance(layout, Blocked)
    view, side = blocked_view(t), _side(t, layout)
    walk = Walk(view.extents, (side.strides, side.strides), layout.halo_of(t.rank)).collapsed(_ROW).padded(LOOPS)
    return Relayout("halo", "none", layout.block, t.dtype), _geometry(view, layout.block, walk, side, side)


def _line(block: int, walk: Walk, x: _Side, y: _Side, packs: bool) -> str:
    other, step = (x, walk.strides[0][-1]) if packs else (y, walk.strides[1][-1])
    if x.blocked and y.blocked:
        return "rows"
    if block == 1:
        return "rows" if step in (0, 1) else "strided"
    if step in (0, 1):
        return "transpose"
    return "lanes" if other.channel == 1 else "strided"


def _geometry(view: BlockedView, block: int, walk: Walk, x: _Side, y: _Side) -> RelayoutGeometry:
    before, after = tuple(lo for lo, _ in walk.halo), tuple(hi for _, hi in walk.halo)
    start = y.offset - sum(lo * s for lo, s in zip(before, walk.strides[1], strict=True))
    return RelayoutGeometry(
        view.blocks,
        view.tail or block,
        walk.extents,
        before,
        after,
        x.offset,
        x.channel,
        x.block,
        walk.strides[0],
        start,
        y.channel,
        y.block,
        walk.strides[1],
    )
