"""The simulator by folds: whole networks. Cycles are those of the array's skew, values those of one product a strip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsec.backends.systolic.isa import Mode, Stationary
from sparsec.backends.systolic.simulate.counts import Counts
from sparsec.backends.systolic.simulate.job import StripJob

Array = np.ndarray[Any, Any]


@dataclass
class Folds:
    """Counts every fold, and computes sums when `values`."""

    values: bool = True
    draining: int = 0

    def strip(self, job: StripJob) -> Counts:
        counts = Counts()
        if job.stationary is not Stationary.WS:
            counts.index_bytes = job.count * job.operands.index_bytes
        else:
            counts.index_bytes = job.operands.index_bytes
        _Reads(job).count(counts)
        counts.folds = job.count
        skew = job.rows - 1 + job.cols - 1
        streamed = job.data.positions if job.stationary is Stationary.WS else len(job.operands.values)
        counts.preload = job.count * job.move.count if job.move else 0
        counts.cycles = job.count * (streamed + skew) + counts.preload
        self.draining = job.rows if job.stationary is Stationary.OS else 0
        if self.values:
            _store(job)
        return counts

    def finish(self, counts: Counts) -> None:
        counts.tail = self.draining


@dataclass(frozen=True)
class _Reads:
    """Accesses of all iterations of a strip."""

    job: StripJob

    def count(self, counts: Counts) -> None:
        job, weights = self.job, self.job.operands
        nonzero = np.count_nonzero(weights.values, axis=1)
        passes = job.count if self._alike else 1  # one look stands for so many iterations
        for i in range(job.count // passes):
            steps = job.chunk(i)
            columns = job.data.positions if self._alike else len(job.tile(i))
            stored, read, asked = passes * int(weights.stored[steps].sum()), *self._data(i, steps)
            counts.weight_values += stored
            counts.injected_weights += passes * len(steps) * job.strip_rows - stored
            counts.macs += int(nonzero[steps].sum()) * columns
            counts.data_values += read
            counts.injected_data += asked - read
            results = len(job.destination(i)[0]) * columns
            counts.output_writes += results
            counts.output_reads += results * job.adds(i)

    @property
    def _alike(self) -> bool:
        """Whether the iterations, which differ in their columns only, take every column of X once."""
        job = self.job
        covers = job.load.first == 0 and job.load.stride == job.cols and job.count * job.cols >= job.data.positions
        return job.stationary is not Stationary.WS and covers

    def _data(self, i: int, steps: Array) -> tuple[int, int]:
        """Elements of X read, and asked for, by iteration i (by all where they are alike)."""
        job = self.job
        if job.stationary is Stationary.IS:
            k = job.load.row + np.arange(job.strip_rows)
        else:
            fresh = job.fresh[steps].copy()
            fresh[0] = True
            k = job.operands.index[steps[fresh]]
            k = k[k >= 0]
        if self._alike or job.stationary is Stationary.WS:
            return int(job.data.inside[k].sum()), k.size * job.data.positions
        tile = job.tile(i)
        return int(job.data.gather(k.reshape(-1, 1), tile)[1].sum()), k.size * len(tile)


def _store(job: StripJob) -> None:
    """The sums of a strip: at once where its iterations do not meet, else one after the other."""
    resident = job.stationary is Stationary.WS
    if resident:
        apart = job.load.stride >= job.rows and job.drain.mode is not Mode.WRITE
    else:
        apart = min(job.load.stride, job.drain.stride) >= job.cols
    iterations = range(job.count)
    for part in [iterations] if apart else [[i] for i in iterations]:
        tile = job.tile(0) if resident else np.concatenate([job.tile(i) for i in part])
        steps = np.concatenate([job.chunk(i) for i in part]) if resident else job.chunk(0)
        rows, columns = job.destination(part[0])
        if not resident:
            columns = np.concatenate([job.destination(i)[1] for i in part])
        job.output.put(rows, columns, _product(job, steps, tile), job.adds(part[0]))


def _product(job: StripJob, steps: Array, tile: Array) -> Array:
    """Sums [rows of Y, tile] of the steps."""
    weights = job.operands
    whole = job.data.whole if len(tile) == job.data.positions else job.data.whole[:, tile]
    if job.stationary is Stationary.IS:
        w, x = weights.values[steps], whole[job.load.row : job.load.row + job.strip_rows]
    else:
        k = np.take_along_axis(weights.index[steps], weights.lane[steps], axis=1)  # [steps, rows]
        used = np.unique(k[k >= 0])
        w = np.zeros((job.strip_rows, len(used)), weights.values.dtype)
        step, row = np.nonzero(weights.values[steps])
        w[row, np.searchsorted(used, k[step, row])] = weights.values[steps][step, row]
        x = whole if len(used) == len(whole) else whole[used]
    if job.sum_type == np.float32:
        return np.asarray(w @ x)
    return np.asarray((w.astype(np.float64) @ x.astype(np.float64)).astype(np.int64).astype(np.int32))
