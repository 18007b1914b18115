"""Weights as a core reads them: chunks of nonzero blocks with the steps between their data (see `templates/aie/core.s.j2`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from sparsec.backends.aie.core.program import HEADER_BYTES, LEAST_BLOCKS
from sparsec.compiler.errors import LimitError

Array = np.ndarray[Any, Any]

_ALIGN = 64


@dataclass(frozen=True, slots=True)
class Steps:
    """Bytes between the 4 vectors that are multiplied together (`within`), and from the first of them to the next 4 (`on`)."""

    within: tuple[int, int, int] = (32, 32, 32)
    on: int = 128

    @property
    def span(self) -> int:
        """Bytes from the first to the fourth vector."""
        return sum(self.within)


@dataclass(frozen=True, slots=True)
class Chunk:
    """8 output channels' weights against one activation tile.

    `bias` int32 [8]; `blocks` int8 [n, 8, 8] as [input, output], or [n, 8] for depthwise; `offsets` int [n], bytes from the
    tile's start to each block's data, multiples of 32; `shift` and `added_shift` are the right shift of sums and the left
    shift of the residual, which is at the address `residual`; `kind` is the kind of product's number in the
    program; `partial` are the addresses of both halves of the partial sums, which `ends_partial` leaves there.
    """

    bias: Array
    blocks: Array
    offsets: Sequence[int]
    shift: int
    added_shift: int = 0
    residual: int = 0
    kind: int = 0
    partial: tuple[int, int] = (0, 0)
    ends_partial: bool = False

    def pack(self, steps: Steps) -> bytes:
        """The chunk's bytes, a multiple of 64. LimitError when data lie further apart than a step holds."""
        blocks, offsets = self._even()
        n = len(offsets)
        table = [(b - a - steps.span) // 32 for a, b in pairwise(offsets)] + [0]
        if outside := [t for t in table if not -(2**15) <= t < 2**15]:
            raise LimitError(
                f"a step of {32 * outside[0]} bytes between two blocks' data does not fit 16 bits of 32 bytes: cut the tile"
            )
        start = table_end(n)
        onward = (steps.on + offsets[0] - offsets[-1] - steps.span) // 32
        control = [self.kind, (n - LEAST_BLOCKS[self.ends_partial]) // 2, start, offsets[0] // 32, onward % 2**16, self.shift]
        control += [*self.partial, self.residual // 32, self.added_shift]
        parts = [
            np.asarray(self.bias, np.int32).tobytes(),
            np.array(control, np.uint16).tobytes(),
            np.array(table, np.int16).tobytes().ljust(start - HEADER_BYTES, b"\0"),
            blocks.tobytes(),
        ]
        whole = b"".join(parts)
        return whole.ljust(-(-len(whole) // _ALIGN) * _ALIGN, b"\0")

    def _even(self) -> tuple[Array, Sequence[int]]:
        """Blocks as bytes and their offsets, an even number, as the program takes them in pairs, and not too few."""
        depthwise = self.blocks.ndim == 2
        blocks = np.tile(self.blocks, (1, 4)) if depthwise else self.blocks.reshape(len(self.blocks), 64)
        missing = max(LEAST_BLOCKS[self.ends_partial] - len(blocks), len(blocks) % 2)
        offsets = [*self.offsets, *[self.offsets[-1] if self.offsets else 0] * missing]
        return np.concatenate((blocks, np.zeros((missing, blocks.shape[1]), np.int8))).astype(np.int8), offsets


def table_end(blocks: int) -> int:
    """Where the blocks of a chunk begin, behind so many steps."""
    return -(-(HEADER_BYTES + 2 * blocks) // 32) * 32


def chunk_bytes(blocks: int, block_bytes: int, in_parts: bool) -> int:
    """What a chunk of so many blocks takes, in one or several of which sums are made."""
    n = max(LEAST_BLOCKS[in_parts], blocks + blocks % 2)
    return -(-(table_end(n) + n * block_bytes) // _ALIGN) * _ALIGN
