"""A strip and what its body asks for: the unit that both levels of the simulator execute."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from sparsec.backends.systolic.isa import Configure, Drain, LoadData, Mode, Move, Stationary
from sparsec.backends.systolic.simulate.counts import Counts
from sparsec.backends.systolic.simulate.decompress import Operands
from sparsec.backends.systolic.simulate.memory import DataUnit, OutputUnit

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class StripJob:
    """A strip's weights, `count` iterations of its body, and the units that they use, on an array of rows x cols."""

    rows: int
    cols: int
    config: Configure
    operands: Operands
    data: DataUnit
    output: OutputUnit
    count: int
    load: LoadData
    move: Move | None
    drain: Drain

    @property
    def stationary(self) -> Stationary:
        """What stays in the PEs."""
        return self.config.stationary

    @property
    def strip_rows(self) -> int:
        """Weights a step."""
        return int(self.operands.values.shape[1])

    @property
    def sum_type(self) -> np.dtype[Any]:
        """Of the registers that sum."""
        return np.dtype(np.float32 if self.operands.values.dtype.kind == "f" else np.int32)

    def tile(self, i: int) -> Array:
        """Columns of X that iteration i takes (all for WS)."""
        if self.stationary is Stationary.WS:
            return np.arange(self.data.positions)
        first = self.load.first + i * self.load.stride
        return np.arange(first, min(first + self.cols, self.data.positions))

    def chunk(self, i: int) -> Array:
        """Steps that iteration i takes (all for OS and IS)."""
        steps = len(self.operands.values)
        if self.stationary is not Stationary.WS:
            return np.arange(steps)
        first = self.load.first + i * self.load.stride
        return np.arange(first, min(first + self.rows, steps))

    def destination(self, i: int) -> tuple[Array, Array]:
        """Rows and columns of Y that iteration i drains to."""
        if self.stationary is Stationary.IS:
            rows = self.drain.row + self.operands.index[:, 0]
        else:
            rows = self.drain.row + np.arange(self.drain.rows)
        if self.stationary is Stationary.WS:
            return rows, np.arange(self.data.positions)
        first = self.drain.first + i * self.drain.stride
        return rows, np.arange(first, min(first + self.cols, self.data.positions))

    def adds(self, i: int) -> bool:
        """Whether iteration i adds to what is in the output memory."""
        return self.drain.mode is Mode.ACCUMULATE or (self.drain.mode is Mode.RESUME and i > 0)

    @cached_property
    def fresh(self) -> Array:
        """[steps]: whether a step's data differ from those of the step before, which the load unit still holds."""
        index = self.operands.index
        return np.concatenate([[True], (index[1:] != index[:-1]).any(axis=1)])


class Engine(Protocol):
    """A level of simulation."""

    def strip(self, job: StripJob) -> Counts:
        """Run all iterations and store the sums."""

    def finish(self, counts: Counts) -> None:
        """Nothing follows: wait for what still drains."""
