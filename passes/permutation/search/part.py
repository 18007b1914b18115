"""What a search is given, and the exact value of an order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sparsec.compiler.errors import UsageError
from sparsec.compiler.sparsity import HiNM
from sparsec.compiler.sparsity.text import Goal
from sparsec.passes.pruning.masks import choose, vector_count

Array = np.ndarray[Any, Any]
OUTPUTS, INPUTS = "outputs", "inputs"


@dataclass(frozen=True)
class Part:
    """Weights that a class of channels orders along one axis.

    `saliency` [OC, taps, IC]: how much each weight matters, finite and not negative. `axis`: "outputs" (OC) or "inputs" (IC).
    `index` [items, repeats]: the entries of that axis that each item of the class owns, which move together. `own_lists`: tiles
    of hierarchical n:m get an order of inputs of their own afterwards (`search.tiles`): only the choice of vectors counts.
    """

    saliency: Array
    goal: Goal
    axis: str
    index: Array
    own_lists: bool = False

    @property
    def items(self) -> int:
        """Channels of the class."""
        return int(self.index.shape[0])

    @property
    def extent(self) -> int:
        """Entries of the axis."""
        return int(self.saliency.shape[self._dimension])

    @property
    def _dimension(self) -> int:
        return 0 if self.axis == OUTPUTS else 2

    def ordered(self, order: Array) -> Part:
        """The same with the items in another order: item order[p] takes the entries that item p had."""
        source = np.arange(self.extent)
        source[self.index] = self.index[order]
        return replace(self, saliency=np.take(self.saliency, source, axis=self._dimension))

    def retained(self) -> float:
        """The sum of the saliency that the pattern keeps with the items as they are."""
        pattern = self.goal.pattern
        if isinstance(pattern, HiNM) and self.own_lists:
            return _kept_vectors(pattern, self.goal.sparsity, self.saliency)
        return float(self.saliency.sum(where=choose(self.goal, self.saliency).mask, dtype=np.float64))


def retained(parts: Sequence[Part], order: Array) -> float:
    """The sum of the saliency that the patterns of all parts keep with the items in `order` [items]: what searches maximise."""
    return sum(part.ordered(order).retained() for part in parts)


def _kept_vectors(pattern: HiNM, sparsity: float, saliency: Array) -> float:
    """The saliency of the input channels that the tiles keep, before n:m."""
    starts = np.arange(0, saliency.shape[0], pattern.v)
    sums = np.add.reduceat(saliency, starts, axis=0)
    drop = saliency.shape[2] - vector_count(pattern, sparsity, saliency.shape[2])
    return float(np.partition(sums, drop, axis=-1)[..., drop:].sum(dtype=np.float64)) if drop < saliency.shape[2] else 0.0


def check_parts(parts: Sequence[Part]) -> int:
    """How many items the parts order. UsageError for parts that cannot be of one class."""
    if not parts:
        raise UsageError("a search needs at least one part: weights that the class of channels orders")
    for number, part in enumerate(parts):
        if why := _fault(part, parts[0].items):
            raise UsageError(f"part {number} of the search ({part.goal} along its {part.axis}): {why}")
    return parts[0].items


def _fault(part: Part, items: int) -> str:
    if part.axis not in (OUTPUTS, INPUTS):
        return f"the axis is {part.axis!r}: expected {OUTPUTS!r} or {INPUTS!r}"
    if part.saliency.ndim != 3 or not np.issubdtype(part.saliency.dtype, np.floating):
        return f"the saliency is {part.saliency.dtype}{list(part.saliency.shape)}: expected floats [OC, taps, IC]"
    if not (np.isfinite(part.saliency).all() and (part.saliency >= 0).all()):
        return "the saliency has entries that are negative or not finite: expected an importance"
    if part.index.ndim != 2 or part.items != items:
        return f"the index has shape {list(part.index.shape)}: expected [{items}, repeats] as of the first part"
    if part.index.size and not (part.index.min() >= 0 and part.index.max() < part.extent):
        return f"the index reaches from {part.index.min()} to {part.index.max()}: the axis has {part.extent} entries"
    if np.unique(part.index).size != part.index.size:
        return "the index has an entry twice: items own different entries"
    return ""
