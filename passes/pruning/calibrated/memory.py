"""What prunings of one model with the same samples and settings have in common: layers with the same input and goal again."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
_VARIANTS = 3  # of a layer: that of the best state so far, of what is tried, and one more


@dataclass(frozen=True)
class Fitted:
    """What became of a layer: its filters, the lists of its tiles where they were chosen with them, and for each of its uses
    the shift [OC] of the bias (None: it has none), and a remark.
    """

    filters: Array
    lists: Array | None
    shifts: tuple[Array | None, ...]
    remark: str = ""


class Memory:
    """The last few results of every layer, by what they depend on."""

    def __init__(self, variants: int = _VARIANTS) -> None:
        self._variants = variants
        self._numbers: dict[Hashable, int] = {}
        self._fits: dict[str, dict[int, Fitted]] = {}

    def number(self, facts: Hashable) -> int:
        """A number for these facts, the same for the same ones."""
        return self._numbers.setdefault(facts, len(self._numbers))

    def find(self, layer: str, number: int) -> Fitted | None:
        """What became of a layer under the facts of that number; None where that is not known (any more)."""
        found = self._fits.get(layer, {}).pop(number, None)
        if found is not None:
            self._fits[layer][number] = found  # the most recently used is the last
        return found

    def keep(self, layer: str, number: int, fitted: Fitted) -> None:
        """Keep it, in the place of what has not been used for the longest time."""
        fits = self._fits.setdefault(layer, {})
        fits[number] = fitted
        if len(fits) > self._variants:
            del fits[next(iter(fits))]
