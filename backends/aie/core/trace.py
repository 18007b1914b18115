"""What a traced iteration of a loop consists of: its steps in time, the sums of accumulators, what it loads and stores."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Step:
    """What one iteration issues: a bundle by number, or a plain loop of bundles [start, end) `times` times.

    `groups` are the accesses that meet in memory: for each bundle of it, which traced addresses.
    """

    start: int
    end: int
    times: int
    groups: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Sum:
    """What an accumulator takes: an instruction's name and numbers, and which traced addresses its vectors have.

    Beside instructions: `take` sets the accumulator, or a part of it (`parts_of`), to the sum of others after so many of their
    sums; its numbers are the part, then pairs of accumulator and count. `setf` sets half of the positions to bfloat16 from
    memory. A product that sets, and a load that shifts, are `clr` and what is added then.
    """

    name: str
    numbers: tuple[int, ...]
    vectors: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Stored:
    """A store: traced address, and what: an accumulator after so many sums, or a vector (traced address)."""

    address: int
    name: str
    accumulator: int
    after: int
    vector: int
    numbers: tuple[int, ...]


@dataclass
class Trace:
    """One iteration without data. Addresses are numbers of rows, one an execution: of `Affine.addresses`, or, from the end, of
    the vector registers as the iteration finds them. `places` says in which step each is used."""

    addresses: list[Array] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    loads: list[int] = field(default_factory=list)
    tables: list[int] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    sums: dict[int, list[Sum]] = field(default_factory=dict)
    stores: list[Stored] = field(default_factory=list)
    puts: list[Stored] = field(default_factory=list)  # quarters of accumulators, which go to the cascade
    ringed: list[tuple[int, int, int]] = field(default_factory=list)  # rows of addresses in rings, of their ends and their bytes

    def note(self, rows: Any) -> int:
        """Keep addresses; returns their number."""
        self.addresses.append(np.atleast_1d(np.asarray(rows, np.int64)))
        self.places.append(len(self.steps))
        return len(self.addresses) - 1


ALL, POSITIONS = -1, 2  # parts of an accumulator: all, the halves of its channels (0, 1) or of its positions (2, 3)


def parts_of(name: str, half: int) -> int:
    """The part of an accumulator that a product with a half sets."""
    return half if name in ("macbf", "macbft", "macbfsp") else POSITIONS + half if name == "macebf" else ALL
