"""Ranges of activations, from histograms that are filled batch by batch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
HALF = 4096  # bins on each side of 0
LEVELS = 255  # steps of uint8


class Method(StrEnum):
    """How the range that bytes cover is chosen; what lies outside saturates.

    minmax: all that was seen. percentile: without the tails. mse: with the least squared error. entropy: with the least
    Kullback-Leibler divergence of the distribution (Migacz, "8-bit inference with TensorRT", GTC 2017).
    """

    minmax = "minmax"
    percentile = "percentile"
    mse = "mse"
    entropy = "entropy"


@dataclass(frozen=True, slots=True)
class Affine:
    """A real number r is the byte round(r / scale) + zero; `scale` is a float32 number."""

    scale: float
    zero: int

    @property
    def low(self) -> float:
        """The smallest number that a byte stands for."""
        return -self.zero * self.scale

    @property
    def high(self) -> float:
        """The largest."""
        return (LEVELS - self.zero) * self.scale


class Histogram:
    """Counts of values in 2 * HALF equal bins over [-reach, reach], and the exact minimum and maximum.

    The reach is a power of two and doubles when values lie outside: two bins become one, so that the counts are those of all
    values in the final bins, in whatever batches they came.
    """

    def __init__(self) -> None:
        """Empty."""
        self.counts = np.zeros(2 * HALF, np.int64)
        self.reach = 0.0
        self.low, self.high = math.inf, -math.inf

    def add(self, values: Array) -> bool:
        """Count the values; False, and nothing counted, when one is NaN or infinite."""
        if not values.size:
            return True
        low, high = float(values.min()), float(values.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            return False
        self.low, self.high = min(self.low, low), max(self.high, high)
        largest = max(abs(low), abs(high))
        if largest > self.reach:
            self._grow(2.0 ** math.ceil(math.log2(max(largest, 1e-30))))
        if self.reach:
            places = np.floor(values.reshape(-1) * np.float64(HALF / self.reach)).astype(np.int64) + HALF
            self.counts += np.bincount(np.minimum(places, 2 * HALF - 1), minlength=2 * HALF)
        else:
            self.counts[HALF] += values.size  # zeros only: whatever the width, they are in this bin
        return True

    def merge(self, other: Histogram) -> None:
        """Count what `other` has counted, too."""
        copy = Histogram()
        copy.counts, copy.reach = other.counts.copy(), other.reach
        reach = max(self.reach, other.reach)
        self._grow(reach)
        copy._grow(reach)
        self.counts = self.counts + copy.counts
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)

    def _grow(self, reach: float) -> None:
        while 0 < self.reach < reach:
            pairs = self.counts.reshape(HALF, 2).sum(axis=1)
            self.counts = np.zeros_like(self.counts)
            self.counts[HALF // 2 : HALF // 2 + HALF] = pairs
            self.reach *= 2
        self.reach = max(self.reach, reach)

    @property
    def centres(self) -> Array:
        """The middle of every bin, but exact minimum and maximum where they lie nearer to 0."""
        width = self.reach / HALF
        middles: Array = (np.arange(2 * HALF) - HALF + 0.5) * width
        return middles.clip(self.low, self.high)


def choose(histogram: Histogram, method: Method, percentile: float = 99.99, *, power_of_two: bool = False) -> Affine:
    """Scale and zero point for what was counted. 0 is a byte exactly; all zeros get the scale 1."""
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    if not low < high:
        return Affine(1.0, 0)
    if method is Method.percentile:
        low, high = _percentile(histogram, percentile)
    elif method is Method.mse:
        low, high = _least_error(histogram)
    elif method is Method.entropy:
        reach = _least_divergence(histogram)
        low, high = max(low, -reach), min(high, reach)
    return _rounded(histogram, low, high) if power_of_two else affine(low, high)


def affine(low: float, high: float) -> Affine:
    """The parameters whose bytes cover [low, high], which holds 0."""
    scale = float(np.float32(max(high - low, 1e-30) / LEVELS))
    return Affine(scale, min(max(round(-low / scale), 0), LEVELS))


def squared_error(histogram: Histogram, found: Affine) -> float:
    """Sum of squared differences between what was counted and the bytes that it becomes."""
    used = np.flatnonzero(histogram.counts)
    x = histogram.centres[used]
    q = np.clip(np.rint(x / found.scale) + found.zero, 0, LEVELS)
    return float(((x - (q - found.zero) * found.scale) ** 2 * histogram.counts[used]).sum())


def _percentile(histogram: Histogram, percentile: float) -> tuple[float, float]:
    """The range without the (100 - percentile) / 2 per cent at either end, stretched to hold 0."""
    share = np.cumsum(histogram.counts) / histogram.counts.sum()
    tail, width = (1 - percentile / 100) / 2, histogram.reach / HALF
    first, last = np.searchsorted(share, tail, side="right"), np.searchsorted(share, 1 - tail)
    low, high = (first - HALF) * width, (min(int(last), 2 * HALF - 1) - HALF + 1) * width
    return min(max(low, histogram.low), 0.0), max(min(high, histogram.high), 0.0)


def _least_error(histogram: Histogram) -> tuple[float, float]:
    """Both ends drawn in, in turn, where that lowers the squared error."""
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    best, steps = squared_error(histogram, affine(low, high)), np.linspace(0.02, 1, 50)
    for _ in range(2):
        for end in ("high", "low"):
            whole = (histogram.high if end == "high" else histogram.low) * steps
            for x in map(float, whole if low < 0 < high or (end == "high") == (high > 0) else ()):
                tried = (low, x) if end == "high" else (x, high)
                error = squared_error(histogram, affine(*tried)) if tried[0] <= 0 <= tried[1] else math.inf
                if error < best:
                    best, (low, high) = error, tried
    return low, high


def _least_divergence(histogram: Histogram) -> float:
    """The reach r for which |x| clipped to r is least divergent from what 128 levels keep of it."""
    folded = histogram.counts[HALF:] + histogram.counts[:HALF][::-1]
    folded = folded.astype(np.float64)
    folded[0] = 0  # zeros are exact
    last = int(np.flatnonzero(folded)[-1]) + 1 if folded.any() else HALF
    best, chosen = math.inf, last
    for stop in range(max(last // 64, 128), last + 1, max(last // 128, 1)):
        p = folded[:stop].copy()
        p[-1] += folded[stop:].sum()
        found = _divergence(p, folded[:stop])
        if found < best:
            best, chosen = found, stop
    return chosen * histogram.reach / HALF if chosen < last else max(-histogram.low, histogram.high)


def _divergence(p: Array, inner: Array, levels: int = 128) -> float:
    """KL(p || q), q the bins of `inner` spread evenly over the nonempty ones of each of `levels` pieces."""
    piece = np.arange(len(p)) * levels // len(p)
    sums = np.bincount(piece, inner, minlength=levels)
    filled = np.bincount(piece, inner > 0, minlength=levels)
    q = np.where(inner > 0, (sums / np.maximum(filled, 1))[piece], 0.0)
    p, q = p / p.sum(), q / max(q.sum(), 1e-300)
    some = p > 0
    return float((p[some] * np.log(p[some] / np.maximum(q[some], 1e-12))).sum())


def _rounded(histogram: Histogram, low: float, high: float) -> Affine:
    """Of the two powers of two next to the scale, the one with the smaller squared error; the zero point is even.

    An even number can be added before halves are rounded to even, where integer shifts add it, or behind: the byte is the same.
    """
    exponent = math.log2(max(high - low, 1e-30) / LEVELS)
    found = []
    for e in {math.floor(exponent), math.ceil(exponent)}:
        scale = 2.0**e
        span = LEVELS * scale
        zero = (
            0
            if low == 0
            else LEVELS
            if high == 0
            else round(-low / (high - low) * LEVELS)
            if span < high - low
            else round(-low / scale)
        )
        even = zero - zero % 2 if zero < LEVELS / 2 else zero + zero % 2
        found.append(Affine(scale, min(max(even, 0), LEVELS - LEVELS % 2)))
    return min(found, key=lambda a: (squared_error(histogram, a), a.scale))
