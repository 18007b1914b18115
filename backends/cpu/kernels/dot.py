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
_REDUCED = Dot(
    4, "vfour_reduced", "vweights_reduced", "vfour_reduced_set1", "vfour_reduced_load", "vweights_reduced_load",
    "vweights_reduced_set1", "SPC_KEEP_WEIGHTS_REDUCED", "VI_DOT_REDUCED",
)  # fmt: skip


def dot_of(data: DType, isa: Isa, *, reduced: bool = False) -> Dot | None:
    """How products of data of this type are summed: uint8 by fours, bfloat16 as the target does; None for float32.

    `reduced`: weights are as `Isa.reduced_cost` wants them.
    """
    if data is DType.U8:
        return _REDUCED if reduced else _BYTES
    if data is DType.BF16:
        return Dot(
            isa.bf16, "vpair", "vpair", "vpair_set1", "vpair_row", "vpair_load", "vpair_set1", "SPC_KEEP_PAIRS", "V_DOT"
        )  # fmt: skip
    return None


def row_channels(data: DType, isa: Isa) -> int:
    """Channels of a weight row."""
    dot = dot_of(data, isa)
    return dot.channels if dot else 1


def cost(data: DType, isa: Isa, x: int, w: int, *, reduced: bool) -> float:
    """Each of x vectors of data times each of w of weights, in FMAs."""
    if data is DType.U8:
        return isa.dots(x, w, reduced=reduced)
    return x * w * (isa.bf16_cost if data is DType.BF16 else 1.0)


def registers(data: DType, isa: Isa, operands: int, *, reduced: bool) -> int:
    """Registers that so many vectors of data and weights take beside the sums."""
    return isa.dot_registers(operands, reduced=reduced) if data is DType.U8 else operands
