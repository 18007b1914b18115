"""What a run counts."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from sparsec.backends.systolic.isa import Stationary

Array = np.ndarray[Any, Any]


@dataclass
class Counts:
    """Cycles and accesses of a stream, or of a part of one.

    `cycles`: up to the last multiplication; `tail`: what the last drain takes after it; `preload`: the part of `cycles` in which
    resident operands are shifted in. `macs`: multiplications of a nonzero weight by an element of X, injected padding included.
    Values: weights read, data read, sums written and read again. `injected_weights` and `injected_data` took no read.
    """

    cycles: int = 0
    tail: int = 0
    preload: int = 0
    macs: int = 0
    folds: int = 0
    weight_values: int = 0
    index_bytes: int = 0
    injected_weights: int = 0
    data_values: int = 0
    injected_data: int = 0
    output_writes: int = 0
    output_reads: int = 0

    def add(self, other: Counts) -> None:
        """Add what another part counted; the tail is that of the later one."""
        for f in fields(self):
            if f.name != "tail":
                setattr(self, f.name, getattr(self, f.name) + getattr(other, f.name))
        self.tail = other.tail


@dataclass(frozen=True)
class StripTrace:
    """What a strip needs from outside of the array: how much, for how long, and what it leaves.

    `channels` are those of the data that it reads, each of `plane` elements; `rows` those of Y that it writes, each of `columns`.
    `product` numbers the products of the stream.
    """

    product: int
    stationary: Stationary
    cycles: int
    iterations: int
    weight_bytes: int
    channels: Array
    plane: int
    rows: Array
    columns: int


@dataclass(frozen=True)
class Run:
    """A stream's counts, those of every product in it, the output memory (empty for a run without values), and the roofline.

    `roofline` is the fewest cycles, strip by strip, in which PEs can multiply and the edges can carry what was counted.
    """

    total: Counts
    products: tuple[Counts, ...]
    strips: tuple[StripTrace, ...] = field(repr=False)
    output: Array = field(repr=False)
    roofline: int = 0
