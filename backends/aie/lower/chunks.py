"""Weights as a core reads them: chunks of nonzero blocks with the steps between their data (see `templates/aie/core.s.j2`).

A chunk's blocks follow its header, and what differs in length lies before that: the steps, which the core reads backwards, from
the header on. So each chunk is as long as its own blocks and steps, and all are read alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from sparsec.backends.aie.core.program import (
    BIAS_BYTES,
    CONTROL_OFFSET,
    FIRST_STEPS,
    FIRST_STORE_BYTES,
    HEADER_BYTES,
    LEAST_BLOCKS,
    PAGES_OFFSET,
)
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

    `bias` int32 [8], none where the chunk goes on with other sums; `blocks` int8 [n, 8, 8] as [input, output], or [n, 8] for
    depthwise; `offsets` int [n], bytes from the tile's start to each block's data, multiples of 32; `entry` is the bundle that
    its kind of product begins with; `partial` is the address of the first half of the partial sums that it goes on with
    (`goes_on`) or leaves, `residual` that of the residual. Of bfloat16, `bias` is float32 and `blocks` are bfloat16.

    Of 16 output channels, for sparse products, `bias` is [16] and `blocks` int8 [n, 2, 16, 8] as [half of the outputs, input,
    output]; the residual of the other half is `others` bytes behind that of the first.
    """

    bias: Array | None
    blocks: Array
    offsets: Sequence[int]
    entry: int
    residual: int = 0
    partial: int = 0
    goes_on: bool = False
    others: int = 0

    @property
    def lead(self) -> int:
        """Bytes before the header."""
        return int(_leads(np.array(len(self._even()[1])), np.array(self._biases)))

    def pack(self, steps: Steps, spot: Spot) -> bytes:
        """The chunk's bytes, a multiple of 32. LimitError when data lie further apart than a step holds, UsageError for a sparse
        block of more than two of four values."""
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
        near = _near(self._biases) + 1
        whole = (
            _backwards(table[near:], self.lead - self._biases * BIAS_BYTES)
            + (b"" if self.bias is None else self.bias.reshape(-1, 8)[::-1].tobytes())
            + _backwards(table[1:near], CONTROL_OFFSET)
            + np.array(control, np.uint16).tobytes()
            + (packed(blocks) if self._sparse else blocks.tobytes())
        )
        return whole.ljust(-(-len(whole) // _ALIGN) * _ALIGN, b"\0")

    @property
    def _biases(self) -> int:
        return 0 if self.bias is None else self.bias.size // 8

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


def _backwards(steps: Sequence[int], room: int) -> bytes:
    """Steps from the last to the first, which ends where their room does."""
    return np.array(steps[::-1], np.int16).tobytes().rjust(room, b"\0")


def _near(biases: int) -> int:
    """Steps behind the first, which is control, that the header has room for."""
    return FIRST_STEPS if biases else CONTROL_OFFSET // 2


def _leads(stored: Array, biases: Array) -> Array:
    """Bytes before the headers of chunks of so many blocks as they are stored: further steps, and biases."""
    further = np.maximum(0, stored - 2 - np.where(biases, _near(1), _near(0)))
    found: Array = BIAS_BYTES * biases + -(-2 * further // _ALIGN) * _ALIGN
    return found


def chunk_bytes(blocks: Array, least: Array, block_bytes: int, biases: Array) -> tuple[Array, Array]:
    """What chunks of so many blocks take, at `least` so many, with biases of so many times 8 channels: bytes, and how many of
    these are before the header."""
    stored = np.maximum(least, blocks + blocks % 2)
    leads = _leads(stored, biases)
    return leads + HEADER_BYTES + -(-stored * block_bytes // _ALIGN) * _ALIGN, leads
