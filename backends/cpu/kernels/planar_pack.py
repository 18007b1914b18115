"""Weights of planar kernels: lists of rows for subsets of a panel's outputs. Pure numpy.

Weights are [OC, rows], a row being what `row_order` puts there: an input channel at a kernel tap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class PlanarWeights:
    """What a planar kernel reads: weights (float32, or int32 of four bytes), list entries u8 or u16 (in units of k_run rows of
    the chunk), entries of each list u16 [chunk][panel][list], and where each [chunk][group] begins, int32 [entries, weights].
    """

    w: Array
    entries: Array
    counts: Array
    begin: Array

    @property
    def nbytes(self) -> int:
        """Bytes that one pass over all panels reads."""
        return int(self.w.nbytes + self.entries.nbytes + self.counts.nbytes + self.begin.nbytes)


def row_order(w: Array, block: int) -> Array:
    """[OC, rows] of filters w[OC, taps, IC]: for every `block` input channels (zeros beyond IC), every tap, every channel.

    block 1 with one tap is the order of planar channels.
    """
    oc, taps, ic = w.shape
    blocks = -(-ic // block)
    full = np.zeros((oc, taps, blocks * block), w.dtype)
    full[:, :, :ic] = w
    return np.ascontiguousarray(full.reshape(oc, taps, blocks, block).transpose(0, 2, 1, 3)).reshape(oc, -1)


def subsets(w: Array, r: int) -> Array:
    """uint8 [panels, rows]: which outputs of each panel of `r` (bit i: output i) have a weight other than zero there. r <= 8."""
    panels = -(-w.shape[0] // r)
    found = np.zeros((panels * r, w.shape[1]), bool)
    np.not_equal(w, 0, out=found[: w.shape[0]])
    packed: Array = np.packbits(found.reshape(panels, r, -1), axis=1, bitorder="little")[:, 0]
    return packed


def runs(subset: Array, k_run: int) -> Array:
    """bool [panels, rows / k_run]: whether any of k_run consecutive rows, from a multiple of k_run on, is needed."""
    panels, rows = subset.shape
    full = np.zeros((panels, -(-rows // k_run) * k_run), bool)
    full[:, :rows] = subset != 0
    return np.asarray(full.reshape(panels, -1, k_run).any(axis=2))


def pack(w: Array, r: int, masks: Sequence[int], k_run: int, chunk_rows: int, group_panels: int) -> PlanarWeights:
    """Lists of w[OC, rows]. One full mask takes every row that any output needs; otherwise `masks` holds what subsets occur.

    `chunk_rows` is a multiple of k_run, and k_run > 1 goes with one mask. ValueError when a subset has no list.
    """
    subset = subsets(w, r)
    panels, rows = subset.shape
    chunks, lists = -(-rows // chunk_rows), len(masks)
    padded = np.zeros((panels * r, -(-rows // k_run) * k_run), w.dtype)
    padded[: w.shape[0], :rows] = w
    shared = tuple(masks) == ((1 << r) - 1,)
    if shared:
        panel, run = np.nonzero(runs(subset, k_run))
        which = np.zeros(panel.size, np.int64)
        bits = np.ones((1, r), bool)
    else:
        if k_run != 1:
            raise ValueError("lists for subsets of outputs have entries of one row")
        number = np.full(1 << r, -1, np.int64)
        number[list(masks)] = np.arange(lists)
        panel, run = np.nonzero(subset)
        which = number[subset[panel, run]]
        if which.size and which.min() < 0:
            raise ValueError("a panel has a subset of outputs without a list")
        bits = (np.array(masks)[:, None] >> np.arange(r) & 1).astype(bool)
    chunk = run * k_run // chunk_rows
    key = (chunk * panels + panel) * lists + which
    order = np.argsort(key, kind="stable")
    key, panel, run, which, chunk = key[order], panel[order], run[order], which[order], chunk[order]
    counts = np.bincount(key, minlength=chunks * panels * lists)
    entries = run - chunk * (chunk_rows // k_run)
    blocks = padded.reshape(panels, r, -1, k_run)[panel, :, run].transpose(0, 2, 1)  # [entries, k_run, r]
    w_packed = blocks[np.broadcast_to(bits[which][:, None, :], blocks.shape)] if not shared else blocks.ravel()
    narrow = chunk_rows // k_run <= 256
    starts = (np.arange(chunks)[:, None] * panels + np.arange(0, panels, group_panels)[None]) * lists
    sizes = bits.sum(axis=1)[np.arange(counts.size) % lists] * k_run
    before = np.concatenate([[0], np.cumsum(counts)])
    weights_before = np.concatenate([[0], np.cumsum(counts * sizes)])
    begin = np.stack([before[starts], weights_before[starts]], axis=-1).astype(np.int32)
    return PlanarWeights(
        np.ascontiguousarray(w_packed),
        entries.astype(np.uint8 if narrow else np.uint16),
        counts.astype(np.uint16),
        begin,
    )
