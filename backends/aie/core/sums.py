"""What the accumulators of a loop hold and its stores write, in all iterations at once (see `nests`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sparsec.backends.aie.core.arithmetic import BF16, as_float, rounded, rows_of, saturated, shifted, transposed_bf16, widened
from sparsec.backends.aie.core.plan import OF_FLOATS, OF_INTEGERS, Alike, Plan, part_of
from sparsec.backends.aie.core.sparse_b import DEPTH, MASK_BYTES
from sparsec.backends.aie.core.sparse_b import as_float as operands
from sparsec.backends.aie.core.trace import ALL, Stored, Sum

Array = np.ndarray[Any, Any]

_EXACT_TERMS = 512  # products of bytes whose sum float32 holds exactly


def _put(total: Array, part: int, others: Sequence[Array]) -> Array:
    """`total` with the sum of others in it, or in a part of it."""
    with np.errstate(all="ignore"):
        made = sum((o.view(total.dtype) if total.dtype == np.float32 else o for o in others), np.zeros_like(total))
    if part == ALL:
        return made
    total, where = total.copy(), (slice(None), *part_of(part))
    total[where] = made[where]
    return total


def _exact(left: Array, right: Array) -> Array:
    """int64 [n, 8]: whole numbers [n, k] times others [k, 8] in float32."""
    total = np.zeros((len(left), 8), np.int64)
    for first in range(0, left.shape[1], _EXACT_TERMS):
        part = slice(first, first + _EXACT_TERMS)
        total += (left[:, part] @ right[part]).astype(np.int64)
    return total


def _exact_each(left: Array, right: Array) -> Array:
    """int64 [iterations, 4, 8]: whole numbers [iterations, 4, k] times others [iterations, k, 8] in float32."""
    total = np.zeros((*left.shape[:2], 8), np.int64)
    for first in range(0, left.shape[2], _EXACT_TERMS):
        part = slice(first, first + _EXACT_TERMS)
        total += (left[:, :, part] @ right[:, part]).astype(np.int64)
    return total


class Values:
    """The sums and stored bytes of all iterations."""

    def __init__(self, plan: Plan, lines: Array, still: Array, memory: Array, before: Array) -> None:
        """`lines` (int64 [iterations, rows]) say where vectors are in `memory`, in units of 32 bytes; `still` tells those that do
        not move.

        `memory` is what vectors are read from: data memory, then the registers before the loop and words of the cascade; `before`
        (uint8 [8, 128]) are the accumulators before it.
        """
        self._plan, self._lines, self._still = plan, lines, still
        self._memory, self._quarters = memory.reshape(-1, 32), memory.view(np.uint64)
        self._before = before.view(np.int32).reshape(-1, 4, 8)
        self._times = len(lines)
        self._known: dict[tuple[int, int], Array | None] = {}
        self._stored: dict[tuple[int, str, int, tuple[int, ...]], Array] = {}

    def final(self, c: int) -> Array | None:
        """int32 [4, 8]: an accumulator at the end; None when it goes on over iterations."""
        n, which = self._plan.place[c]
        found = self._final(n)
        return None if found is None else found[which - len(self._plan.classes[n].members)]

    def _final(self, n: int) -> Array | None:
        """int32 [iterations x accumulators, 4, 8]: those of a class at the end of each iteration."""
        of = self._plan.classes[n]
        return self._after(n, len(of.sums)) if of.begins is not None or self._times == 1 else None

    def _after(self, n: int, count: int) -> Array | None:
        """int32 [iterations x accumulators, 4, 8]: those of a class after so many of their sums."""
        if (n, count) not in self._known:
            self._known[n, count] = None  # as for sums that go on over iterations by way of others
            self._known[n, count] = self._summed(n, count)
        return self._known[n, count]

    def _summed(self, n: int, count: int) -> Array | None:
        of = self._plan.classes[n]
        times, size = self._times, len(of.members)
        before = self._before[list(of.members)]
        if not of.sums:
            return np.broadcast_to(before, (times, size, 4, 8)).reshape(times * size, 4, 8)
        if times == 1:
            return (
                before
                if count == 0
                else self._added(of, before.view(np.float32) if of.floats else before.astype(np.int64), count)
            )
        if of.begins is None or count <= of.begins:
            if count or of.begins is None or (final := self._final(n)) is None:
                return None
            return np.concatenate((before, final[:-size]))
        return self._added(of, np.zeros((times * size, 4, 8), np.float32 if of.floats else np.int64), count)

    def _added(self, of: Alike, total: Array, count: int) -> Array | None:
        """int32 [iterations x accumulators, 4, 8]: what so many of their sums make of accumulators that hold `total`."""
        if of.floats and any(s.name in OF_INTEGERS for s in of.sums):
            return None
        for s in of.sums[:count]:
            if s.name == "take":
                others = [self._source(of.takes[i]) for i in s.numbers[1:]]
                if any(o is None for o in others):
                    return None
                total = _put(total, s.numbers[0], [o for o in others if o is not None])
            elif s.name != "none":
                total = self._taken(total, s, of.rows)
        return total.view(np.int32) if of.floats else total.astype(np.int32)

    def _source(self, take: tuple[int, Array | None, int]) -> Array | None:
        """What is taken."""
        n, where, count = take
        found = self._after(n, count)
        if found is None or where is None:
            return found
        chosen: Array = found.reshape(self._times, -1, 4, 8)[:, where].reshape(-1, 4, 8)
        return chosen

    def _taken(self, total: Array, s: Sum, rows: Sequence[Array]) -> Array:
        stored = np.float32 if total.dtype == np.float32 else np.int32
        vectors = [rows[n] for n in s.vectors]
        if s.name == "clr":
            return np.zeros_like(total)
        if s.name == "row":
            made: Array = np.broadcast_to(self._vector(vectors[0]).view(stored), total.shape).astype(total.dtype)
            return made
        if s.name == "setc":
            total = total.copy()
            total[:, s.numbers[0]] = self._vector(vectors[0])[:, 0].view(stored)
            return total
        if s.name == "setf":
            total = total.copy()
            total[:, 2 * s.numbers[0] : 2 * s.numbers[0] + 2] = widened(self._vector(vectors[0])[:, 0]).reshape(-1, 2, 8)
            return total
        if s.name in OF_FLOATS:
            with np.errstate(all="ignore"):
                return self._floats(total, s, vectors)
        if s.name == "ups":
            moved: Array = total + shifted(self._vector(vectors[0])[:, 0], *s.numbers)
            return moved
        products = {"mac": self._products, "macsp": self._sparse_products}.get(s.name, self._lanes)(s, vectors)
        summed: Array = total + products
        return summed

    def _floats(self, total: Array, s: Sum, vectors: Sequence[Array]) -> Array:
        """What an instruction of float32 makes of the sums."""
        if s.name in ("maxf", "minf"):
            bounded: Array = (np.maximum if s.name == "maxf" else np.minimum)(total, as_float(s.numbers[0]))
            return bounded
        if s.name == "macbfsp":
            half = slice(4 * s.numbers[0], 4 * s.numbers[0] + 4)
            left, right = self._sparse_operands(s, vectors, BF16)
            total = total.copy()
            total[:, :, half] += left @ right
            return total
        if s.name == "macebf":
            made = (widened(self._vector(vectors[0])) * widened(self._vector(vectors[1]))).sum(axis=1).reshape(-1, 2, 8)
            total = total.copy()
            total[:, 2 * s.numbers[0] : 2 * s.numbers[0] + 2] += made
            return total
        data = widened(self._wide(vectors[:2]))
        times, count, _ = data.shape
        if s.name == "addbf":
            added: Array = total + data[:, 0].reshape(times, 4, 8)
            return added
        left = data.reshape(times, count, 4, 8).transpose(0, 2, 1, 3).reshape(times, 4, 8 * count)
        total, half, turned = total.copy(), slice(4 * s.numbers[0], 4 * s.numbers[0] + 4), s.name == "macbft"
        if self._is_fixed(vectors[2:]):
            fixed = self._fixed(vectors[2:])
            right = widened(transposed_bf16(fixed) if turned else fixed).reshape(8 * count, 4)
            total[:, :, half] += (left.reshape(4 * times, -1) @ right).reshape(times, 4, 4)
        else:
            moving = self._wide(vectors[2:])
            total[:, :, half] += left @ widened(transposed_bf16(moving) if turned else moving).reshape(times, 8 * count, 4)
        return total

    def _places(self, vector: Array) -> Array:
        """Where a vector of all accumulators is, int64 [iterations x accumulators, executions]."""
        found: Array = np.take(self._lines, vector, axis=1).reshape(-1, vector.shape[1])
        return found

    def _vector(self, vector: Array) -> Array:
        """uint8 [iterations x accumulators, executions, 32]."""
        found: Array = np.take(self._memory, self._places(vector), axis=0)
        return found

    def _wide(self, vectors: Sequence[Array]) -> Array:
        """uint8 [iterations x accumulators, executions, 64]: the halves of a register of 512 bits."""
        return np.concatenate([self._vector(v) for v in vectors], axis=-1)

    def _is_fixed(self, vectors: Sequence[Array]) -> bool:
        """Whether vectors are the same for all accumulators in all iterations."""
        return all(bool(self._still[v].all()) and (len(v) == 1 or bool((v == v[0]).all())) for v in vectors)

    def _fixed(self, vectors: Sequence[Array]) -> Array:
        """uint8 [executions, 32 for each vector] of those that are the same for all."""
        return np.concatenate([np.take(self._memory, self._lines[0, v[0]], axis=0) for v in vectors], axis=-1)

    def _products(self, s: Sum, vectors: Sequence[Array]) -> Array:
        """int64 [iterations x accumulators, 4, 8]: all products of an instruction."""
        places = 4 * self._places(vectors[0])[:, None] + np.arange(4)[:, None]  # of 8 channels of a position
        left = np.take(self._quarters, places).view(np.int8 if s.numbers[0] else np.uint8).astype(np.float32)
        if self._is_fixed(vectors[1:]):
            right = self._fixed(vectors[1:]).view(np.int8).astype(np.float32).reshape(-1, 8)
            return _exact(left.reshape(-1, len(right)), right).reshape(-1, 4, 8)
        moving = self._wide(vectors[1:]).view(np.int8).astype(np.float32)
        return _exact_each(left, moving.reshape(len(left), -1, 8))

    def _sparse_products(self, s: Sum, vectors: Sequence[Array]) -> Array:
        """int64 [iterations x accumulators, 4, 8]: all products of bytes by sparse operands."""
        left, right = self._sparse_operands(s, vectors, np.int8 if s.numbers[0] else np.uint8)
        if right.ndim == 2:
            return _exact(left.reshape(-1, len(right)), right).reshape(-1, 4, 8)
        return _exact_each(left, right)

    def _sparse_operands(self, s: Sum, vectors: Sequence[Array], kind: Any) -> tuple[Array, Array]:
        """float32 [iterations x accumulators, 4, k]: rows that sparse products multiply; and by what, [k, n] where that is the
        same for all, or [iterations x accumulators, k, n]."""
        *data, low, high, mask = vectors
        rows = rows_of(self._wide(data), kind).astype(np.float32)
        times, count = rows.shape[:2]
        left = rows.transpose(0, 2, 1, 3).reshape(times, 4, DEPTH * count)
        fixed = self._is_fixed((low, high, mask))
        values, masks = (self._fixed(v) if fixed else self._wide(v) for v in ((low, high), (mask,)))
        which = slice(MASK_BYTES * s.numbers[1], MASK_BYTES * (s.numbers[1] + 1))
        right = operands(masks[..., which], values, BF16 if kind is BF16 else np.int8)
        return left, right.reshape(*(() if fixed else (times,)), DEPTH * count, right.shape[-1])

    def _lanes(self, s: Sum, vectors: Sequence[Array]) -> Array:
        kind = np.int8 if s.numbers[0] else np.uint8
        left = self._vector(vectors[0]).view(kind).astype(np.int32)
        fixed = self._is_fixed(vectors[1:])
        right = (self._fixed(vectors[1:]) if fixed else self._vector(vectors[1])).view(np.int8).astype(np.int32)
        sums: Array = (left * right).sum(axis=1, dtype=np.int64).reshape(-1, 4, 8)
        return sums

    def stored(self, s: Stored) -> Array | None:
        """uint8 [iterations, 32]: what a store writes."""
        if s.name == "stw":
            found: Array = self._memory[self._lines[:, self._plan.rows[s.vector][0]]]
            return found
        n, which = self._plan.place.get(s.accumulator, (-1, 0))
        if n < 0:
            return self._written(np.broadcast_to(self._before[s.accumulator], (self._times, 4, 8)), s)
        before = self._plan.classes[n].sums[: s.after]
        others = s.name == "stc" and all(b.name == "setc" and b.numbers != s.numbers for b in before)
        key = n, s.name, 0 if others else s.after, s.numbers
        if key not in self._stored:
            sums = self._after(n, key[2])
            if sums is None:
                return None
            self._stored[key] = self._written(sums, s)
        made: Array = self._stored[key].reshape(self._times, -1, 32)[:, which]
        return made

    def _written(self, sums: Array, s: Stored) -> Array:
        """uint8 [n, 32]: what a store makes of sums, [n, 4, 8]."""
        if s.name == "stc":
            return np.ascontiguousarray(sums[:, s.numbers[0]]).view(np.uint8)
        if s.name == "stbf":
            positions = slice(2 * s.numbers[0], 2 * s.numbers[0] + 2)
            return rounded(np.ascontiguousarray(sums).view(np.float32)[:, positions]).reshape(-1, 32)
        return saturated(sums, *s.numbers).reshape(-1, 32)
