"""What a sparsity pattern is, and the narrow arrays that packed weights are made of.

Every pattern speaks of filters: float weights viewed as [OC, taps, IC], taps being KH * KW in row-major order. A MatMul constant
[K, N] is [N, 1, K] (`compiler.sparsity.weights` makes the views). Extents that a pattern does not divide are padded with zeros.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

Array = np.ndarray[Any, Any]
P = TypeVar("P", bound="Pattern")


@dataclass(frozen=True)
class Packed:
    """Weights without what their pattern drops: `values`, and narrow unsigned `indices` by role.

    `shape` is that of the filters, (OC, taps, IC). What the arrays hold is said by each pattern's `pack`.
    """

    shape: tuple[int, int, int]
    values: Array
    indices: Mapping[str, Array]

    @property
    def nbytes(self) -> int:
        """Bytes on disk."""
        return int(self.values.nbytes + sum(a.nbytes for a in self.indices.values()))


class Pattern(ABC):
    """Base of the patterns, which are frozen dataclasses with a field `nnz`: nonzero weights, None when not of a tensor."""

    __slots__ = ()
    nnz: int | None

    @property
    @abstractmethod
    def spec(self) -> str:
        """As users write it, without the amount: `2:4/rows=32`."""

    @abstractmethod
    def violation(self, w: Array) -> str:
        """Where the filters w [OC, taps, IC] do not have this pattern, in words; empty when they have it."""

    @abstractmethod
    def pack(self, w: Array) -> Packed:
        """The packed form of filters that have this pattern; ValueError when they have not."""

    @abstractmethod
    def unpack(self, packed: Packed) -> Array:
        """The filters again, every bit of every nonzero weight."""

    def holds(self, w: Array) -> bool:
        """Whether the filters w have this pattern."""
        return not self.violation(w)

    def of(self: P, w: Array) -> P:
        """This pattern with the number of nonzero weights of w."""
        return replace(self, nnz=int(np.count_nonzero(w)))  # type: ignore[type-var]

    def require(self, w: Array) -> None:
        """ValueError when the filters w do not have this pattern."""
        if why := self.violation(w):
            raise ValueError(f"the weights are not {self.spec}: {why}")

    def __str__(self) -> str:
        """As types print it: `~2:4/rows=32/nnz=18432`."""
        return f"~{self.spec}" + (f"/nnz={self.nnz}" if self.nnz is not None else "")


def padded(w: Array, axis: int, multiple: int) -> Array:
    """`w` with zeros at the end of `axis`, up to a multiple."""
    missing = -w.shape[axis] % multiple
    return w if not missing else np.pad(w, [(0, missing if i == axis else 0) for i in range(w.ndim)])


def any_of_rows(mask: Array, rows: int) -> Array:
    """[tiles, ...]: whether any of `rows` consecutive entries of the first axis (fewer in the last tile) is set."""
    if rows == 1:
        return mask
    full = padded(mask, 0, rows)
    return np.asarray(full.reshape(-1, rows, *mask.shape[1:]).any(axis=1))


def narrow(indices: Array) -> Array:
    """The same numbers as u8, u16 or u32, whichever is the narrowest that holds them."""
    top = int(indices.max(initial=0))
    return indices.astype(np.uint8 if top < 1 << 8 else np.uint16 if top < 1 << 16 else np.uint32)


def pack_bits(indices: Array, below: int) -> Array:
    """Numbers in [0, below) as a bit string, ceil(log2 below) bits each, in u8."""
    bits = max(1, (below - 1).bit_length())
    return np.packbits((indices.reshape(-1, 1).astype(np.uint32) >> np.arange(bits, dtype=np.uint32)) & 1)


def unpack_bits(packed: Array, below: int, shape: tuple[int, ...]) -> Array:
    """The int64 numbers that `pack_bits` wrote."""
    bits = max(1, (below - 1).bit_length())
    count = int(np.prod(shape, dtype=np.int64))
    each = np.unpackbits(packed, count=count * bits).reshape(count, bits).astype(np.int64)
    return np.asarray(each @ (1 << np.arange(bits))).reshape(shape)


def kept_positions(mask: Array, count: int) -> Array:
    """Ascending positions on the last axis of the set entries, `count` of them: lacking ones are filled with unset entries."""
    order = np.argsort(~mask, axis=-1, kind="stable")[..., :count]
    return np.asarray(np.sort(order, axis=-1))


def row_lengths(begin: Array) -> Array:
    """Entries of each compressed row, from where the rows begin and the last one ends."""
    begin = begin.astype(np.int64)
    return np.asarray(begin[1:] - begin[:-1])
