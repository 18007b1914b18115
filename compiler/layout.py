"""Storage order of a tensor: row-major, or channel-blocked with a halo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

_LINE, _PAGE, _SMALL = 64, 4096, 256  # bytes: a line of the caches, and planes from where on lines matter


@dataclass(frozen=True, slots=True)
class RowMajor:
    """C order over the logical shape."""

    def storage_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of the array in memory."""
        return tuple(shape)

    def __str__(self) -> str:
        return ""


@dataclass(frozen=True, slots=True)
class Blocked:
    """Channel-blocked storage, known as NCHWc for images: [C / block][all other dims, with halo][block].

    The block index is outermost and the other dimensions (batch included) keep their order, so a concatenation along
    channels is a plain sub-range of the buffer when every part is a multiple of `block`. Lanes beyond C are zero.
    Between blocks may be a gap (`block_stride`).
    `halo` holds, for each dimension but the channel one, the zero-filled positions (before, after) that convolutions read
    instead of testing bounds; empty means none. Block 1 is planar: [C][positions].
    """

    axis: int
    block: int
    halo: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if self.halo and not any(any(h) for h in self.halo):  # one spelling for "no halo", so that layouts compare equal
            object.__setattr__(self, "halo", ())

    def halo_of(self, rank: int) -> tuple[tuple[int, int], ...]:
        """The halo of each of the rank - 1 non-channel dimensions, zeros made explicit."""
        return self.halo or ((0, 0),) * (rank - 1)

    def storage_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of the array in memory: (C / block, *others with halo, block)."""
        others = [d for i, d in enumerate(shape) if i != self.axis]
        halo = self.halo_of(len(shape))
        padded = [d + lo + hi for d, (lo, hi) in zip(others, halo, strict=True)]
        return (-(-shape[self.axis] // self.block), *padded, self.block)

    def block_stride(self, shape: Sequence[int], itemsize: int) -> int:
        """Elements of `itemsize` bytes from one channel block to the next: its positions, and one cache line where that makes the
        distance odd. Blocks of bytes begin on a line, since several positions are stored as one.

        Planes of an even number of lines put the same position of many blocks into few sets of the caches.
        """
        _, *positions, block = self.storage_shape(shape)
        plane, line = prod(positions) * block, _LINE // itemsize
        if itemsize == 1 and plane >= _SMALL:
            plane = -(-plane // line) * line
        return plane + line if plane * itemsize >= _PAGE and plane % (2 * line) == 0 else plane

    def without_halo(self) -> Blocked:
        """The same order with no halo."""
        return Blocked(self.axis, self.block)

    def __str__(self) -> str:
        halo = "" if not self.halo else "+" + ",".join(f"{lo}:{hi}" for lo, hi in self.halo)
        return f"@c{self.block}a{self.axis}{halo}"


Layout = RowMajor | Blocked
ROW_MAJOR = RowMajor()


def storage_elements(shape: Sequence[int], layout: Layout, itemsize: int) -> int:
    """Elements of `itemsize` bytes in the buffer of a tensor: halo, padded lanes and what lies between blocks included."""
    if isinstance(layout, Blocked):
        return layout.storage_shape(shape)[0] * layout.block_stride(shape, itemsize)
    return prod(layout.storage_shape(shape))
