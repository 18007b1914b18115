"""The end of an epilogue that stores quantised values: saturate(round(x) + zero) in uint8, as one store."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparsec.compiler.dtypes import DType
from sparsec.compiler.scalar import Arg, Imm, Program, Step, Tmp

_FITS = 2.0**31 - 256  # what float32 rounds to an int32
Range = tuple[float, float]


def split_saturation(program: Program) -> tuple[Program, int] | None:
    """(what is rounded, zero point) of a program that ends as quantising to uint8 does; None for another end."""
    steps = list(program.steps)
    if not steps or steps[-1].dtype is not DType.U8 or not _follows(steps):
        return None
    at = len(steps) - 2
    limits = set()
    while at >= 0 and (limit := _limit(steps[at])) is not None:
        limits.add(limit)
        at -= 1
    zero = 0
    added = steps[at].args[1] if at >= 0 and steps[at].fn == "add" else None
    if isinstance(added, Imm):
        zero = int(added.value)
        if zero != added.value or not 0 <= zero <= 255:
            return None
        at -= 1
    if limits != {0.0, 255.0} or at < 0 or steps[at].fn != "round":
        return None
    rounded = steps[at].args[0]
    if rounded != Tmp(at - 1) and not (at == 0 and rounded == Arg(0)):
        return None
    if zero == 0 and at and _limit(steps[at - 1]) == 0.0 and steps[at - 1].args[0] == Tmp(at - 2):
        at -= 1  # a Relu changes nothing below zero that the rounding's limit does not
    return Program(tuple(steps[:at])), zero


def _follows(steps: Sequence[Step]) -> bool:
    """Whether no step but the one after it reads a step of the end."""
    for i in range(len(steps) - 1, 0, -1):
        if steps[i].args[0] != Tmp(i - 1):
            return False
        if steps[i - 1].fn == "round":
            break
    else:
        return steps[0].fn == "round"
    readers = [a for s in steps for a in s.args if isinstance(a, Tmp)]
    return all(readers.count(Tmp(k)) == 1 for k in range(i - 1, len(steps) - 1))


def _limit(step: Step) -> float | None:
    if step.fn == "relu":
        return 0.0
    limit = step.args[1] if step.fn in ("min", "max") else None
    if isinstance(limit, Imm):
        value = float(limit.value)
        return value if (step.fn, value) in (("min", 255.0), ("max", 0.0)) else None
    return None


def is_bounded(program: Program, ranges: Sequence[Range]) -> bool:
    """Whether the program's float32 result rounds to an int32 for all arguments within their ranges."""
    known: list[Range] = []
    for step in program.steps:
        operands = [
            (float(a.value), float(a.value)) if isinstance(a, Imm) else ranges[a.index] if isinstance(a, Arg) else known[a.index]
            for a in step.args
        ]
        found = _range(step, operands)
        if found is None:
            return False
        known.append(found)
    low, high = known[-1] if known else ranges[0]
    return -_FITS < low and high < _FITS


def _range(step: Step, x: Sequence[Range]) -> Range | None:
    """The range of a step's result; None where it is not known."""
    (a, b), (c, d) = x[0], x[-1]
    match step.fn:
        case "cast" if step.dtype in (DType.F32, DType.I32):
            return a, b
        case "cast" if step.dtype is DType.U8:
            return 0, 255
        case "identity" | "round":
            return float(np.floor(a)), float(np.ceil(b))
        case "add":
            return a + c, b + d
        case "sub":
            return a - d, b - c
        case "mul":
            ends = (a * c, a * d, b * c, b * d)
            return min(ends), max(ends)
        case "min":
            return min(a, c), min(b, d)
        case "max":
            return max(a, c), max(b, d)
        case "relu":
            return max(a, 0), max(b, 0)
        case "neg":
            return -b, -a
        case _:
            return None
