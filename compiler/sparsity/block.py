"""Blocks of weights kept or dropped as a whole: weight block sparsity (D'Alberto et al., arXiv 2407.09453)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsec.compiler.sparsity.base import Array, Packed, Pattern, narrow, padded, row_lengths


@dataclass(frozen=True, slots=True)
class Block(Pattern):
    """Blocks of `br` output by `bc` input channels: with all their taps (`taps` "shared"), or every tap by itself ("each").

    In every row of blocks, at most `n_keep` of `m_group` consecutive ones along the input channels are kept, so that rows and
    ranges of inputs have equal work, as in bank-balanced sparsity (Cao et al., FPGA 2019); any number where these are 0.
    """

    br: int
    bc: int
    taps: str = "shared"
    nnz: int | None = None
    n_keep: int = 0
    m_group: int = 0

    def __post_init__(self) -> None:
        if self.br < 1 or self.bc < 1 or self.taps not in ("shared", "each"):
            raise ValueError(f"blocks are BRxBC of positive extents, with taps shared or each, not {self.spec}")
        if (self.n_keep or self.m_group) and not 0 < self.n_keep < self.m_group:
            raise ValueError(f"n:m of blocks needs 0 < n < m, not {self.spec}")

    @property
    def spec(self) -> str:
        """`block:8x8`, `block:8x8/2:4/taps=each`."""
        even = f"/{self.n_keep}:{self.m_group}" if self.n_keep or self.m_group else ""
        return f"block:{self.br}x{self.bc}{even}" + ("" if self.taps == "shared" else f"/taps={self.taps}")

    @property
    def columns_together(self) -> int:
        """Input channels that are decided on together."""
        return self.bc * max(self.m_group, 1)

    def split(self, w: Array) -> Array:
        """Padded filters as [block rows, br, taps, block columns, bc]."""
        full = padded(padded(w, 0, self.br), 2, self.bc)
        return full.reshape(full.shape[0] // self.br, self.br, w.shape[1], full.shape[2] // self.bc, self.bc)

    def spread(self, kept: Array, shape: tuple[int, ...]) -> Array:
        """A number or bit a block, [block rows, taps or 1, block columns], as one a weight of filters of `shape`."""
        full = np.repeat(np.repeat(kept, self.br, axis=0), self.bc, axis=2)[: shape[0], :, : shape[2]]
        return np.broadcast_to(full, shape)

    def kept(self, w: Array) -> Array:
        """Which blocks have a nonzero weight: [block rows, taps (1 when shared), block columns]."""
        found = (self.split(w) != 0).any(axis=(1, 4))
        return np.asarray(found.any(axis=1, keepdims=True) if self.taps == "shared" else found)

    def violation(self, w: Array) -> str:
        """The first group of blocks with too many, of n:m: otherwise a block with one nonzero weight is kept whole."""
        if not self.m_group:
            return ""
        kept = padded(self.kept(w), 2, self.m_group)
        counts = kept.reshape(*kept.shape[:2], -1, self.m_group).sum(axis=-1)
        bad = np.argwhere(counts > self.n_keep)
        if not len(bad):
            return ""
        row, tap, group = bad[0]
        first, last = group * self.m_group, (group + 1) * self.m_group - 1
        where = f"row {row} of blocks keeps {counts[row, tap, group]} of the block columns {first} to {last}"
        return where if self.taps == "shared" else f"{where} at tap {tap}"

    def pack(self, w: Array) -> Packed:
        """Compressed block rows.

        `begin` [block rows + 1] of each row's blocks; a block's `column` is tap * block columns + its number among the block
        columns (tap 0 when shared). Values are [blocks, taps or 1, br, bc].
        """
        self.require(w)
        kept = self.kept(w)
        parts = np.moveaxis(self.split(w), 1, 3)  # [block rows, taps, block columns, br, bc]
        row, tap, column = np.nonzero(kept)
        values = parts[row, :, column] if self.taps == "shared" else parts[row, tap, column][:, None]
        begin = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=kept.shape[0]))])
        indices = {"begin": narrow(begin), "column": narrow(tap * kept.shape[2] + column)}
        return Packed((w.shape[0], w.shape[1], w.shape[2]), np.ascontiguousarray(values), indices)

    def unpack(self, packed: Packed) -> Array:
        """Put the blocks back and cut the padding off."""
        oc, taps, ic = packed.shape
        rows, columns = -(-oc // self.br), -(-ic // self.bc)
        parts = np.zeros((rows, taps, columns, self.br, self.bc), packed.values.dtype)
        row = np.repeat(np.arange(rows), row_lengths(packed.indices["begin"]))
        tap, column = np.divmod(packed.indices["column"].astype(np.int64), columns)
        if self.taps == "shared":
            parts[row, :, column] = packed.values
        else:
            parts[row, tap, column] = packed.values[:, 0]
        full = np.moveaxis(parts, 3, 1).reshape(rows * self.br, taps, columns * self.bc)
        return np.ascontiguousarray(full[:oc, :, :ic])
