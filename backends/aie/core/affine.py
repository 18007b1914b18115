"""Numbers of a core as functions of what its registers hold before an iteration of a loop.

A number is a row of coefficients: of the registers r, p and m and the place of the next word out of the cascade (`REGISTERS` of
them), of 1, and of what the iteration finds out on its way, its findings: words of tables, and what conditional moves choose.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sparsec.backends.aie.core.instructions import COUNTS

Array = np.ndarray[Any, Any]

FIRST = {"r": 0, "p": COUNTS["r"], "m": COUNTS["r"] + COUNTS["p"]}
CAME = COUNTS["r"] + COUNTS["p"] + COUNTS["m"]  # where the next word out of the cascade is
REGISTERS = CAME + 1
_ONE = REGISTERS  # the coefficient of 1
_KNOWN = REGISTERS + 1  # that of the first finding


@dataclass(frozen=True, slots=True)
class Loaded:
    """A word of a table: `step` is 32 times a signed one, else it is unsigned; its address is a row."""

    address: Array
    step: bool


@dataclass(frozen=True, slots=True)
class Chosen:
    """`then` where `condition` is 0, or, with `below`, less than 0, else `other`: rows."""

    condition: Array
    then: Array
    other: Array
    below: bool = False


class Findings:
    """What an iteration finds out, in order, while it is traced."""

    def __init__(self, most: int) -> None:
        """At most so many."""
        self.width = _KNOWN + most
        self.made: list[Loaded | Chosen] = []

    def register(self, number: int) -> Array:
        """A register before the iteration."""
        row = np.zeros(self.width, np.int64)
        row[number] = 1
        return row

    def number(self, value: int) -> Array:
        """A number."""
        row = np.zeros(self.width, np.int64)
        row[_ONE] = value
        return row

    def add(self, found: Loaded | Chosen) -> Array:
        """The number that is found out. OverflowError when there are more than was said."""
        if _KNOWN + len(self.made) == self.width:
            raise OverflowError
        row = np.zeros(self.width, np.int64)
        row[_KNOWN + len(self.made)] = 1
        self.made.append(found)
        return row

    def value(self, row: Array, registers: Sequence[int], values: Sequence[int]) -> int | None:
        """What a number is when some registers are known; None when it depends on others."""
        rest = row.copy()
        found = int(rest[_ONE]) + sum(int(row[n]) * v for n, v in zip(registers, values, strict=True))
        rest[_ONE] = rest[list(registers)] = 0
        return None if rest.any() else found


@dataclass(frozen=True, slots=True)
class _Tables:
    """Words of tables that are looked up together: rows of their addresses, which are steps, the first finding of each."""

    rows: Array
    steps: Array
    places: Array


@dataclass
class Affine:
    """The numbers of an iteration, as rows: addresses, and registers after it."""

    findings: Findings
    addresses: Array
    after: Array
    _stages: list[_Tables | tuple[Array, int, bool]] = field(init=False)

    def __post_init__(self) -> None:
        count = _KNOWN + len(self.findings.made)
        self.addresses, self.after = (a[:, :count].astype(np.float64) for a in (self.addresses, self.after))
        self._stages = list(_stages(self.findings.made, count))

    def before(self, registers: Array, memory: Array) -> tuple[Array, Array] | None:
        """Registers, 1 and findings of an iteration that begins with `registers` (float64), and the addresses of its tables;
        None where one is not in `memory` (uint8), or not aligned."""
        known = np.zeros(self.addresses.shape[1])
        known[:REGISTERS], known[_ONE] = registers, 1
        words, looked_up = memory.view(np.uint16), []
        for stage in self._stages:
            if isinstance(stage, _Tables):
                at = (stage.rows @ known).astype(np.int64)
                if at.min() < 0 or at.max() > memory.size - 2 or (at & 1).any():
                    return None
                found = words[at >> 1]
                known[stage.places] = np.where(stage.steps, 32.0 * found.view(np.int16), found)
                looked_up.append(at)
            else:
                rows, place, below = stage
                condition, then, other = rows @ known
                known[place] = then if (condition < 0 if below else condition == 0) else other
        return known, np.concatenate(looked_up) if looked_up else np.zeros(0, np.int64)

    def repeats(self, moved: Array) -> bool:
        """Whether an iteration whose registers are by `moved` further than those of the one before finds out the same, and moves
        them by as much again: then all further ones do."""
        if not np.array_equal(self.after[:, :REGISTERS] @ moved, moved):
            return False
        rows = [s.rows if isinstance(s, _Tables) else s[0] for s in self._stages]
        return not any((r[:, :REGISTERS] @ moved).any() for r in rows)

    @property
    def nbytes(self) -> int:
        """Of its rows."""
        return self.addresses.nbytes + self.after.nbytes


def _stages(made: Sequence[Loaded | Chosen], count: int) -> list[_Tables | tuple[Array, int, bool]]:
    """What can be found out together, one after the other: tables whose addresses depend on what is known by then."""
    levels: dict[int, list[int]] = {}
    level_of: list[int] = []
    for i, found in enumerate(made):
        rows = [found.address] if isinstance(found, Loaded) else [found.condition, found.then, found.other]
        needs = np.flatnonzero(np.any([r[_KNOWN:] for r in rows], axis=0)).tolist()
        level_of.append(max((level_of[n] + 1 for n in needs), default=0))
        levels.setdefault(level_of[i], []).append(i)
    stages: list[_Tables | tuple[Array, int, bool]] = []
    for _, numbers in sorted(levels.items()):
        tables = [(i, f) for i in numbers if isinstance(f := made[i], Loaded)]
        if tables:
            addresses = np.stack([f.address[:count] for _, f in tables]).astype(np.float64)
            steps, places = np.array([f.step for _, f in tables]), np.array([_KNOWN + i for i, _ in tables])
            stages.append(_Tables(addresses, steps, places))
        for i in numbers:
            if isinstance(f := made[i], Chosen):
                chosen = np.stack([r[:count] for r in (f.condition, f.then, f.other)]).astype(np.float64)
                stages.append((chosen, _KNOWN + i, f.below))
    return stages
