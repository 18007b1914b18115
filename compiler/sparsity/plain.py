"""The two ends: nothing is known of zeros, and zeros anywhere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsec.compiler.sparsity.base import Array, Packed, Pattern, narrow, row_lengths


@dataclass(frozen=True, slots=True)
class Dense(Pattern):
    """Nothing is known of zeros: every element is stored."""

    nnz: int | None = None

    @property
    def spec(self) -> str:
        """`dense`."""
        return "dense"

    def violation(self, w: Array) -> str:
        """Never: all weights are dense."""
        return ""

    def of(self, w: Array) -> Dense:
        """The same: dense weights are not counted."""
        return self

    def pack(self, w: Array) -> Packed:
        """`values` are the filters."""
        return Packed((w.shape[0], w.shape[1], w.shape[2]), np.ascontiguousarray(w), {})

    def unpack(self, packed: Packed) -> Array:
        """The values."""
        return packed.values

    def __str__(self) -> str:
        return ""


@dataclass(frozen=True, slots=True)
class Unstructured(Pattern):
    """Zeros anywhere."""

    nnz: int | None = None

    @property
    def spec(self) -> str:
        """`unstructured`."""
        return "unstructured"

    def violation(self, w: Array) -> str:
        """Never."""
        return ""

    def pack(self, w: Array) -> Packed:
        """Compressed rows: `begin` [OC + 1] of every output's entries, whose `column` is tap * IC + channel."""
        rows = w.reshape(w.shape[0], -1)
        row, column = np.nonzero(rows)
        begin = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=w.shape[0]))])
        indices = {"begin": narrow(begin), "column": narrow(column)}
        return Packed((w.shape[0], w.shape[1], w.shape[2]), rows[row, column], indices)

    def unpack(self, packed: Packed) -> Array:
        """Scatter the entries."""
        oc, taps, ic = packed.shape
        w = np.zeros((oc, taps * ic), packed.values.dtype)
        row = np.repeat(np.arange(oc), row_lengths(packed.indices["begin"]))
        w[row, packed.indices["column"]] = packed.values
        return w.reshape(packed.shape)


DENSE = Dense()
