"""Weights as a core reads them: chunks of nonzero blocks with the steps between their data (see `templates/aie/core.s.j2`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from sparsec.backends.aie.core.program import FIRST_STORE_BYTES, HEADER_BYTES, LEAST_BLOCKS, PAGES_OFFSET
from sparsec.backends.aie.core.sparse_b import packed
from sparsec.backends.aie.lower.paging import Spot
from sparsec.compiler.errors import LimitError

Array = np.ndarray[Any, Any]

_ALIGN = 32


@dataclass(frozen=True, slots=True)
class Steps:
    """Bytes between the 4 vectors that are multiplied together (`within`), and from the first of them to the next 4 (`on`);
    `inner` is from the start of a vector to the last load of it."""

    within: tuple[int, int, int] = (32, 32, 32)
    on: int = 128
    inner: int = 0

    @property
    def span(self) -> int:
        """Bytes from the first load to the last."""
        return sum(self.within) + self.inner

    @property
    def registers(self) -> tuple[int, int, int, int]:
        """Bytes from one load to the next as the program keeps them: between vectors, behind those within one of two loads."""
        first, second, third = (step - self.inner for step in self.within)
        return (self.inner, first, second, third) if self.inner else (first, second, third, 0)


@dataclass(frozen=True, slots=True)
class Chunk:
    """8 output channels' weights against one activation tile.

    `bias` int32 [8]; `blocks` int8 [n, 8, 8] as [input, output], or [n, 8] for depthwise; `offsets` int [n], bytes from the
    tile's start to each block's data, multiples of 32; `entry` is the bundle that its kind of product begins with; `partial` is
    the address of the first half of the partial sums that it goes on with (`goes_on`) or leaves, `residual` that of the
    residual. Of bfloat16, `bias` is float32 and `blocks` are bfloat16.

    Of 16 output channels, for sparse products, `bias` is [16] and `blocks` int8 [n, 2, 16, 8] as [half of the outputs, input,
    output]; the residual of the other half is `others` bytes behind that of the first.
    """

    bias: Array
    blocks: Array
    offsets: Sequence[int]
    entry: int
    residual: int = 0
    partial: int = 0
    goes_on: bool = False
    others: int = 0

    def pack(self, steps: Steps, start: int, spot: Spot) -> bytes:
        """The chunk's bytes, a multiple of 32, with blocks from `start` on (`table_end` of the layer's longest chunk). LimitError
        when data lie further apart than a step holds, UsageError for a sparse block of more than two of four values."""
        blocks, offsets = self._even()
        n = len(offsets)
        table = [(b - a - steps.span) // 32 for a, b in pairwise(offsets)]
        if outside := [t for t in table if not -(2**15) <= t < 2**15]:
            raise LimitError(
                f"a step of {32 * outside[0]} bytes between two blocks' data does not fit 16 bits of 32 bytes: cut the tile"
            )
        onward = (steps.on + offsets[0] - offsets[-1] - steps.span) // 32
        partial = max(0, self.partial - FIRST_STORE_BYTES * (2 if self._sparse else 1))
        control = [offsets[0] // 32, self.entry, (n - self._least) // 2, onward % 2**16, table[0] % 2**16]
        control += [partial or self.residual, self.residual + self.others]
        assert 2 * len(control) == PAGES_OFFSET
        control += [spot.onward, spot.new, spot.left]
        parts = [
            np.array(control, np.uint16).tobytes().ljust(HEADER_BYTES - self.bias[:8].nbytes, b"\0"),
            self.bias[:8].tobytes(),
            np.array([*table[1:], 0], np.int16).tobytes().ljust(start - HEADER_BYTES, b"\0"),
            self.bias[8:].tobytes() + packed(blocks) if self._sparse else blocks.tobytes(),
        ]
        whole = b"".join(parts)
        return whole.ljust(-(-len(whole) // _ALIGN) * _ALIGN, b"\0")

    @property
    def _sparse(self) -> bool:
        return self.blocks.ndim == 4

    @property
    def _least(self) -> int:
        return LEAST_BLOCKS[self.goes_on and self.blocks.dtype == np.int8 and not self._sparse]

    def _even(self) -> tuple[Array, Sequence[int]]:
        """Blocks as they are stored and their offsets, an even number, as the program takes them in pairs, and not too few."""
        blocks = self.blocks
        if blocks.ndim == 2:
            blocks = np.tile(blocks, (1, 4 // blocks.itemsize))
        elif blocks.dtype != np.int8:
            blocks = blocks.reshape(-1, 8, 2, 4).transpose(0, 2, 1, 3)  # operands of 8 inputs and 4 outputs
        missing = max(self._least - len(blocks), len(blocks) % 2)
        offsets = [*self.offsets, *[self.offsets[-1] if self.offsets else 0] * missing]
        return np.concatenate((blocks, np.zeros((missing, *blocks.shape[1:]), blocks.dtype))), offsets


def _stored(blocks: int, goes_on: bool) -> int:
    """Blocks that so many are stored as."""
    return max(LEAST_BLOCKS[goes_on], blocks + blocks % 2)


def table_end(most: int, goes_on: bool) -> int:
    """Where the blocks of chunks of at most so many begin, behind their steps."""
    return -(-(HEADER_BYTES + 2 * (_stored(most, goes_on) - 1)) // 32) * 32


def chunk_bytes(blocks: Array, least: Array, block_bytes: int, start: int) -> Array:
    """What chunks of so many blocks take, at `least` so many, with blocks from `start` on."""
    found: Array = -(-(start + np.maximum(least, blocks + blocks % 2) * block_bytes) // _ALIGN) * _ALIGN
    return found
