"""How a strip of weights lies in memory: what the decompression unit reads.

A strip is w [rows, extent]; its steps are the columns that are not left out, in their order, unless a format says otherwise.
Bits are packed from the least significant of each byte on, every part begins at a byte, and all numbers are little-endian. An
index takes 16 bits where `extent` is at most 65535, else 32.

    BITMAP   a bit a column of the extent; a bit an element of the steps, step by step; the nonzero values
    COLUMNS  index of every step; number of its elements u16; row u8 of every element; the nonzero values
    PACKED   `lanes` indices of every step, all ones for none; a bit an element; the lane of every nonzero one; the nonzero values
    NM       the position of every element in its group of m, ceil(log2 m) bits; all n values a group and row, zeros too

The two-stage bitmap is FlexiSAGA's (arXiv 2506.01566); the others are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsec.backends.systolic.isa import Format
from sparsec.compiler.sparsity.base import kept_positions, padded

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Encoded:
    """A strip's bytes, and what `decompress` has to know to read them."""

    format: Format
    data: bytes
    steps: int
    keep: int = 0
    group: int = 0


def bits(values: Array, width: int = 1) -> bytes:
    """Numbers below 2^width as a bit string."""
    flat = values.reshape(-1, 1).astype(np.uint32) >> np.arange(width, dtype=np.uint32)
    return np.packbits((flat & 1).astype(np.uint8), bitorder="little").tobytes()


def index_type(extent: int) -> np.dtype[Any]:
    """The element type of column indices."""
    return np.dtype("<u2") if extent <= 0xFFFF else np.dtype("<u4")


def bitmap(w: Array) -> Encoded:
    """The two-stage bitmap."""
    kept = (w != 0).any(axis=0)
    steps = w[:, kept].T
    return Encoded(Format.BITMAP, bits(kept) + bits(steps != 0) + _nonzero(steps), len(steps))


def columns(w: Array) -> Encoded:
    """Compressed columns."""
    index = np.flatnonzero((w != 0).any(axis=0))
    steps = w[:, index].T
    counts = np.count_nonzero(steps, axis=1).astype("<u2")
    rows = np.nonzero(steps)[1].astype(np.uint8)
    parts = index.astype(index_type(w.shape[1])).tobytes(), counts.tobytes(), rows.tobytes(), _nonzero(steps)
    return Encoded(Format.COLUMNS, b"".join(parts), len(index))


def packed(w: Array, groups: Sequence[Sequence[int]], lanes: int) -> Encoded:
    """Columns merged as `groups` say, at most `lanes` a step; ValueError when two of a group have a common nonzero row."""
    dtype = index_type(w.shape[1])
    index = np.full((len(groups), lanes), np.iinfo(dtype).max, dtype)
    steps, lane = np.zeros((len(groups), len(w)), w.dtype), np.zeros((len(groups), len(w)), np.int64)
    for s, group in enumerate(groups):
        index[s, : len(group)] = group
        part = w[:, list(group)]
        if (np.count_nonzero(part, axis=1) > 1).any():
            raise ValueError(f"the columns {list(group)} have a common nonzero row")
        lane[s] = (part != 0).argmax(axis=1)
        steps[s] = np.take_along_axis(part, lane[s][:, None], axis=1)[:, 0]
    lane_bits = bits(lane[steps != 0], max(1, (lanes - 1).bit_length()))
    return Encoded(Format.PACKED, index.tobytes() + bits(steps != 0) + lane_bits + _nonzero(steps), len(groups))


def nm(w: Array, keep: int, group: int) -> Encoded:
    """`keep` of every `group` columns, steps in the order of the groups; ValueError when a row has more."""
    parts = padded(w, 1, group).reshape(len(w), -1, group)
    if (np.count_nonzero(parts, axis=2) > keep).any():
        raise ValueError(f"a row has more than {keep} nonzero elements in {group} consecutive columns")
    position = kept_positions(parts != 0, keep)
    values = np.take_along_axis(parts, position, axis=2)
    by_step = np.moveaxis(values, 0, 2).reshape(-1, len(w))
    at = bits(np.moveaxis(position, 0, 2), max(1, (group - 1).bit_length()))
    return Encoded(Format.NM, at + np.ascontiguousarray(by_step).tobytes(), len(by_step), keep, group)


def _nonzero(steps: Array) -> bytes:
    return bytes(steps[steps != 0].tobytes())
