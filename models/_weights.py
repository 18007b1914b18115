"""Seeded weights: every tensor has its own random stream, keyed by the model's seed and the tensor's name.

Untrained networks easily become constant functions: after each ReLU all activations are positive, so a filter with a
non-zero sum passes on mostly the shared mean, and after some layers every input looks alike. Filters with enough taps
are therefore centred to sum to zero, and their gain makes up for the variance (not the second moment) that is left.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

# Var[relu(z)] for z ~ N(0, 1) is 1/2 - 1/(2 pi): the gain that keeps unit variance through a centred filter.
CENTRED_RELU_GAIN = 1.0 / math.sqrt(0.5 - 0.5 / math.pi)
# The usual He gain, for filters that are too small to centre.
RELU_GAIN = math.sqrt(2.0)
# A filter with fewer taps than this (depthwise, RGB stems) would turn into a high-pass filter by centring.
_MIN_CENTRED_TAPS = 32


class Weights:
    """Source of float32 arrays that depend only on the seed, the tensor's name and the shape."""

    def __init__(self, seed: int) -> None:
        """Keep the seed; streams are opened per tensor."""
        self._seed = seed

    def stream(self, name: str) -> np.random.Generator:
        """Open the random stream of the tensor called ``name``."""
        return np.random.Generator(np.random.SFC64([self._seed, zlib.crc32(name.encode())]))

    def normal(self, name: str, shape: Sequence[int], std: float, mean: float = 0.0) -> Floats:
        """Draw from N(mean, std**2)."""
        values = self.stream(name).standard_normal(tuple(shape), dtype=np.float32)
        values *= np.float32(std)
        if mean:
            values += np.float32(mean)
        return values

    def uniform(self, name: str, shape: Sequence[int], low: float, high: float) -> Floats:
        """Draw evenly from [low, high)."""
        values = self.stream(name).random(tuple(shape), dtype=np.float32)
        values *= np.float32(high - low)
        values += np.float32(low)
        return values

    def conv(self, name: str, shape: Sequence[int], gain: float = 1.0) -> Floats:
        """Draw a convolution or fully connected weight whose first axis is the output channel (OIHW or OI).

        ``gain`` is relative to the gain that keeps unit variance after a ReLU.
        """
        taps = math.prod(shape[1:])
        if taps < _MIN_CENTRED_TAPS:
            return self.normal(name, shape, gain * RELU_GAIN / math.sqrt(taps))
        values = self.normal(name, shape, gain * CENTRED_RELU_GAIN / math.sqrt(taps))
        values -= values.mean(axis=tuple(range(1, len(shape))), keepdims=True)
        return values

    def batch_norm(self, name: str, channels: int, scale: float = 1.0) -> tuple[Floats, Floats, Floats, Floats]:
        """Draw (scale, bias, mean, var), each [channels], about the statistics that ``conv`` leaves behind."""
        return (
            self.uniform(f"{name}.scale", (channels,), 0.8 * scale, 1.2 * scale),
            self.normal(f"{name}.bias", (channels,), 0.2 * scale),
            self.normal(f"{name}.mean", (channels,), 0.2),
            self.uniform(f"{name}.var", (channels,), 0.7, 1.4),
        )
