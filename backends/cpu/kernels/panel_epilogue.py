"""The epilogue of the panel and winograd kernels: how its operands are read, and when padded lanes need a mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernel import Pointer
from sparsec.backends.cpu.scalar_c import emit_vec
from sparsec.compiler.scalar import Program

EXTRAS = 2  # `full` operands that an epilogue may have
_HEAVY = {"exp", "log", "erf", "tanh", "sigmoid", "gelu", "silu", "softplus", "elu", "pow", "sin", "cos", "tan", "fmod", "mod"}


def extra_pointers(extras: Sequence[str]) -> list[Pointer]:
    """The kernels' pointer parameters for the epilogue's operands."""
    return [Pointer(f"e{i}") for i in range(len(extras))]


def needs_tail_mask(epilogue: Program, extras: Sequence[str]) -> bool:
    """Whether lanes beyond the last channel, where accumulator and channel operands are zero, would be stored as non-zero.

    `full` operands are zero there too; scalars are taken as one.
    """
    args = [np.zeros(1, np.float32), *(np.full(1, kind == "scalar", np.float32) for kind in extras)]
    return bool(np.any(epilogue.evaluate(args) != 0))


def heavy(epilogue: Program) -> bool:
    """Whether the program is too long to be written once for every accumulator."""
    return any(s.fn in _HEAVY for s in epilogue.steps)


def epilogue_context(epilogue: Program, extras: Sequence[str], tail_lanes: int, isa: Isa) -> dict[str, Any]:
    """What the templates read: the emitted program over `a` and e0_q (channel), e1_t (full), e2_s (scalar), ..., and the lists of
    operands by kind.
    """
    names = [f"e{i}" for i in range(len(extras))]
    suffix = {"channel": "_q", "full": "_t", "scalar": "_s"}
    by_kind = {kind: [e for e, k in zip(names, extras, strict=True) if k == kind] for kind in suffix}
    return {
        "channel_extras": by_kind["channel"],
        "full_extras": by_kind["full"],
        "scalar_extras": by_kind["scalar"],
        "extra_parameters": "".join(f", const float *{e}" for e in names),
        "extra_arguments": "".join(f", {e}" if kind == "scalar" else f", {e}_t" for e, kind in zip(names, extras, strict=True)),
        "epilogue": emit_vec(epilogue, ["a", *(e + suffix[kind] for e, kind in zip(names, extras, strict=True))]),
        "mask": ", ".join("1" if i < tail_lanes else "0" for i in range(isa.lanes)) if tail_lanes else "",
    }
