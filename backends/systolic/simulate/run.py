"""Run a stream: the controller, which decodes micro-ops and hands strips to one of the two levels."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np

from sparsec.backends.systolic.isa import (
    Configure,
    Decompress,
    Drain,
    End,
    LoadData,
    LoadWeights,
    MicroOp,
    Move,
    Number,
    Output,
    Repeat,
    Stationary,
    Windows,
)
from sparsec.backends.systolic.simulate.counts import Counts, Run, StripTrace
from sparsec.backends.systolic.simulate.decompress import Operands, read_strip
from sparsec.backends.systolic.simulate.folds import Folds
from sparsec.backends.systolic.simulate.job import Engine, StripJob
from sparsec.backends.systolic.simulate.memory import DataUnit, OutputUnit
from sparsec.backends.systolic.simulate.pes import Pes
from sparsec.backends.systolic.stream import Line, Stream, decode
from sparsec.backends.systolic.stream_error import StreamError
from sparsec.compiler.errors import InternalError

Array = np.ndarray[Any, Any]
_NUMPY = {Number.F32: np.dtype(np.float32), Number.I8: np.dtype(np.int8), Number.U8: np.dtype(np.uint8)}


class Level(Enum):
    """How closely to simulate."""

    FOLDS = "folds"  # a fold at a time: whole networks
    TIMING = "timing"  # the same without values
    PES = "pes"  # every register in every cycle: small arrays and products


def simulate(stream: bytes, weights: bytes, data: Array, outputs: int, level: Level = Level.FOLDS) -> Run:
    """Execute `stream` on memories with the bytes `weights` and the elements `data` (float32, int8 or uint8, any shape).

    Returns counts and the output memory, `outputs` float32 or int32 elements that begin as 0. StreamError for bytes that are no
    stream, or that reach outside the memories; InternalError should a run take fewer cycles than its multiplications need.
    """
    program = decode(stream)
    engine: Engine = Pes() if level is Level.PES else Folds(values=level is Level.FOLDS)
    memory = np.zeros(0 if level is Level.TIMING else outputs, np.float32 if data.dtype == np.float32 else np.int32)
    controller = _Controller(program, weights, data.reshape(-1), memory, engine, level is not Level.TIMING)
    return controller.run()


@dataclass
class _Controller:
    """Registers that micro-ops set."""

    program: Stream
    weights: bytes
    data: Array
    memory: Array
    engine: Engine
    values: bool
    config: Configure | None = None
    data_unit: DataUnit | None = None
    output_unit: OutputUnit | None = None
    operands: Operands | None = None
    body: dict[type[MicroOp], MicroOp] = field(default_factory=dict)
    products: list[Counts] = field(default_factory=list)
    traces: list[StripTrace] = field(default_factory=list)
    weight_bytes: int = 0
    roofline: int = 0

    def run(self) -> Run:
        """Execute every micro-op."""
        for line in self.program.lines:
            self._execute(line)
        total = Counts()
        for product in self.products:
            total.add(product)
        self.engine.finish(total)
        return Run(total, tuple(self.products), tuple(self.traces), self.memory, self.roofline)

    def _execute(self, line: Line) -> None:
        match line.op:
            case Configure() as op:
                if self.data.dtype != _NUMPY[op.data]:
                    raise StreamError(line.offset, f"data are {op.data.name}, and the data memory holds {self.data.dtype}")
                self.config = op
            case Windows() as op:
                assert self.config is not None
                self.data_unit = DataUnit(op, self.data, self.config.zero, line.offset)
                self.products.append(Counts())
            case Output() as op:
                self.output_unit = OutputUnit(op, self.memory, line.offset)
            case (LoadWeights() | Decompress()) as op:
                assert self.config is not None
                self.operands = read_strip(line.offset, op, self.config, self.weights)
                self.weight_bytes = op.size if isinstance(op, Decompress) else self.operands.values.nbytes
            case Repeat() | LoadData() | Move() | Drain() as op:
                self.body[type(op)] = op
            case End():
                self._strip(line)

    def _strip(self, line: Line) -> None:
        assert self.config and self.data_unit and self.output_unit and self.operands
        repeat, load, drain, move = (self.body.pop(kind, None) for kind in (Repeat, LoadData, Drain, Move))
        assert isinstance(repeat, Repeat) and isinstance(load, LoadData) and isinstance(drain, Drain)
        job = StripJob(
            self.program.rows,
            self.program.cols,
            self.config,
            self.operands,
            self.data_unit,
            self.output_unit,
            repeat.count,
            load,
            move if isinstance(move, Move) else None,
            drain,
        )
        _check(job, line.offset)
        counts = self.engine.strip(job)
        least = _fewest_cycles(job, counts)
        if counts.cycles < least:
            raise InternalError(f"a strip that takes {least} cycles at least was counted as {counts.cycles}")
        self.roofline += least
        self.products[-1].add(counts)
        self.traces.append(self._trace(job, counts.cycles))

    def _trace(self, job: StripJob, cycles: int) -> StripTrace:
        op, index = job.data.op, job.operands.index
        k = job.load.row + np.arange(job.strip_rows) if job.stationary is Stationary.IS else index[index >= 0]
        return StripTrace(
            len(self.products) - 1,
            job.stationary,
            cycles,
            job.count,
            self.weight_bytes,
            np.unique(k % op.channels),
            op.images * op.height * op.width,
            job.destination(0)[0],
            job.data.positions,
        )


def _fewest_cycles(job: StripJob, counts: Counts) -> int:
    """What multiplications, or operands and sums that cross the edges, take when every PE and link is busy in every cycle."""
    rows, cols, lanes = job.rows, job.cols, job.config.lanes
    widths = {Stationary.OS: (rows, cols * lanes), Stationary.WS: (cols, rows * lanes), Stationary.IS: (rows, cols)}
    weights, data = widths[job.stationary]
    uses = ((counts.macs, rows * cols), (counts.weight_values, weights), (counts.data_values, data), (counts.output_writes, cols))
    return max(-(-amount // width) for amount, width in uses)


def _check(job: StripJob, offset: int) -> None:
    """StreamError when a strip names rows of X that are not there."""
    if job.stationary is Stationary.IS:
        last = job.load.row + job.strip_rows - 1
    else:
        last = int(job.operands.index.max())
    if last >= job.data.extent:
        raise StreamError(offset, f"the strip multiplies row {last} of X, which has {job.data.extent}")
