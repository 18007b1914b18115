"""Products of several channels a lane: which a kernel's data have, and how templates write them."""

from __future__ import annotations

from dataclasses import dataclass

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernels.panel_epilogue import Types
from sparsec.compiler.dtypes import DType

_FOUR = 4  # bytes of a lane


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


def dot_of(types: Types, isa: Isa) -> Dot | None:
    """How products of data of these types are summed: uint8 by fours, bfloat16 as the target does; None for float32."""
    if types.of_bytes:
        return _bytes(types.suffix)
    if types.data is DType.BF16:
        return Dot(
            isa.bf16, "vpair", "vpair", "vpair_set1", "vpair_row", "vpair_load", "vpair_set1", "SPC_KEEP_PAIRS", "V_DOT"
        )  # fmt: skip
    return None


def _bytes(s: str) -> Dot:
    """Products of bytes whose primitives end with `s`."""
    four, weights = f"vfour{s}", f"vweights{s}"
    held, summed = f"SPC_KEEP_WEIGHTS{s.upper()}", f"VI_DOT{s.upper()}"
    return Dot(_FOUR, four, weights, f"{four}_set1", f"{four}_load", f"{weights}_load", f"{weights}_set1", held, summed)


def row_channels(data: DType, isa: Isa) -> int:
    """Channels of a weight row."""
    return {DType.U8: _FOUR, DType.BF16: isa.bf16}.get(data, 1)


def products(types: Types, data: int, weights: int, isa: Isa) -> float:
    """Each of `data` vectors times each of `weights` of a row, in FMAs."""
    if types.of_bytes:
        return isa.dots(data, weights, reduced=types.reduced)
    return data * weights * (isa.bf16_cost if types.data is DType.BF16 else 1.0)


def operand_registers(types: Types, operands: int, isa: Isa) -> int:
    """Registers that so many vectors of data and weights take."""
    return isa.dot_registers(operands, reduced=types.reduced) if types.of_bytes else operands
