"""Grouped N:M (STen: Ivanov et al., arXiv 2304.07613)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import comb

import numpy as np
from scipy.optimize import linear_sum_assignment

from sparsec.compiler.sparsity.base import Array, Packed, Pattern, narrow, padded

_MOST_ROWS = 12  # C(12, 6) = 924 patterns a chunk


@cache
def row_patterns(n: int, m: int) -> tuple[tuple[int, ...], ...]:
    """The C(m, n) choices of n rows of m, in STen's order: neighbours differ in one row."""

    def order(n: int, m: int, turned: bool) -> list[tuple[int, ...]]:
        if n in (0, m):
            return [tuple(range(n))]
        first = order(n, m - 1, True)
        return [*(first[::-1] if turned else first), *((*t, m - 1) for t in order(n - 1, m - 1, not turned))]

    return tuple(order(n, m, False))


def pattern_matrix(n: int, m: int) -> Array:
    """[C(m, n), m]: 1 where a pattern keeps a row."""
    table = np.zeros((comb(m, n), m), np.float32)
    for i, rows in enumerate(row_patterns(n, m)):
        table[i, list(rows)] = 1
    return table


@cache
def _code_table(n: int, m: int) -> tuple[Array, Array]:
    """For every set of rows as bits: how many they are, and the number of the pattern that is just this set (-1: none)."""
    kept = ((np.arange(1 << m)[:, None] >> np.arange(m)) & 1).sum(axis=1)
    number = np.full(1 << m, -1)
    for i, rows in enumerate(row_patterns(n, m)):
        number[sum(1 << r for r in rows)] = i
    return kept, number


@dataclass(frozen=True, slots=True)
class NMG(Pattern):
    """Every column keeps `n_keep` of `m_group` consecutive outputs, and neighbouring columns share out the choices.

    Columns are the taps' input channels, tap * IC + channel. In every chunk of C(m, n) * g columns, for each block of m outputs,
    each of the C(m, n) patterns of `row_patterns` is used by g columns. Both dimensions are padded.
    """

    n_keep: int
    m_group: int
    g: int
    nnz: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.n_keep < self.m_group or self.g < 1:
            raise ValueError(f"n:m:g needs 0 < n < m and g of 1 or more, not {self.spec}")
        if self.m_group > _MOST_ROWS:
            raise ValueError(f"n:m:g takes m up to {_MOST_ROWS}, not {self.m_group}")

    @property
    def spec(self) -> str:
        """`nmg:1:4:16`."""
        return f"nmg:{self.n_keep}:{self.m_group}:{self.g}"

    @property
    def chunk(self) -> int:
        """Columns of a chunk."""
        return comb(self.m_group, self.n_keep) * self.g

    def chunks(self, w: Array) -> Array:
        """Padded filters as [chunks, blocks of outputs, columns of a chunk, m]."""
        flat = padded(padded(w.reshape(w.shape[0], -1), 0, self.m_group), 1, self.chunk)
        parts = flat.reshape(flat.shape[0] // self.m_group, self.m_group, flat.shape[1] // self.chunk, self.chunk)
        return parts.transpose(2, 0, 3, 1)

    def whole(self, parts: Array, shape: tuple[int, ...]) -> Array:
        """The inverse of `chunks`: filters of `shape` without the padding."""
        flat = parts.transpose(1, 3, 0, 2).reshape(parts.shape[1] * self.m_group, -1)
        return np.ascontiguousarray(flat[: shape[0], : shape[1] * shape[2]].reshape(shape))

    def assignment(self, w: Array) -> tuple[Array, str]:
        """The pattern of every column, [chunks, blocks, columns], and what is wrong ("" when each is used by g columns).

        A column with fewer than n nonzero weights fits several patterns and takes what the others leave.
        """
        code = (self.chunks(w != 0) @ (1 << np.arange(self.m_group))).astype(np.int64)
        kept, number = _code_table(self.n_keep, self.m_group)
        wide = np.argwhere(kept[code] > self.n_keep)
        if len(wide):
            chunk, block, column = wide[0]
            first = block * self.m_group
            return code, f"column {chunk * self.chunk + column} keeps more than {self.n_keep} of the outputs from {first} on"
        chosen = number[code]
        table = pattern_matrix(self.n_keep, self.m_group)
        counts = np.stack([(chosen == p).sum(axis=-1) for p in range(len(table))], axis=-1)
        for chunk, block in np.argwhere((counts != self.g).any(axis=-1)):
            rows = (code[chunk, block][:, None] >> np.arange(self.m_group)) & 1
            cost = np.repeat(rows @ (1 - table).T > 0, self.g, axis=1)
            column, slot = linear_sum_assignment(cost)
            if cost[column, slot].any():
                first = chunk * self.chunk
                return chosen, (
                    f"of the columns {first} to {first + self.chunk - 1}, more than {self.g} keep the same choice of the "
                    f"outputs from {block * self.m_group} on"
                )
            chosen[chunk, block, column] = slot // self.g
        return chosen, ""

    def violation(self, w: Array) -> str:
        """A column that keeps too many, or a choice used too often."""
        return self.assignment(w)[1]

    def pack(self, w: Array) -> Packed:
        """As STen: values [chunks, blocks, C(m, n), g, n]; `column` in its chunk of each, [chunks, blocks, C(m, n), g]."""
        chosen, why = self.assignment(w)
        if why:
            raise ValueError(f"the weights are not {self.spec}: {why}")
        column = np.argsort(chosen, axis=-1, kind="stable")
        parts = np.take_along_axis(self.chunks(w), column[..., None], axis=2)
        patterns = len(row_patterns(self.n_keep, self.m_group))
        parts = parts.reshape(*parts.shape[:2], patterns, self.g, self.m_group)
        rows = np.array(row_patterns(self.n_keep, self.m_group)).reshape(1, 1, patterns, 1, self.n_keep)
        values = np.take_along_axis(parts, np.broadcast_to(rows, (*parts.shape[:-1], self.n_keep)), axis=-1)
        return Packed((w.shape[0], w.shape[1], w.shape[2]), values, {"column": narrow(column.reshape(parts.shape[:-1]))})

    def unpack(self, packed: Packed) -> Array:
        """Scatter the values into their rows, then the columns into their chunks."""
        values, patterns = packed.values, row_patterns(self.n_keep, self.m_group)
        parts = np.zeros((*values.shape[:-1], self.m_group), values.dtype)
        rows = np.array(patterns).reshape(1, 1, len(patterns), 1, self.n_keep)
        np.put_along_axis(parts, np.broadcast_to(rows, values.shape), values, axis=-1)
        parts = parts.reshape(*values.shape[:2], self.chunk, self.m_group)
        column = packed.indices["column"].astype(np.int64).reshape(parts.shape[:3])
        ordered = np.zeros_like(parts)
        np.put_along_axis(ordered, np.broadcast_to(column[..., None], parts.shape), parts, axis=2)
        return self.whole(ordered, packed.shape)
