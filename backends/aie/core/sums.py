"""What the accumulators of a loop hold and its stores write, in all iterations at once (see `nests`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sparsec.backends.aie.core.execute import saturated
from sparsec.backends.aie.core.tracing import Stored, Sum, Trace

Array = np.ndarray[Any, Any]

_EXACT_TERMS = 512  # products of bytes whose sum float32 holds exactly


def joined(trace: Trace, where: Sequence[Array]) -> tuple[dict[int, list[Sum]], list[Array]]:
    """The sums by accumulator, products that follow one another as one; and lines of 32 bytes by address number.

    Products between which something is stored stay apart. A product that was joined to the one before it becomes "none", so that
    the numbers by which stores name sums stay as they are.
    """
    lines = [w // 32 for w in where]
    found: dict[int, list[Sum]] = {}
    for c, sums in trace.sums.items():
        stops = {s.after for s in trace.stores if s.name != "stw" and s.accumulator == c}
        made = found[c] = list(sums)
        first = 0
        for i in range(1, len(made) + 1):
            alike = i < len(made) and (made[i].name, made[i].numbers) == ("mac", made[first].numbers)
            if alike and made[first].name == "mac" and i not in stops:
                continue
            if i - first > 1:
                parts = zip(*(s.vectors for s in made[first:i]), strict=True)
                vectors = range(len(lines), len(lines) + len(made[first].vectors))
                lines += [np.concatenate([lines[n] for n in part], axis=1) for part in parts]
                made[first:i] = [Sum("mac", made[first].numbers, tuple(vectors)), *[Sum("none", (), ())] * (i - first - 1)]
            first = i
    return found, lines


class Operands:
    """Where vectors are: lines of 32 bytes, int64 [iterations, executions], by number; and which do not move."""

    def __init__(self, lines: Sequence[Array]) -> None:
        self.lines = lines
        self.times = lines[0].shape[0] if lines else 1
        self.fixed = [bool((n == n[:1]).all()) for n in lines]


class Values:
    """The sums and stored bytes of all iterations."""

    def __init__(self, sums: Mapping[int, Sequence[Sum]], operands: Operands, memory: Array, before: Array) -> None:
        """`sums` by accumulator, as `joined` has them.

        `memory` is what vectors are read from: data memory, then the registers before the loop; `before` (uint8 [8, 128]) are
        the accumulators before it.
        """
        self._lines = memory.reshape(-1, 32)
        self._sums, self._operands, self._before = sums, operands, before
        self._finals: dict[int, Array | None] = {}

    def final(self, c: int) -> Array | None:
        """int32 [iterations, 4, 8]: the accumulator at the end of each; None when it goes on over iterations."""
        if c not in self._finals:
            self._finals[c] = self._after(c, len(self._sums[c])) if self._begins(c) is not None else None
        return self._finals[c]

    def _begins(self, c: int) -> int | None:
        """From which of its sums on an accumulator depends on nothing before the iteration."""
        rows: set[int] = set()
        for i, s in enumerate(self._sums.get(c, ())):
            if s.name in ("row", "clr", "mul", "mule"):
                return i
            if s.name != "setc":
                return None
            rows.add(s.numbers[0])
            if len(rows) == 4:
                return i
        return None

    def _after(self, c: int, count: int) -> Array | None:
        """int32 [iterations, 4, 8]: the accumulator after so many of its sums."""
        begins = self._begins(c)
        times = self._operands.times
        if begins is None or count <= begins:
            if any(s.name == "setc" for s in self._sums.get(c, ())[:count]):
                return None
            before = np.broadcast_to(self._before[c].view(np.int32).reshape(4, 8), (times, 4, 8))
            if c not in self._sums:
                return before
            if count or begins is None or (final := self.final(c)) is None:
                return None
            return np.concatenate((before[:1], final[:-1]))
        total = np.zeros((times, 4, 8), np.int64)
        for s in self._sums[c][:count]:
            if s.name != "none":
                total = self._taken(total, s)
        return total.astype(np.int32)

    def _taken(self, total: Array, s: Sum) -> Array:
        if s.name == "clr":
            return np.zeros_like(total)
        if s.name == "row":
            rows: Array = np.broadcast_to(self._vector(s.vectors[0]).view(np.int32), total.shape).astype(np.int64)
            return rows
        if s.name == "setc":
            total = total.copy()
            total[:, s.numbers[0]] = self._vector(s.vectors[0])[:, 0].view(np.int32)
            return total
        if s.name == "ups":
            data = self._vector(s.vectors[0]).view(np.int8 if s.numbers[1] else np.uint8).reshape(-1, 4, 8)
            moved: Array = total + (data.astype(np.int32) << s.numbers[0])
            return moved
        made = self._products(s) if s.name in ("mac", "mul") else self._lanes(s)
        return made if s.name in ("mul", "mule") else total + made

    def _vector(self, number: int) -> Array:
        """uint8 [iterations, executions, 32]."""
        found: Array = self._lines[self._operands.lines[number]]
        return found

    def _products(self, s: Sum) -> Array:
        """int64 [iterations, 4, 8]: all products of an instruction."""
        kind = np.int8 if s.numbers[0] else np.uint8
        data = self._vector(s.vectors[0]).view(kind)
        times, count, _ = data.shape
        left = data.reshape(times, count, 4, 8).transpose(0, 2, 1, 3).astype(np.float32).reshape(times, 4, 8 * count)
        fixed = all(self._operands.fixed[n] for n in s.vectors[1:])
        halves = [self._fixed(n) if fixed else self._vector(n) for n in s.vectors[1:]]
        right = np.concatenate(halves, axis=-1).view(np.int8).astype(np.float32)
        right = right.reshape(-1, 8) if fixed else right.reshape(times, -1, 8)
        total = np.zeros((times, 4, 8), np.int64)
        for first in range(0, 8 * count, _EXACT_TERMS):
            part = slice(first, first + _EXACT_TERMS)
            if fixed:
                made = (left[:, :, part].reshape(4 * times, -1) @ right[part]).reshape(times, 4, 8)
            else:
                made = left[:, :, part] @ right[:, part]
            total += made.astype(np.int64)
        return total

    def _fixed(self, number: int) -> Array:
        """uint8 [executions, 32] of addresses that do not move."""
        found: Array = self._lines[self._operands.lines[number][0]]
        return found

    def _lanes(self, s: Sum) -> Array:
        kind = np.int8 if s.numbers[0] else np.uint8
        left = self._vector(s.vectors[0]).view(kind).astype(np.int32)
        right = self._vector(s.vectors[1]).view(np.int8).astype(np.int32)
        sums: Array = (left * right).sum(axis=1, dtype=np.int64).reshape(-1, 4, 8)
        return sums

    def stored(self, s: Stored) -> Array | None:
        """uint8 [iterations, 32]: what a store writes."""
        if s.name == "stw":
            return self._vector(s.vector)[:, 0]
        before = self._sums.get(s.accumulator, ())[: s.after]
        others = s.name == "stc" and all(b.name == "setc" and b.numbers != s.numbers for b in before)
        sums = self._after(s.accumulator, 0 if others else s.after)
        if sums is None:
            return None
        if s.name == "stc":
            return np.ascontiguousarray(sums[:, s.numbers[0]]).view(np.uint8)
        return saturated(sums, *s.numbers).reshape(-1, 32)
