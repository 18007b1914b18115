"""Products of several channels a lane: which a kernel's data have, and how templates write them."""

from __future__ import annotations

from dataclasses import dataclass

from sparsec.backends.cpu.isa import Isa
from sparsec.compiler.dtypes import DType


@dataclass(frozen=True, slots=True)
class Dot:
    """A product of `channels` channels a lane, all of which a weight row has: C types and primitives of the prelude.

    x and w are the types of data and weights in registers. `set1` broadcasts data from memory and `row` loads data that were put
    into the lanes, as `w_set1` and `w_load` do weights; `keep` holds weights in a register; `sum` adds a product to a lane.
    """

    channels: int
    x: str
    w: str
    set1: str
    row: str
    w_load: str
    w_set1: str
    keep: str
    sum: str


_BYTES = Dot(
    4, "vfour", "vweights", "vfour_set1", "vfour_load", "vweights_load", "vweights_set1", "SPC_KEEP_WEIGHTS", "VI_DOT"
)  # fmt: skip


def dot_of(data: DType, isa: Isa) -> Dot | None:
    """How products of data of this type are summed: uint8 by fours, bfloat16 as the target does; None for float32."""
    if data is DType.U8:
        return _BYTES
    if data is DType.BF16:
        return Dot(
            isa.bf16, "vpair", "vpair", "vpair_set1", "vpair_row", "vpair_load", "vpair_set1", "SPC_KEEP_PAIRS", "V_DOT"
        )  # fmt: skip
    return None


def row_channels(data: DType, isa: Isa) -> int:
    """Channels of a weight row."""
    dot = dot_of(data, isa)
    return dot.channels if dot else 1


def dot_cost(data: DType, isa: Isa) -> float:
    """What a weight row takes in FMAs."""
    return {DType.U8: isa.dot_cost, DType.BF16: isa.bf16_cost}.get(data, 1.0)
