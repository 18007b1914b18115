"""N:M: of every m consecutive input channels at most n are kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsec.compiler.sparsity.base import Array, Packed, Pattern, any_of_rows, kept_positions, pack_bits, padded, unpack_bits


@dataclass(frozen=True, slots=True)
class NM(Pattern):
    """At most `n_keep` nonzero weights in every `m_group` consecutive input channels of a tap.

    `rows` consecutive outputs keep the same positions (1: every output its own).
    """

    n_keep: int
    m_group: int
    rows: int = 1
    nnz: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.n_keep < self.m_group or self.rows < 1:
            raise ValueError(f"n:m needs 0 < n < m and rows of 1 or more, not {self.spec}")

    @property
    def spec(self) -> str:
        """`2:4`, `2:4/rows=32`."""
        return f"{self.n_keep}:{self.m_group}" + (f"/rows={self.rows}" if self.rows > 1 else "")

    def groups(self, w: Array) -> Array:
        """[..., groups, m] of [..., IC], padded."""
        full = padded(w, w.ndim - 1, self.m_group)
        return full.reshape(*w.shape[:-1], -1, self.m_group)

    def violation(self, w: Array) -> str:
        """The first group with too many."""
        counts = self.groups(any_of_rows(w != 0, self.rows)).sum(axis=-1)
        bad = np.argwhere(counts > self.n_keep)
        if not len(bad):
            return ""
        tile, tap, group = bad[0]
        where = f"outputs {tile * self.rows} to {(tile + 1) * self.rows - 1} keep" if self.rows > 1 else f"output {tile} keeps"
        first = group * self.m_group
        return f"{where} {counts[tile, tap, group]} of the input channels {first} to {first + self.m_group - 1} at tap {tap}"

    def pack(self, w: Array) -> Packed:
        """Values [OC, taps, groups, n]; `position` in the group of each, [tiles of rows, taps, groups, n] as a bit string."""
        self.require(w)
        position = kept_positions(self.groups(any_of_rows(w != 0, self.rows)), self.n_keep)
        each = np.repeat(position, self.rows, axis=0)[: w.shape[0]]
        values = np.take_along_axis(self.groups(w), each, axis=-1)
        return Packed((w.shape[0], w.shape[1], w.shape[2]), values, {"position": pack_bits(position, self.m_group)})

    def unpack(self, packed: Packed) -> Array:
        """Scatter the values into their groups."""
        oc, taps, ic = packed.shape
        groups = -(-ic // self.m_group)
        position = unpack_bits(packed.indices["position"], self.m_group, (-(-oc // self.rows), taps, groups, self.n_keep))
        w = np.zeros((oc, taps, groups, self.m_group), packed.values.dtype)
        np.put_along_axis(w, np.repeat(position, self.rows, axis=0)[:oc], packed.values, axis=-1)
        return np.ascontiguousarray(w.reshape(oc, taps, -1)[:, :, :ic])
