"""How a kernel walks tensors: per-dimension strides in elements, with dimensions merged wherever every operand allows it.

Kernels take pointers to the start of a buffer; a geometry holds offsets and strides in elements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from sparsec.compiler.layout import Blocked
from sparsec.compiler.types import TensorType


@dataclass(frozen=True, slots=True)
class Walk:
    """A loop nest: `extents` outermost first, and for every operand its stride along each of them.

    `halo`: positions before and after each loop that the written operand has beyond `extents`; empty means none.
    """

    extents: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    halo: tuple[tuple[int, int], ...] = ()

    @property
    def rank(self) -> int:
        """Number of loops."""
        return len(self.extents)

    def collapsed(self, limit: int | None = None) -> Walk:
        """The same walk with unit loops dropped and neighbours merged when they are contiguous for every operand.

        Loops with a halo stay as they are. `limit`: do not merge beyond this extent (keeps rows to divide among threads).
        """
        extents: list[int] = []
        strides: list[list[int]] = [[] for _ in self.strides]
        halo: list[tuple[int, int]] = []
        for d in reversed(range(self.rank)):
            n, around = self.extents[d], self.halo[d] if self.halo else (0, 0)
            if n == 1 and not any(around):
                continue
            fits = (
                extents
                and not any(around)
                and not any(halo[0])
                and all(s[d] == kept[0] * extents[0] for s, kept in zip(self.strides, strides, strict=True))
            )
            if fits and (limit is None or n * extents[0] <= limit):
                extents[0] *= n
                continue
            extents.insert(0, n)
            halo.insert(0, around)
            for s, kept in zip(self.strides, strides, strict=True):
                kept.insert(0, s[d])
        return Walk(tuple(extents), tuple(tuple(s) for s in strides), tuple(halo))

    def in_rows(self, steps: Sequence[int | None]) -> Walk:
        """The same walk, whose last loop steps by `steps[i]` through operand i, or not at all; None: in any way.

        Where it does not, a loop of one position is put inside: merging drops unit loops, and beside one with a halo the next
        loop's positions lie apart.
        """
        if not self.extents or all(n is None or s[-1] in (0, n) for n, s in zip(steps, self.strides, strict=True)):
            return self
        return Walk((*self.extents, 1), tuple((*s, 0) for s in self.strides), (*self.halo, (0, 0)) if self.halo else ())

    def padded(self, rank: int) -> Walk:
        """The same walk with unit loops put in front, to exactly `rank`."""
        extra = rank - self.rank
        if extra < 0:
            raise ValueError(f"a walk of {self.rank} loops does not fit a kernel with {rank}")
        halo = ((0, 0),) * (rank - len(self.halo)) + self.halo
        return Walk((1,) * extra + self.extents, tuple((0,) * extra + s for s in self.strides), halo)


def row_major_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Element strides of C order."""
    return tuple(prod(shape[i + 1 :]) for i in range(len(shape)))


def broadcast_strides(shape: Sequence[int], out: Sequence[int]) -> tuple[int, ...]:
    """Element strides with which a row-major array of `shape` is read over the loops of `out` (0 where it broadcasts)."""
    own = row_major_strides(shape)
    lead = len(out) - len(shape)
    return (0,) * lead + tuple(0 if n == 1 else s for n, s in zip(shape, own, strict=True))


@dataclass(frozen=True, slots=True)
class BlockedView:
    """Where the interior of a blocked tensor lies in its buffer, in elements."""

    blocks: int  # channel blocks
    tail: int  # channels in the last block, or 0 when it is full
    block_stride: int
    offset: int  # of the first interior position
    strides: tuple[int, ...]  # of every dimension but the channel one, in order
    extents: tuple[int, ...]  # of the same, without halo


def blocked_view(t: TensorType) -> BlockedView:
    """The view of a tensor with a `Blocked` layout."""
    layout = t.layout
    assert isinstance(layout, Blocked)
    blocks, *positions, block = layout.storage_shape(t.shape)
    strides = tuple(prod(positions[i + 1 :]) * block for i in range(len(positions)))
    offset = sum(lo * s for (lo, _), s in zip(layout.halo_of(t.rank), strides, strict=True))
    extents = tuple(d for i, d in enumerate(t.shape) if i != layout.axis)
    return BlockedView(
        blocks, t.shape[layout.axis] % block, layout.block_stride(t.shape, t.dtype.itemsize), offset, strides, extents
    )


@dataclass(frozen=True, slots=True)
class ImageStrides:
    """A blocked tensor seen as [channel block][batch][row][column][lane]: offsets and strides in elements."""

    blocks: int
    extents: tuple[int, int, int]  # batch, rows, columns
    offset: int
    block: int
    batch: int
    row: int
    halo: tuple[tuple[int, int], tuple[int, int]]  # of rows and columns


def image_strides(t: TensorType, lanes: int) -> ImageStrides:
    """The view of an [N, C, H, W] or [N, C, W] tensor blocked along axis 1 by `lanes`. ValueError when it is stored otherwise."""
    layout = t.layout
    if not isinstance(layout, Blocked) or layout.axis != 1 or layout.block != lanes or t.rank not in (3, 4):
        raise ValueError(f"this kernel reads [N, C, H, W] blocked by {lanes} channels, not {t}")
    view, halo = blocked_view(t), layout.halo_of(t.rank)
    if t.rank == 3:
        extents, batch, row = (view.extents[0], 1, view.extents[1]), view.strides[0], view.strides[0]
        return ImageStrides(view.blocks, extents, view.offset, view.block_stride, batch, row, ((0, 0), halo[1]))
    n, h, w = view.extents
    return ImageStrides(
        view.blocks, (n, h, w), view.offset, view.block_stride, view.strides[0], view.strides[1], (halo[1], halo[2])
    )
