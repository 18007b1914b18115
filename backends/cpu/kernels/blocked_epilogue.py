"""Epilogues of kernels on blocked tensors: a scalar program over a vector of results and extra operands.

Each extra operand has a compile-time kind: `channel`, a vector with one value a channel, padded to whole blocks; `full`, a
tensor with the output's logical shape, blocked alike, with strides of its own; `scalar`, one value.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparsec.backends.cpu.kernel import Pointer
from sparsec.compiler.scalar import Program

KINDS = ("channel", "full", "scalar")
FULL = 2  # full operands that a geometry has room for


def check_kinds(program: Program, kinds: Sequence[str]) -> None:
    """Raise ValueError unless `kinds` fits the program's extra operands and the geometry."""
    if any(k not in KINDS for k in kinds) or program.n_args > 1 + len(kinds) or kinds.count("full") > FULL:
        raise ValueError(
            f"an epilogue takes operands of kinds {KINDS}, {FULL} full ones at most, not {list(kinds)} for {program}"
        )


def extra_pointers(kinds: Sequence[str]) -> tuple[Pointer, ...]:
    """The pointers of the extra operands: e0, e1, ..."""
    return tuple(Pointer(f"e{i}") for i in range(len(kinds)))


def full_slots(kinds: Sequence[str]) -> dict[int, int]:
    """Extra operand -> its place in the geometry's arrays, for the full ones."""
    return {i: n for n, i in enumerate(i for i, k in enumerate(kinds) if k == "full")}


def lanes_to_keep(program: Program, kinds: Sequence[str], channels: int, block: int) -> int:
    """Channels in the last block when the program would leave its padded lanes non-zero there, else 0 (no mask is needed).

    In padded lanes the accumulator and operands with channels are zero, scalars are anything.
    """
    return padding_to_mask(program, [True, *(k != "scalar" for k in kinds)], channels, block)


def padding_to_mask(program: Program, zero_padded: Sequence[bool], channels: int, block: int) -> int:
    """The same for a program whose argument i is zero in padded lanes if `zero_padded[i]`, and anything otherwise."""
    tail = channels % block
    if not tail:
        return 0
    for anything in (0.75, -3.0):
        args = [np.full(1, 0.0 if zero else anything, np.float32) for zero in zero_padded]
        if np.any(program.evaluate(args)):
            return tail
    return 0


def balanced_tile(extent: int, most: int) -> tuple[int, int]:
    """(tile, rest): the width <= `most` that covers `extent` at least cost, and the width of the last tile (0 = none)."""

    def price(tile: int) -> tuple[int, int]:
        full, rest = divmod(extent, tile)
        return full * (tile + 2) + (rest + 2 if rest else 0), -tile  # a tile costs about two positions beyond its own

    tile = min(range(1, min(most, extent) + 1), key=price)
    return tile, extent % tile
