"""The weights that a stream multiplies by, out of its bytes: what lowering encoded, decoded again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sparsec.backends.systolic.isa import Configure, Decompress, Drain, End, LoadData, LoadWeights, Number, Stationary
from sparsec.backends.systolic.simulate.decompress import Operands, read_strip
from sparsec.backends.systolic.stream import Line, decode
from sparsec.backends.systolic.stream_error import StreamError

Array = np.ndarray[Any, Any]


def unpack(stream: bytes, weights: bytes, m: int, k: int) -> Array:
    """W of every product of a stream, [products, M, K] float32 or int8; StreamError when a strip is not within M x K."""
    found = _Unpacking(weights, (m, k))
    for line in decode(stream).lines:
        found.take(line)
    return np.stack(found.products)


@dataclass
class _Unpacking:
    """What the micro-ops so far have set."""

    weights: bytes
    shape: tuple[int, int]
    config: Configure | None = None
    operands: Operands | None = None
    row: int = 0
    products: list[Array] = field(default_factory=list)

    def take(self, line: Line) -> None:
        """The next micro-op."""
        match line.op:
            case Configure() as op:
                self.config = op
                self.products.append(np.zeros(self.shape, np.float32 if op.weights is Number.F32 else np.int8))
            case (LoadWeights() | Decompress()) as op:
                assert self.config is not None
                self.operands = read_strip(line.offset, op, self.config, self.weights)
            case LoadData(row=row):
                self.row = row
            case Drain(row=row):
                assert self.config is not None
                self.row = self.row if self.config.stationary is Stationary.IS else row
            case End():
                self._place(line.offset)

    def _place(self, offset: int) -> None:
        """The elements of the strip in W."""
        assert self.config is not None and self.operands is not None
        strip = self.operands
        step, lane = np.nonzero(strip.values)
        along = strip.index[step, strip.lane[step, lane]]
        m, k = (along, self.row + lane) if self.config.stationary is Stationary.IS else (self.row + lane, along)
        if (m >= self.shape[0]).any() or (k >= self.shape[1]).any():
            raise StreamError(offset, f"the strip has elements outside of W[{self.shape[0]}, {self.shape[1]}]")
        self.products[-1][m, k] = strip.values[step, lane]
