"""The simulator by PEs: registers move by one PE a cycle, and cycles are counted until none is left that could multiply."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np

from sparsec.backends.systolic.isa import Stationary
from sparsec.backends.systolic.simulate.counts import Counts
from sparsec.backends.systolic.simulate.job import StripJob
from sparsec.compiler.errors import InternalError

Array = np.ndarray[Any, Any]
NONE = -1  # tag of a register that holds no operand


@dataclass
class _Shadow:
    """Registers below which sums of an output-stationary array leave, a row a cycle, while the next fold runs."""

    held: list[Array] = field(default_factory=list)  # rows still inside, the lowest last
    job: StripJob | None = None
    iteration: int = 0
    left: list[Array] = field(default_factory=list)

    def clock(self) -> None:
        if not self.held:
            return
        self.left.append(self.held.pop())
        if not self.held:
            assert self.job is not None
            rows, columns = self.job.destination(self.iteration)
            sums = np.array(self.left[::-1])[: len(rows), : len(columns)]
            self.job.output.put(rows, columns, sums, self.job.adds(self.iteration))

    def start(self, job: StripJob, iteration: int, sums: Array) -> None:
        if self.held:
            raise InternalError("sums of a fold are ready before those of the fold before have left")
        self.held, self.job, self.iteration, self.left = list(sums.copy()), job, iteration, []


@dataclass
class Pes:
    """Moves and multiplies in every PE, cycle by cycle."""

    shadow: _Shadow = field(default_factory=_Shadow)

    def strip(self, job: StripJob) -> Counts:
        counts = Counts()
        for i in range(job.count):
            if job.stationary is Stationary.OS:
                self._output_stationary(job, i, counts)
            else:
                self._resident(job, i, counts)
            counts.folds += 1
        if job.stationary is Stationary.WS:
            counts.index_bytes = job.operands.index_bytes
        return counts

    def finish(self, counts: Counts) -> None:
        while self.shadow.held:
            self.shadow.clock()
            counts.tail += 1

    def _output_stationary(self, job: StripJob, i: int, counts: Counts) -> None:
        """Weights move right, data move down, and sums stay."""
        rows, cols, weights, tile = job.rows, job.cols, job.operands, job.tile(i)
        steps = len(weights.values)
        left, left_lanes, top = _widened(weights.values, rows), _widened(weights.lane, rows), self._data_moves(job, tile, counts)
        _count_weights(job, np.arange(steps), counts)
        counts.index_bytes += weights.index_bytes
        w_tag, x_tag = np.full((rows, cols), NONE), np.full((rows, cols), NONE)
        w, lane = np.zeros((rows, cols), job.sum_type), np.zeros((rows, cols), np.int64)
        x, sums = np.zeros((rows, cols, top.shape[2]), job.sum_type), np.zeros((rows, cols), job.sum_type)
        real = np.arange(cols) < len(tile)
        for time in count():
            w_in, x_in = _entering(time, rows, steps), _entering(time, cols, steps)
            w_tag, w, lane = (
                _right(registers, edge)
                for registers, edge in ((w_tag, w_in), (w, left[w_in, range(rows)]), (lane, left_lanes[w_in, range(rows)]))
            )
            x_tag, x = _down(x_tag, x_in), _down(x, top[x_in, range(cols)])
            active = w_tag != NONE
            if not active.any():
                break
            if (w_tag != x_tag).any():
                raise InternalError(f"operands of different steps meet in cycle {time}")
            sums = np.where(active, sums + w * _chosen(x, lane), sums)
            counts.macs += int((active & (w != 0) & real).sum())
            self._clock(counts)
        self.shadow.start(job, i, sums)
        self._count_outputs(job, i, counts)

    def _resident(self, job: StripJob, i: int, counts: Counts) -> None:
        """Weights (WS) or data (IS) stay, the other moves right, and sums move down."""
        rows, cols, resident_weights = job.rows, job.cols, job.stationary is Stationary.WS
        stay, stay_lane, stream, real = (
            self._weights_stay(job, i, counts) if resident_weights else self._data_stay(job, i, counts)
        )
        assert job.move is not None
        held, lane = np.zeros((rows, cols), job.sum_type), np.zeros((rows, cols), np.int64)
        for row in reversed(range(job.move.count)):
            held, lane = _down(held, stay[row]), _down(lane, stay_lane[row])
            counts.preload += 1
            self._clock(counts)
        steps = len(stream)
        tag, x = np.full((rows, cols), NONE), np.zeros((rows, cols, stream.shape[2]), job.sum_type)
        sum_tag, sums = np.full((rows, cols), NONE), np.zeros((rows, cols), job.sum_type)
        out = np.zeros((steps, cols), job.sum_type)
        for time in count():
            entering = _entering(time, rows, steps)
            tag, x = _right(tag, entering), _right(x, stream[entering, range(rows)])
            active = tag != NONE
            if not active.any():
                break
            above_tag, above = _down(sum_tag, tag[0]), _down(sums, np.zeros(cols))
            if (above_tag != tag)[active].any():
                raise InternalError(f"a sum and an operand of different steps meet in cycle {time}")
            sum_tag, sums = tag, np.where(active, above + held * _chosen(x, lane), 0)
            counts.macs += int((active & ((held if resident_weights else x[:, :, 0]) != 0) & real).sum())
            done = np.flatnonzero(sum_tag[-1] != NONE)
            out[sum_tag[-1, done], done] = sums[-1, done]
            self._clock(counts)
        to, across = job.destination(i)
        job.output.put(to, across, out[:, : len(to)].T if resident_weights else out[:, : len(across)], job.adds(i))
        self._count_outputs(job, i, counts)

    def _clock(self, counts: Counts) -> None:
        """The end of a cycle."""
        self.shadow.clock()
        counts.cycles += 1

    def _data_moves(self, job: StripJob, tile: Array, counts: Counts) -> Array:
        """Data that enter at the top, [steps, cols, lanes]."""
        weights = job.operands
        top = np.zeros((len(weights.values), job.cols, weights.index.shape[1]), job.sum_type)
        for s, index in enumerate(weights.index):
            top[s, : len(tile)], read = job.data.gather(index[None, :], tile[:, None])
            if s == 0 or job.fresh[s]:
                _count_data(index, read, counts)
        return top

    def _weights_stay(self, job: StripJob, i: int, counts: Counts) -> tuple[Array, Array, Array, Array]:
        """Resident weights and their lanes [rows, cols], data that move [N, rows, lanes], and which columns are in use."""
        weights, steps, n = job.operands, job.chunk(i), job.data.positions
        stay, lane = np.zeros((job.rows, job.cols), job.sum_type), np.zeros((job.rows, job.cols), np.int64)
        stream = np.zeros((n, job.rows, weights.index.shape[1]), job.sum_type)
        for row, s in enumerate(steps):
            stay[row, : job.strip_rows], lane[row, : job.strip_rows] = weights.values[s], weights.lane[s]
            stream[:, row], read = job.data.gather(weights.index[s][None, :], np.arange(n)[:, None])
            if row == 0 or job.fresh[s]:
                _count_data(weights.index[s], read, counts)
        _count_weights(job, steps, counts)
        return stay, lane, stream, np.ones(job.cols, bool)

    def _data_stay(self, job: StripJob, i: int, counts: Counts) -> tuple[Array, Array, Array, Array]:
        """The same with the data resident, and the weights moving, [steps, rows, 1]."""
        tile, k = job.tile(i), job.load.row + np.arange(job.strip_rows)
        stay = np.zeros((job.rows, job.cols), job.sum_type)
        stay[: len(k), : len(tile)], read = job.data.gather(k[:, None], tile)
        _count_data(k, read, counts)
        _count_weights(job, np.arange(len(job.operands.values)), counts)
        counts.index_bytes += job.operands.index_bytes
        stream = _widened(job.operands.values, job.rows).astype(job.sum_type)[:, :, None]
        return stay, np.zeros(stay.shape, np.int64), stream, np.arange(job.cols) < len(tile)

    def _count_outputs(self, job: StripJob, i: int, counts: Counts) -> None:
        rows, columns = job.destination(i)
        counts.output_writes += len(rows) * len(columns)
        counts.output_reads += len(rows) * len(columns) * job.adds(i)


def _count_data(k: Array, read: Array, counts: Counts) -> None:
    """Elements that were asked for, of which some are padding; a row of -1 is asked for by nobody."""
    asked = read.size // len(k) * int((k >= 0).sum())
    counts.data_values += int(read.sum())
    counts.injected_data += asked - int(read.sum())


def _count_weights(job: StripJob, steps: Array, counts: Counts) -> None:
    stored = int(job.operands.stored[steps].sum())
    counts.weight_values += stored
    counts.injected_weights += len(steps) * job.strip_rows - stored


def _widened(values: Array, rows: int) -> Array:
    """[steps, rows] with zeros for the rows that a strip lacks."""
    return np.pad(values, ((0, 0), (0, rows - values.shape[1])))


def _entering(time: int, side: int, steps: int) -> Array:
    """The step that enters each row (or column) in a cycle: later by one from each to the next."""
    step = time - np.arange(side)
    return np.where((step >= 0) & (step < steps), step, NONE)


def _chosen(x: Array, lane: Array) -> Array:
    """Of every PE's values [rows, cols, lanes] the one that its lane names."""
    return np.asarray(np.take_along_axis(x, lane[:, :, None], axis=2)[:, :, 0])


def _right(registers: Array, entering: Array) -> Array:
    """Every register takes what its left neighbour held."""
    return np.concatenate([entering[:, None].astype(registers.dtype), registers[:, :-1]], axis=1)


def _down(registers: Array, entering: Array) -> Array:
    """Every register takes what the one above held."""
    return np.concatenate([entering[None].astype(registers.dtype), registers[:-1]], axis=0)
