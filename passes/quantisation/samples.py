"""Parts of calibration data."""

from __future__ import annotations

from sparsec.passes.pruning.calibrated.data import Samples


def count_of(samples: Samples) -> int:
    """Samples along the first dimension of the first input that has one; one a batch for inputs without."""
    return sum(next((len(a) for a in feeds.values() if a.ndim), 1) for feeds in samples)


def spread(samples: Samples, count: int) -> Samples:
    """About `count` samples, in whole batches from all over."""
    return Samples(samples.batches[:: max(1, count_of(samples) // max(count, 1))])
