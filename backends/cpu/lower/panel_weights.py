"""Weights of a linear layer as the panel kernel reads them, part by part."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd
from typing import Any

import numpy as np

from sparsec.backends.cpu.kernels.panel_pack import Runs, dense_runs, expand_groups, grouped_runs, pack, sparse_runs

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class PanelWeights:
    """`w` is [OC, taps, IC / groups]; the offsets say where an input channel and a tap are read, in elements.

    `block` > 0: the weights are sparse, and rows that are zero throughout a panel are left out; it is the input's channel block.
    """

    w: Array
    groups: int
    k_run: int
    channel_offset: Array
    tap_offset: Array
    block: int = 0

    def part(self, first: int, width: int, panels: int) -> tuple[Array, Array, Array]:
        """Run offsets, where each panel's begin, and weights of `panels` panels of `width` outputs from output `first` on."""
        last = min(first + width * panels, self.w.shape[0])
        outputs = self.w if self.groups == 1 else expand_groups(self.w, self.groups)
        runs = sparse_runs(outputs[first:last], width, self.block) if self.block else self._runs(first, last, width)
        packed = pack(outputs[first:last], runs, width, 1)
        return runs.offsets(self.channel_offset, self.tap_offset), runs.begin.astype(np.int32), packed

    def _runs(self, first: int, last: int, width: int) -> Runs:
        oc, taps, per_in = self.w.shape
        if self.groups == 1:
            return dense_runs(per_in, taps, self.k_run)
        return grouped_runs(per_in * self.groups, taps, self.k_run, self.groups, oc, width, first, last)


def run_length(per_group: int, groups: int, block: int) -> int:
    """Consecutive channels that a run reads: a power of two that divides the block, long where little padding results."""
    if groups > 1:
        return gcd(per_group, block)
    best = block
    while best > 1 and -(-per_group // best) * best * 20 > 21 * per_group:
        best //= 2
    return best
