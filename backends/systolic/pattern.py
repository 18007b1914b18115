"""Pruning for an array: vectors of weights as long as a side of it, so that whole steps of a strip vanish."""

from __future__ import annotations

from sparsec.backends.systolic.dataflow import Dataflow
from sparsec.backends.systolic.machine import Machine
from sparsec.compiler.errors import UsageError
from sparsec.compiler.sparsity import NM
from sparsec.compiler.sparsity.text import Goal, goal, parse_goal


def matched_goal(machine: Machine, dataflow: Dataflow, sparsity: float) -> Goal:
    """What to prune to for a sparse dataflow: `sparsec prune` takes its text, and orders channels for it.

    Output-stationary arrays leave out columns of W that are zero in R outputs, weight-stationary ones in C outputs: vectors of
    so many outputs at a tap and channel. Input-stationary ones leave out rows of W that are zero in R reduced elements: vectors
    of R channels of an output at a tap (they line up with strips where R divides the channels). n:m dataflows: n:m of 8.
    """
    if dataflow.grouped:
        keep = round(8 * (1 - sparsity))
        if not 0 < keep < 8 or abs(keep / 8 - (1 - sparsity)) > 1e-9:
            raise UsageError(f"{dataflow.value} keeps n of 8 weights: 12.5% to 87.5% by 12.5%, not {100 * sparsity:g}%")
        return goal(NM(keep, 8), None, f"{keep}:8")
    return parse_goal(f"flexisaga:{machine.rows}x{machine.cols}:{dataflow.value}@{100 * sparsity:g}%")
