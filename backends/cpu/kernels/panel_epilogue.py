"""The epilogue of the panel and winograd kernels: how its operands are read, and when padded lanes need a mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernel import Pointer
from sparsec.backends.cpu.kernels.elements import INTEGERS, element, ending
from sparsec.backends.cpu.kernels.saturation import split_saturation
from sparsec.compiler.dtypes import DType
from sparsec.compiler.scalar import Program

EXTRAS = 2  # `full` operands that an epilogue may have
_HEAVY = {"exp", "log", "erf", "tanh", "sigmoid", "gelu", "silu", "softplus", "elu", "pow", "sin", "cos", "tan", "fmod", "mod"}


def extra_pointers(types: Sequence[DType]) -> list[Pointer]:
    """The kernels' pointer parameters for the epilogue's operands, of these element types."""
    return [Pointer(f"e{i}", t.c) for i, t in enumerate(types)]


def heavy(epilogue: Program) -> bool:
    """Whether the program is too long to be written once for every accumulator."""
    return any(s.fn in _HEAVY for s in epilogue.steps)


def operations(epilogue: Program) -> int:
    """Vector instructions that the program takes for an output vector; rounding and saturating to bytes are two of them."""
    saturation = split_saturation(epilogue)
    return len(epilogue.steps) if saturation is None else len(saturation[0].steps) + 2


@dataclass(frozen=True, slots=True)
class Types:
    """Element types around an epilogue: of the data that are summed, of the result, of the extras (none: all F32).

    `bounded`: what is rounded to bytes is between -2^31 and 2^31. `reduced`: weights are as `Isa.reduced_cost` wants them.
    """

    data: DType = DType.F32
    result: DType = DType.F32
    extras: tuple[DType, ...] = ()
    bounded: bool = False
    reduced: bool = False

    @property
    def sums(self) -> DType:
        """The accumulator's type."""
        return DType.I32 if self.of_bytes else DType.F32

    @property
    def of_bytes(self) -> bool:
        """Whether the data are bytes, whose sums are integers."""
        return self.data is DType.U8

    @property
    def kernel(self) -> str:
        """What the names of kernels in words end with."""
        return ", 16-bit sums" if self.reduced else ""

    def reason(self, isa: Isa) -> str:
        """How products of bytes are summed where that depends on the weights, in words; "" elsewhere."""
        if self.data is not DType.U8 or isa.reduced_cost is None:
            return ""
        if self.reduced:
            return "; products two at a time in 16 bits, since no two weights sum to more than 128"
        return "; products in 32 bits, since some two weights sum to more than 128 (quantise with --reduce-range)"

    @property
    def integers(self) -> bool:
        """Whether any of them needs the primitives for integers."""
        return any(t in INTEGERS for t in (self.data, self.result, *self.extras))

    @property
    def bfloat16(self) -> bool:
        """Whether any of them needs the primitives for bfloat16."""
        return DType.BF16 in (self.data, self.result, *self.extras)

    @property
    def weights(self) -> DType:
        """The weights' type."""
        return DType.I8 if self.of_bytes else self.data

    def of_extras(self, n: int) -> tuple[DType, ...]:
        """The types of n extras."""
        return self.extras or (DType.F32,) * n


def epilogue_context(
    epilogue: Program, extras: Sequence[str], tail_lanes: int, isa: Isa, types: Types | None = None
) -> dict[str, Any]:
    """What the templates read: the emitted program over `a` and e0_q (channel), e1_t (full), e2_s (scalar), ..., the lists of
    operands by kind, and how the result is stored.

    `four`: the result is rounded to bytes, at four positions together.
    """
    types = types or Types()
    operands = [element(f"e{i}", t) for i, t in enumerate(types.of_extras(len(extras)))]
    endings = {"channel": "_q", "full": "_t", "scalar": "_s"}
    by_kind = {kind: [o for o, k in zip(operands, extras, strict=True) if k == kind] for kind in endings}
    names = ["a", *(o.name + endings[kind] for o, kind in zip(operands, extras, strict=True))]
    last = ending(epilogue, names, [types.sums, *types.of_extras(len(extras))], types.result)
    return {
        "channel_extras": by_kind["channel"],
        "full_extras": by_kind["full"],
        "scalar_extras": by_kind["scalar"],
        "extra_parameters": "".join(f", const {o.ctype} *{o.name}" for o in operands),
        "extra_arguments": "".join(
            f", {o.name}" if kind == "scalar" else f", {o.name}_t" for o, kind in zip(operands, extras, strict=True)
        ),
        "epilogue": last.emitted,
        "sums": element("a", types.sums),
        "y": element("y", types.result),
        "ending": last,
        "four": last.saturated is not None and types.bounded,
        "mask": ", ".join("1" if i < tail_lanes else "0" for i in range(isa.lanes)) if tail_lanes else "",
    }
