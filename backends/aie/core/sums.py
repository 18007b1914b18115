"""What the accumulators of a loop hold and its stores write, in all iterations at once (see `nests`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sparsec.backends.aie.core.arithmetic import BF16, as_float, rounded, rows_of, saturated, shifted, transposed_bf16, widened
from sparsec.backends.aie.core.sparse_b import DEPTH, MASK_BYTES
from sparsec.backends.aie.core.sparse_b import as_float as operands
from sparsec.backends.aie.core.tracing import ALL, POSITIONS, Stored, Sum, Trace, parts_of

Array = np.ndarray[Any, Any]

_OF_FLOATS = frozenset(("macbf", "macbft", "macebf", "macbfsp", "addbf", "maxf", "minf", "setf"))
_HALVES = frozenset(("macbf", "macbft", "macebf", "macbfsp"))  # products that add to one half or the other
_OF_INTEGERS = frozenset(("mac", "mace", "macsp", "ups"))
_EXACT_TERMS = 512  # products of bytes whose sum float32 holds exactly


def joined(trace: Trace, where: Sequence[Array]) -> tuple[dict[int, list[Sum]], list[Array]]:
    """The sums by accumulator, products that follow one another as one; and lines of 32 bytes by address number.

    Products between which something is stored, or another accumulator takes the sum, stay apart. A product that was joined to the
    one before it becomes "none", so that the numbers by which stores name sums stay as they are.
    """
    lines = [w // 32 for w in where]
    found: dict[int, list[Sum]] = {}
    taken: dict[int, set[int]] = {}
    for s in (s for sums in trace.sums.values() for s in sums if s.name == "take"):
        for c, count in zip(s.numbers[1::2], s.numbers[2::2], strict=True):
            taken.setdefault(c, set()).add(count)
    for c, sums in trace.sums.items():
        kept = [s for s in trace.stores if s.name != "stw"] + trace.puts
        stops = {s.after for s in kept if s.accumulator == c} | taken.get(c, set())
        made = found[c] = list(sums)
        first = 0
        for i in range(1, len(made) + 1):
            if i < len(made) and _alike(made[first], made[i]) and i not in stops:
                continue
            for numbers in dict.fromkeys(s.numbers for s in made[first:i]):
                _join(made, [n for n in range(first, i) if made[n].numbers == numbers], lines)
            first = i
    return found, lines


def _alike(a: Sum, b: Sum) -> bool:
    """Whether two sums of an accumulator may be taken in any order: those of bfloat16 add to one half of it or the other."""
    return a.name == b.name and (a.name in _HALVES or (a.name in ("mac", "macsp") and a.numbers == b.numbers))


def _join(made: list[Sum], which: Sequence[int], lines: list[Array]) -> None:
    if len(which) < 2:
        return
    parts = zip(*(made[n].vectors for n in which), strict=True)
    first = made[which[0]]
    vectors = range(len(lines), len(lines) + len(first.vectors))
    lines += [np.concatenate([lines[n] for n in part], axis=1) for part in parts]
    for n in which:
        made[n] = Sum("none", (), ())
    made[which[0]] = Sum(first.name, first.numbers, tuple(vectors))


def _part(number: int) -> tuple[slice, slice]:
    """The rows and channels of a part of an accumulator (`tracing.parts_of`)."""
    whole = slice(None)
    if number == ALL:
        return whole, whole
    if number < POSITIONS:
        return whole, slice(4 * number, 4 * number + 4)
    return slice(2 * (number - POSITIONS), 2 * (number - POSITIONS) + 2), whole


def _put(total: Array, part: int, others: Sequence[Array]) -> Array:
    """`total` with the sum of others in it, or in a part of it."""
    with np.errstate(all="ignore"):
        made = sum((o.view(total.dtype) if total.dtype == np.float32 else o for o in others), np.zeros_like(total))
    if part == ALL:
        return made
    total, where = total.copy(), (slice(None), *_part(part))
    total[where] = made[where]
    return total


def _begins(sums: Sequence[Sum]) -> int | None:
    """After which of its sums nothing of an accumulator is what was there before them."""
    known = np.zeros((4, 8), np.bool_)
    for i, s in enumerate(sums):
        if s.name in ("row", "clr"):
            return i
        if s.name == "setc":
            known[s.numbers[0]] = True
        elif s.name == "setf":
            known[2 * s.numbers[0] : 2 * s.numbers[0] + 2] = True
        elif s.name == "take":
            known[_part(s.numbers[0])] = True
        elif s.name != "none" and not (s.name in _HALVES and known[_part(parts_of(s.name, s.numbers[0]))].all()):
            return None
        if known.all():
            return i
    return None


def _exact(left: Array, right: Array) -> Array:
    """int64 [iterations, 4, 8]: whole numbers [iterations, 4, k] times others, [k, 8] or [iterations, k, 8], in float32."""
    times, rows, terms = left.shape
    total = np.zeros((times, rows, 8), np.int64)
    for first in range(0, terms, _EXACT_TERMS):
        part = slice(first, first + _EXACT_TERMS)
        if right.ndim == 2:
            made = (left[:, :, part].reshape(rows * times, -1) @ right[part]).reshape(times, rows, 8)
        else:
            made = left[:, :, part] @ right[:, part]
        total += made.astype(np.int64)
    return total


class Operands:
    """Where vectors are: lines of 32 bytes, int64 [iterations, executions], by number; which do not move; and, as far as is known
    yet, from which of its sums on an accumulator depends on nothing before."""

    def __init__(self, lines: Sequence[Array]) -> None:
        self.lines = lines
        self.times = lines[0].shape[0] if lines else 1
        self.fixed = [bool((n == n[:1]).all()) for n in lines]
        self.begins: dict[int, int | None] = {}


class Values:
    """The sums and stored bytes of all iterations."""

    def __init__(self, sums: Mapping[int, Sequence[Sum]], operands: Operands, memory: Array, before: Array) -> None:
        """`sums` by accumulator, as `joined` has them.

        `memory` is what vectors are read from: data memory, then the registers before the loop; `before` (uint8 [8, 128]) are
        the accumulators before it.
        """
        self._lines = memory.reshape(-1, 32)
        self._sums, self._operands, self._before = sums, operands, before
        self._known: dict[tuple[int, int], Array | None] = {}

    def final(self, c: int) -> Array | None:
        """int32 [iterations, 4, 8]: the accumulator at the end of each; None when it goes on over iterations."""
        return self._after(c, len(self._sums[c])) if self._begins(c) is not None else None

    def _begins(self, c: int) -> int | None:
        """From which of its sums on nothing of an accumulator is what the iteration before left there."""
        if c not in self._operands.begins:
            self._operands.begins[c] = _begins(self._sums.get(c, ()))
        return self._operands.begins[c]

    def _after(self, c: int, count: int) -> Array | None:
        """int32 [iterations, 4, 8]: the accumulator after so many of its sums."""
        if (c, count) not in self._known:
            self._known[c, count] = self._summed(c, count)
        return self._known[c, count]

    def _summed(self, c: int, count: int) -> Array | None:
        begins = self._begins(c)
        times = self._operands.times
        if begins is None or count <= begins:
            if any(s.name in ("setc", "setf", "take") for s in self._sums.get(c, ())[:count]):
                return None
            before = np.broadcast_to(self._before[c].view(np.int32).reshape(4, 8), (times, 4, 8))
            if c not in self._sums:
                return before
            if count or begins is None or (final := self.final(c)) is None:
                return None
            return np.concatenate((before[:1], final[:-1]))
        floats = any(s.name in _OF_FLOATS for s in self._sums[c])
        if floats and any(s.name in _OF_INTEGERS for s in self._sums[c]):
            return None
        total = np.zeros((times, 4, 8), np.float32 if floats else np.int64)
        for s in self._sums[c][:count]:
            if s.name == "take":
                others = [self._after(*source) for source in zip(s.numbers[1::2], s.numbers[2::2], strict=True)]
                if any(o is None for o in others):
                    return None
                total = _put(total, s.numbers[0], [o for o in others if o is not None])
            elif s.name != "none":
                total = self._taken(total, s)
        return total.view(np.int32) if floats else total.astype(np.int32)

    def _taken(self, total: Array, s: Sum) -> Array:
        stored = np.float32 if total.dtype == np.float32 else np.int32
        if s.name == "clr":
            return np.zeros_like(total)
        if s.name == "row":
            rows: Array = np.broadcast_to(self._vector(s.vectors[0]).view(stored), total.shape).astype(total.dtype)
            return rows
        if s.name == "setc":
            total = total.copy()
            total[:, s.numbers[0]] = self._vector(s.vectors[0])[:, 0].view(stored)
            return total
        if s.name == "setf":
            total = total.copy()
            total[:, 2 * s.numbers[0] : 2 * s.numbers[0] + 2] = widened(self._vector(s.vectors[0])[:, 0]).reshape(-1, 2, 8)
            return total
        if s.name in _OF_FLOATS:
            with np.errstate(all="ignore"):
                return self._floats(total, s)
        if s.name == "ups":
            moved: Array = total + shifted(self._vector(s.vectors[0])[:, 0], *s.numbers)
            return moved
        made = {"mac": self._products, "macsp": self._sparse_products}.get(s.name, self._lanes)(s)
        summed: Array = total + made
        return summed

    def _floats(self, total: Array, s: Sum) -> Array:
        """What an instruction of float32 makes of the sums."""
        if s.name in ("maxf", "minf"):
            bounded: Array = (np.maximum if s.name == "maxf" else np.minimum)(total, as_float(s.numbers[0]))
            return bounded
        if s.name == "macbfsp":
            half = slice(4 * s.numbers[0], 4 * s.numbers[0] + 4)
            left, right = self._sparse_operands(s, BF16)
            total = total.copy()
            total[:, :, half] += left @ right
            return total
        if s.name == "macebf":
            made = (widened(self._vector(s.vectors[0])) * widened(self._vector(s.vectors[1]))).sum(axis=1).reshape(-1, 2, 8)
            total = total.copy()
            total[:, 2 * s.numbers[0] : 2 * s.numbers[0] + 2] += made
            return total
        data = widened(self._wide(s.vectors[:2]))
        times, count, _ = data.shape
        if s.name == "addbf":
            added: Array = total + data[:, 0].reshape(times, 4, 8)
            return added
        left = data.reshape(times, count, 4, 8).transpose(0, 2, 1, 3).reshape(times, 4, 8 * count)
        total, half, turned = total.copy(), slice(4 * s.numbers[0], 4 * s.numbers[0] + 4), s.name == "macbft"
        if all(self._operands.fixed[n] for n in s.vectors[2:]):
            fixed = np.concatenate([self._fixed(n) for n in s.vectors[2:]], axis=-1)
            right = widened(transposed_bf16(fixed) if turned else fixed).reshape(8 * count, 4)
            total[:, :, half] += (left.reshape(4 * times, -1) @ right).reshape(times, 4, 4)
        else:
            moving = self._wide(s.vectors[2:])
            total[:, :, half] += left @ widened(transposed_bf16(moving) if turned else moving).reshape(times, 8 * count, 4)
        return total

    def _wide(self, numbers: Sequence[int]) -> Array:
        """uint8 [iterations, executions, 64]: the halves of a register of 512 bits."""
        return np.concatenate([self._vector(n) for n in numbers], axis=-1)

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
        return _exact(left, right.reshape(-1, 8) if fixed else right.reshape(times, -1, 8))

    def _sparse_products(self, s: Sum) -> Array:
        """int64 [iterations, 4, 8]: all products of bytes by sparse operands."""
        return _exact(*self._sparse_operands(s, np.int8 if s.numbers[0] else np.uint8))

    def _sparse_operands(self, s: Sum, kind: Any) -> tuple[Array, Array]:
        """float32 [iterations, 4, k]: rows that sparse products multiply; and by what, [k, n] where that does not move, or
        [iterations, k, n]."""
        *data, low, high, mask = s.vectors
        rows = rows_of(np.concatenate([self._vector(n) for n in data], axis=-1), kind).astype(np.float32)
        times, count = rows.shape[:2]
        left = rows.transpose(0, 2, 1, 3).reshape(times, 4, DEPTH * count)
        fixed = all(self._operands.fixed[n] for n in (low, high, mask))
        values, masks = (
            np.concatenate([self._fixed(n) if fixed else self._vector(n) for n in part], axis=-1)
            for part in ((low, high), (mask,))
        )
        which = slice(MASK_BYTES * s.numbers[1], MASK_BYTES * (s.numbers[1] + 1))
        right = operands(masks[..., which], values, BF16 if kind is BF16 else np.int8)
        return left, right.reshape(*(() if fixed else (times,)), DEPTH * count, right.shape[-1])

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
        if s.name == "stbf":
            positions = slice(2 * s.numbers[0], 2 * s.numbers[0] + 2)
            return rounded(np.ascontiguousarray(sums).view(np.float32)[:, positions]).reshape(-1, 32)
        return saturated(sums, *s.numbers).reshape(-1, 32)
