"""The epilogue of the panel and winograd kernels: how its operands are read, and when padded lanes need a mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernel import Pointer
from sparsec.backends.cpu.kernels.saturation import split_saturation
from sparsec.backends.cpu.scalar_c import emit_vec
from sparsec.compiler.dtypes import DType
from sparsec.compiler.errors import UnsupportedError
from sparsec.compiler.scalar import Program

EXTRAS = 2  # `full` operands that an epilogue may have
_HEAVY = {"exp", "log", "erf", "tanh", "sigmoid", "gelu", "silu", "softplus", "elu", "pow", "sin", "cos", "tan", "fmod", "mod"}


def extra_pointers(types: Sequence[DType]) -> list[Pointer]:
    """The kernels' pointer parameters for the epilogue's operands, of these element types."""
    return [Pointer(f"e{i}", t.c) for i, t in enumerate(types)]


def needs_tail_mask(epilogue: Program, extras: Sequence[str]) -> bool:
    """Whether lanes beyond the last channel, where accumulator and channel operands are zero, would be stored as non-zero.

    `full` operands are zero there too; scalars are taken as one.
    """
    args = [np.zeros(1, np.float32), *(np.full(1, kind == "scalar", np.float32) for kind in extras)]
    return bool(np.any(epilogue.evaluate(args) != 0))


def heavy(epilogue: Program) -> bool:
    """Whether the program is too long to be written once for every accumulator."""
    return any(s.fn in _HEAVY for s in epilogue.steps)


_LOADS = {DType.F32: "v_load", DType.I32: "vi_load", DType.U8: "vi_load_u8", DType.I8: "vi_load_i8"}


@dataclass(frozen=True, slots=True)
class Operand:
    """An operand of an epilogue as the templates read it: its pointer, C type of an element and of a vector, and loads."""

    name: str
    ctype: str
    vector: str
    load: str
    set1: str

    def __str__(self) -> str:
        return self.name


def operand(name: str, dtype: DType) -> Operand:
    """The operand `name` of an element type that has vectors: float32, int32, uint8 or int8."""
    real = dtype is DType.F32
    return Operand(name, dtype.c, "vec" if real else "vint", _LOADS[dtype], "v_set1" if real else "vi_set1")


@dataclass(frozen=True, slots=True)
class Types:
    """Element types around an epilogue: of the data that are summed, of the result, of the extras (none: all F32).

    `bounded`: what is rounded to bytes is between -2^31 and 2^31.
    """

    data: DType = DType.F32
    result: DType = DType.F32
    extras: tuple[DType, ...] = ()
    bounded: bool = False

    @property
    def sums(self) -> DType:
        """The accumulator's type."""
        return DType.F32 if self.data is DType.F32 else DType.I32

    @property
    def integers(self) -> bool:
        """Whether any of them needs the primitives for integers."""
        return any(t is not DType.F32 for t in (self.data, self.result, *self.extras))

    def of_extras(self, n: int) -> tuple[DType, ...]:
        """The types of n extras."""
        return self.extras or (DType.F32,) * n


def epilogue_context(epilogue: Program, extras: Sequence[str], tail_lanes: int, isa: Isa, types: Types | None = None) -> dict[str, Any]:
    """What the templates read: the emitted program over `a` and e0_q (channel), e1_t (full), e2_s (scalar), ..., the lists of
    operands by kind, and how the result is stored.

    `saturated`: the zero point of a result that is rounded to bytes, else none; the program then ends before the rounding.
    """
    types = types or Types()
    operands = [operand(f"e{i}", t) for i, t in enumerate(types.of_extras(len(extras)))]
    suffix = {"channel": "_q", "full": "_t", "scalar": "_s"}
    by_kind = {kind: [o for o, k in zip(operands, extras, strict=True) if k == kind] for kind in suffix}
    saturation = split_saturation(epilogue) if types.result is DType.U8 else None
    program, zero = saturation or (epilogue, None)
    names = ["a", *(o.name + suffix[kind] for o, kind in zip(operands, extras, strict=True))]
    emitted = emit_vec(program, names, [types.sums, *types.of_extras(len(extras))])
    if saturation is not None and emitted.dtype is not DType.F32:
        raise UnsupportedError(f"an epilogue rounds {emitted.dtype.value}: cast it to f32 first")
    return {
        "channel_extras": by_kind["channel"],
        "full_extras": by_kind["full"],
        "scalar_extras": by_kind["scalar"],
        "extra_parameters": "".join(f", const {o.ctype} *{o.name}" for o in operands),
        "extra_arguments": "".join(
            f", {o.name}" if kind == "scalar" else f", {o.name}_t" for o, kind in zip(operands, extras, strict=True)
        ),
        "epilogue": emitted,
        "sums": operand("a", types.sums),
        "y": operand("y", types.result),
        "saturated": zero,
        "four": saturation is not None and types.bounded,
        "mask": ", ".join("1" if i < tail_lanes else "0" for i in range(isa.lanes)) if tail_lanes else "",
    }
