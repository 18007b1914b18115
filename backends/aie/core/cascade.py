"""A core's ends of the cascade: words that have come, and when it put and took words.

A core is run ahead of the time of the array, as if it never waited for the cascade: `Events` notes when it would have put and
taken words. What it really waits for is known when its neighbours have run as well (`simulate/cascade.py`).
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np

from sparsec.compiler.errors import ModelError

Array = np.ndarray[Any, Any]
WORD_BYTES = 64
GET, PUT = 0, 1
Event = tuple[int, int, int]  # cycle, GET or PUT, bundle


class Inbox:
    """Words that a neighbour has put and this core has not taken yet, in their order."""

    def __init__(self) -> None:
        self._words = np.zeros((0, WORD_BYTES), np.uint8)
        self._at = 0

    def __len__(self) -> int:
        return len(self._words) - self._at

    def push(self, words: Array) -> None:
        """Append words, uint8 [n, 64]."""
        self._words = np.concatenate((self._words[self._at :], words))
        self._at = 0

    def peek(self, count: int) -> Array:
        """The next words, uint8 [count, 64] (a view). ModelError when there are fewer."""
        if count > len(self):
            raise ModelError(f"{count} words are to be taken from the cascade, which has brought {len(self)}")
        return self._words[self._at : self._at + count]

    def drop(self, count: int) -> None:
        """Take the next words away."""
        self._at += count


class Events:
    """What a core put and took, in order: the cycle, GET or PUT, and the bundle."""

    def __init__(self) -> None:
        self._cycles, self._kinds, self._bundles = array("q"), array("b"), array("h")

    def __len__(self) -> int:
        return len(self._cycles)

    def __getitem__(self, i: int) -> Event:
        return self._cycles[i], self._kinds[i], self._bundles[i]

    def add(self, cycle: int, kind: int, bundle: int) -> None:
        """Append one."""
        self._cycles.append(cycle)
        self._kinds.append(kind)
        self._bundles.append(bundle)

    def extend(self, events: Sequence[Event], begin: int, cycles: int, times: int) -> None:
        """Append events whose cycles count from `begin`, `times` times, each time `cycles` later."""
        if events:
            offsets = np.array([e[0] for e in events], np.int64)
            self._cycles.frombytes((begin + offsets + cycles * np.arange(times)[:, None]).tobytes())
            self._kinds.extend([e[1] for e in events] * times)
            self._bundles.extend([e[2] for e in events] * times)

    def last(self, kind: int) -> int:
        """The bundle of the last one of a kind."""
        return next(b for k, b in zip(reversed(self._kinds), reversed(self._bundles), strict=True) if k == kind)

    def clear(self) -> None:
        """Forget all."""
        del self._cycles[:], self._kinds[:], self._bundles[:]
