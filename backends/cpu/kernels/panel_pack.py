"""Weights of panel kernels: which runs a panel has, where they read, and the packed array. Pure numpy.

Weights are seen as w[OC, KH, KW, IC] (for other than two spatial dimensions, any number of tap dimensions in the middle); a
MatMul constant [K, N] is its transpose [N, K].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from sparsec.compiler.errors import LimitError

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Runs:
    """The runs of every panel, in order: each reads `k_run` channels from `channel` on at kernel tap `tap` (row-major over taps).

    `begin[p]` to `begin[p + 1]` are panel p's; when `shared`, all panels have the same list, given once.
    """

    channel: Array
    tap: Array
    begin: Array
    k_run: int
    shared: bool

    def offsets(self, channel_offset: Array, tap_offset: Array) -> Array:
        """int32 input offsets, given the offset in elements of every channel and of every tap."""
        offsets = channel_offset[self.channel] + tap_offset[self.tap]
        if offsets.size and max(abs(int(offsets.min())), abs(int(offsets.max()))) >= 2**31:
            raise LimitError("a convolution reads inputs more than 2^31 elements apart: reduce its batch or image")
        return offsets.astype(np.int32)


def tap_offsets(kernel: Sequence[int], dilations: Sequence[int], pads: Sequence[int], strides: Sequence[int]) -> Array:
    """Offset of every kernel tap from an output position's input; `strides` are the input's, in elements, one a tap dimension."""
    taps = product(*(range(k) for k in kernel))
    dims = list(zip(dilations, pads, strides, strict=True))
    return np.array([sum((k * d - p) * s for k, (d, p, s) in zip(tap, dims, strict=True)) for tap in taps], np.int64)


def blocked_channels(channels: int, block: int, x_block: int) -> Array:
    """Offset of every channel (lanes of the last block included) in blocked storage whose blocks are `x_block` elements apart."""
    c = np.arange(-(-channels // block) * block)
    return c // block * x_block + c % block


def dense_runs(channels: int, taps: int, k_run: int) -> Runs:
    """Runs of a dense convolution: for every `k_run` channels, every tap. k_run divides the input's channel block.

    Over planar input (blocks of one channel) a run is one row. Adjacent taps are not one longer run: neighbouring positions share
    inputs there, and compilers that see it keep the broadcast inputs of several rows alive and spill accumulators.
    """
    pieces = -(-channels // k_run)
    channel, tap = np.repeat(np.arange(pieces) * k_run, taps), np.tile(np.arange(taps), pieces)
    return Runs(channel, tap, np.array([0, channel.size]), k_run, shared=True)


def grouped_runs(
    channels: int, taps: int, k_run: int, groups: int, out_channels: int, width: int, first_out: int = 0, last_out: int = 0
) -> Runs:
    """Runs of a grouped convolution: a panel of `width` outputs reads the channels of the groups that its outputs belong to.

    `k_run` divides the channels of a group and the input's channel block. Outputs are those in [first_out, last_out), or all.
    """
    per_out, per_in = out_channels // groups, channels // groups
    channel: list[int] = []
    tap: list[int] = []
    begin = [0]
    end = last_out or out_channels
    for first in range(first_out, end, width):
        last = min(first + width, end) - 1
        for start in range(first // per_out * per_in, (last // per_out + 1) * per_in, k_run):
            channel += [start] * taps
            tap += range(taps)
        begin.append(len(channel))
    return Runs(np.array(channel), np.array(tap), np.array(begin), k_run, shared=False)


def occupied_rows(w: Array, width: int) -> Array:
    """bool [panels, taps, IC]: which weight rows of each panel of `width` outputs are not zero throughout. w: [OC, taps, IC]."""
    panels = -(-w.shape[0] // width)
    padded = np.zeros((panels * width, *w.shape[1:]), bool)
    np.not_equal(w, 0, out=padded[: w.shape[0]])
    occupied: Array = np.logical_or.reduce(padded.reshape(panels, width, *w.shape[1:]), axis=1)
    return occupied


def sparse_runs(w: Array, width: int, block: int) -> Runs:
    """One run for every weight row that is not zero throughout its panel, in the order in which dense runs read the input.

    `block`: channels of one block of the input, within which taps are the outer loop.
    """
    occupied = occupied_rows(w, width)
    panels, taps, channels = occupied.shape
    blocks = -(-channels // block)
    padded = np.zeros((panels, taps, blocks * block), bool)
    padded[:, :, :channels] = occupied
    panel, at, tap, lane = np.nonzero(padded.reshape(panels, taps, blocks, block).transpose(0, 2, 1, 3))
    begin = np.searchsorted(panel, np.arange(panels + 1))
    return Runs(at * block + lane, tap, begin, 1, shared=False)


def expand_groups(w: Array, groups: int) -> Array:
    """[OC, taps..., IC / groups] with zeros for the channels of other groups: [OC, taps..., IC]."""
    per_out, per_in = w.shape[0] // groups, w.shape[-1]
    full = np.zeros((*w.shape[:-1], per_in * groups), w.dtype)
    for g in range(groups):
        full[g * per_out : (g + 1) * per_out, ..., g * per_in : (g + 1) * per_in] = w[g * per_out : (g + 1) * per_out]
    return full


def joined(w: Array, channels: int) -> Array:
    """Weights [..., IC] as unsigned integers [..., IC / channels] of the same bytes, zeros in place of channels that lack.

    Negative zeros become positive ones: zeros are told by their bits from here on.
    """
    padded = np.zeros((*w.shape[:-1], -(-w.shape[-1] // channels) * channels), w.dtype)
    padded[..., : w.shape[-1]] = np.where(w == 0, np.zeros_like(w), w)
    return padded.view(f"u{channels * w.itemsize}")


def pack(w: Array, runs: Runs, r: int, lanes: int) -> Array:
    """Weights [panel][run][k_run][r * lanes] of w[OC, taps..., IC], zero beyond OC and IC, as one vector of w's type."""
    width, channels = r * lanes, w.shape[-1]
    panels = -(-w.shape[0] // width)
    at = runs.channel[:, None] + np.arange(runs.k_run)
    flat = w.reshape(w.shape[0], -1, channels)
    padded = np.zeros((panels * width, flat.shape[1], max(int(at.max(initial=0)) + 1, channels)), w.dtype)
    padded[: w.shape[0], :, :channels] = flat
    parts = []
    for p in range(panels):
        rows = slice(None) if runs.shared else slice(runs.begin[p], runs.begin[p + 1])
        parts.append(np.moveaxis(padded[p * width : (p + 1) * width, runs.tap[rows, None], at[rows]], 0, -1).ravel())
    return np.concatenate(parts)
