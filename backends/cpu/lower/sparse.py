"""Weights with zeros: panels that list only the weight rows that they need.

A weight row is one input (channel and tap) for all outputs of a panel; it is left out where all its weights are zero. Patterns
that outputs share (N:M over 16 or 32 rows, blocks of 16 or 32 rows, whole channels) lose nothing by that; patterns of single
rows fill in, and the prediction then says that the dense kernel is faster.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil
from typing import Any

import numpy as np

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernels.panel_pack import occupied_rows
from sparsec.backends.cpu.lower.linear import Linear, LinearPlan, plan_linear

Array = np.ndarray[Any, Any]
_WORTH_A_LOOK = 0.9  # share of non-zero weights above which rows cannot be empty often enough
_WIDEST = 4  # vectors of outputs


def mean_rows(w: Array, lanes: int) -> dict[int, int]:
    """Mean number of occupied weight rows of a panel, by its vectors of outputs; empty for dense weights. w: [OC, taps, IC]."""
    if np.count_nonzero(w) > _WORTH_A_LOOK * w.size:
        return {}
    single = occupied_rows(w, lanes)
    rows = {}
    for r in range(1, min(_WIDEST, len(single)) + 1):
        panels = ceil(len(single) / r)
        padded = np.zeros((panels * r, *single.shape[1:]), bool)
        padded[: len(single)] = single
        rows[r] = max(1, ceil(np.count_nonzero(padded.reshape(panels, r, -1).any(axis=1)) / panels))
    return rows


def plan_sparse(p: Linear, w: Array, isa: Isa, tail_lanes: int) -> LinearPlan | None:
    """The cheapest plan over panels with lists of their own, as predicted; None for dense weights. w: [OC, taps, IC]."""
    plans = []
    for r, rows in mean_rows(w, isa.lanes).items():
        listed = replace(p, k_run=1, shared=False, sparse=True, rows=rows, n_runs=rows, lines=p.lines or p.rows)
        plans.append(plan_linear(listed, isa, tail_lanes, vectors=r))
    return min(plans, key=lambda plan: plan.cycles, default=None)
