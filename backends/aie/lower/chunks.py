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
    def between(self) -> tuple[int, int, int]:
        """Bytes from the last load of a vector to the first of the next."""
        first, second, third = self.within
        return first - self.inner, second - self.inner, third - self.inner


@dataclass(frozen=True, slots=True)
class Chunk:
    """8 output channels' weights against one activation tile.

    `bias` int32 [8]; `blocks` int8 [n, 8, 8] as [input, output], or [n, 8] for depthwise; `offsets` int [n], bytes from the
    tile's start to each block's data, multiples of 32; `shift` and `added_shift` are the right shift of sums and the left
    shift of the residual, which is at the address `residual`; `kind` is the kind of product's number in the
    program; `partial` are the addresses of both halves of the partial sums, which `ends_partial` leaves there. Of bfloat16,
    `bias` is float32, `blocks` are bfloat16, and there are no shifts.
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
        control = [self.kind, (n - self._least) // 2, start, offsets[0] // 32, onward % 2**16, self.shift]
        control += [*self.partial, self.residual // 32, self.added_shift]
        parts = [
            self.bias.tobytes(),
            np.array(control, np.uint16).tobytes(),
            np.array(table, np.int16).tobytes().ljust(start - HEADER_BYTES, b"\0"),
            blocks.tobytes(),
        ]
        whole = b"".join(parts)
        return whole.ljust(-(-len(whole) // _ALIGN) * _ALIGN, b"\0")

    @property
    def _least(self) -> int:
        return LEAST_BLOCKS[self.ends_partial and self.blocks.dtype == np.int8]

    def _even(self) -> tuple[Array, Sequence[int]]:
        """Blocks as they are stored and their offsets, an even number, as the program takes them in pairs, and not too few."""
        blocks = self.blocks
        if blocks.ndim == 2:
            blocks = np.tile(blocks, (1, 4))
        elif blocks.dtype != np.int8:
            blocks = blocks.reshape(-1, 8, 2, 4).transpose(0, 2, 1, 3)  # operands of 8 inputs and 4 outputs
        missing = max(self._least - len(blocks), len(blocks) % 2)
        offsets = [*self.offsets, *[self.offsets[-1] if self.offsets else 0] * missing]
        return np.concatenate((blocks, np.zeros((missing, *blocks.shape[1:]), blocks.dtype))), offsets


def table_end(blocks: int) -> int:
    """Where the blocks of a chunk begin, behind so many steps."""
    return -(-(HEADER_BYTES + 2 * blocks) // 32) * 32


def chunk_bytes(blocks: int, block_bytes: int, alternates: bool) -> int:
    """What a chunk of so many blocks takes, with one or two sets of accumulators in turns."""
    n = max(LEAST_BLOCKS[alternates], blocks + blocks % 2)
    return -(-(table_end(n) + n * block_bytes) // _ALIGN) * _ALIGN
