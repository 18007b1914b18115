"""Cycles of a product on an array, by formula. The papers do not publish theirs: THESE ARE OURS.

Of W[M, K] X[K, N] on R x C PEs. A fold of an output-stationary array takes its steps and R + C - 2 cycles of skew; one of the
others R cycles to shift the resident tile in, then the vectors that stream by, and the skew. Folds do not overlap, and partial
ones take as long as whole ones. Dense, this is what SCALE-Sim (Samajdar et al., ISPASS 2020) version 3.0.0 counts, but for its
totals, which are one less. Counted is up to the last multiplication: R more cycles drain the last fold of an output-stationary
array.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sparsec.backends.systolic.dataflow import Dataflow
from sparsec.backends.systolic.isa import Stationary
from sparsec.backends.systolic.packing import merged_counts

Array = np.ndarray[Any, Any]


def folds(extent: int, side: int) -> int:
    """How often `side` is filled by `extent`."""
    return -(-extent // side)


def fold_cycles(stationary: Stationary, rows: int, cols: int, steps: int) -> int:
    """Cycles of one fold that `steps` operands stream through."""
    return steps + rows + cols - 2 + (0 if stationary is Stationary.OS else rows)


def dense_cycles(dataflow: Dataflow, rows: int, cols: int, m: int, k: int, n: int) -> int:
    """Cycles of dOS, dWS or dIS."""
    match dataflow.stationary:
        case Stationary.OS:
            count, steps = folds(m, rows) * folds(n, cols), k
        case Stationary.WS:
            count, steps = folds(k, rows) * folds(m, cols), n
        case Stationary.IS:
            count, steps = folds(k, rows) * folds(n, cols), m
    return count * fold_cycles(dataflow.stationary, rows, cols, steps)


def strip_steps(nonzero: Array, side: int) -> Array:
    """Of a mask [rows, columns], in strips of `side` rows: how many columns each strip has a nonzero element in."""
    missing = -nonzero.shape[0] % side
    full = np.pad(nonzero, ((0, missing), (0, 0))) if missing else nonzero
    return np.asarray(full.reshape(-1, side, nonzero.shape[1]).any(axis=1).sum(axis=1))


def sparse_cycles(dataflow: Dataflow, rows: int, cols: int, nonzero: Array, n: int, lanes: int = 1) -> int:
    """Cycles of sOS, csOS (merging at most `lanes` columns), sWS or sIS; `nonzero` [M, K] says which weights are not zero."""
    match dataflow:
        case Dataflow.SOS | Dataflow.CSOS:
            steps = strip_steps(nonzero, rows) if dataflow is Dataflow.SOS else merged_counts(nonzero, rows, lanes)
            return int(sum(fold_cycles(Stationary.OS, rows, cols, int(s)) for s in steps if s)) * folds(n, cols)
        case Dataflow.SWS:
            count = int(sum(folds(int(s), rows) for s in strip_steps(nonzero, cols)))
            return count * fold_cycles(Stationary.WS, rows, cols, n)
        case Dataflow.SIS:
            steps = strip_steps(nonzero.T, rows)
            return int(sum(fold_cycles(Stationary.IS, rows, cols, int(s)) for s in steps if s)) * folds(n, cols)
    raise ValueError(f"{dataflow.value} leaves no zeros out by a mask")


def grouped_cycles(dataflow: Dataflow, rows: int, cols: int, m: int, k: int, n: int, keep: int, group: int) -> int:
    """Cycles of nmOS or nmWS: K counts as `keep` elements a group of `group`."""
    dense = Dataflow.DOS if dataflow is Dataflow.NMOS else Dataflow.DWS
    return dense_cycles(dense, rows, cols, m, folds(k, group) * keep, n)


def roofline(rows: int, cols: int, macs: int) -> int:
    """Cycles that `macs` multiplications take when every PE does one a cycle."""
    return folds(macs, rows * cols)
