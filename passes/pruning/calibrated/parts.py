"""Parts of calibration data: some samples to prune with, others to compare by, others to check the result with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from sparsec.compiler.errors import UsageError
from sparsec.passes.pruning.calibrated.data import Samples

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Part:
    """Some of the batches of `whole`, by number, in the order in which they were drawn."""

    whole: Samples
    batches: tuple[int, ...]

    @property
    def samples(self) -> Samples:
        """Their samples."""
        return Samples(tuple(self.whole.batches[i] for i in self.batches))

    @property
    def numbers(self) -> Array:
        """The places of their samples in the whole data, int64, in the same order."""
        sizes = self.whole.sizes()
        ends = np.cumsum(sizes)
        return np.concatenate([np.arange(ends[i] - sizes[i], ends[i]) for i in self.batches])

    def first(self, samples: int) -> Part:
        """As many of its batches as hold so many samples, if it has so many."""
        sizes = self.whole.sizes()
        enough = int(np.searchsorted(np.cumsum([sizes[i] for i in self.batches]), samples)) + 1
        return Part(self.whole, self.batches[:enough])


def divide(samples: Samples, most: Sequence[int | None], seed: int) -> tuple[Part, ...]:
    """Parts that share no batch, drawn at random: an equal one for each of `most`, cut off at so many samples.

    The first without bound (None) gets what the others leave. UsageError where there are fewer batches than parts.
    """
    count = len(most)
    if len(samples) < count:
        raise UsageError(
            f"{len(samples)} sample{'s' if len(samples) > 1 else ''} cannot be divided into {count} parts, to prune with and to "
            f"measure by: give more"
        )
    order = tuple(map(int, np.random.default_rng(seed).permutation(len(samples))))
    bounds = [len(order) * i // count for i in range(count + 1)]
    drawn = [Part(samples, order[begin:end]) for begin, end in pairwise(bounds)]
    parts = [part if bound is None else part.first(bound) for part, bound in zip(drawn, most, strict=True)]
    if None in most:
        taken = {i for part in parts for i in part.batches}
        greedy = most.index(None)
        parts[greedy] = Part(samples, (*parts[greedy].batches, *(i for i in order if i not in taken)))
    return tuple(parts)
