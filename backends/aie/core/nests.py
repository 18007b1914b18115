"""Loops of loops at once: all iterations of a loop whose body loads, multiplies, stores and holds plain loops, with numpy.

How. An iteration is traced without data and numbers: its addresses, and what registers hold behind it, are linear in what they
hold before it and in the tables that it reads (`tracing`, `affine`). That is its template, which all loops share that run the
same bundles as often, whatever pointers and tables they have; chunks of sparse weights differ in nothing else. For the loop that
begins, numbers are put in. Where the second iteration finds the same tables wherever registers move, and these moves stay what
they are, all further ones do as it did. So all addresses are known, the data that products multiply can be gathered at once, and
sums follow from matrix products (`plan`, `sums`).

What does not fit (a load of what an iteration stored, a sum that goes on over iterations, an address outside of memory, a word
that nothing has written) is found before anything changes, and left to `execute.run_actions`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

from sparsec.backends.aie.core.affine import CAME, REGISTERS, Affine
from sparsec.backends.aie.core.cascade import WORD_BYTES
from sparsec.backends.aie.core.execute import VECTORS, State, around
from sparsec.backends.aie.core.instructions import COUNTS, Bundle
from sparsec.backends.aie.core.plan import Plan
from sparsec.backends.aie.core.sums import Values
from sparsec.backends.aie.core.trace import Step, Trace
from sparsec.backends.aie.core.tracing import Tracer, Unknown
from sparsec.compiler.errors import SparsecError

Array = np.ndarray[Any, Any]

_MOST_FOUND = 64  # words of tables in an iteration, at first


@dataclass(frozen=True)
class Ran:
    """What iterations did besides values: the steps of each, and accesses by bank.

    `kinds` are the cycles that the steps of an iteration lose to banks, as far as they differ; `runs` says which kind how many
    iterations in a row are of; `conflicts` are the cycles lost by all. `timed` is for whoever issues the steps, to keep how
    long an iteration of a kind takes, by how the core is before it.
    """

    steps: tuple[Step, ...]
    kinds: tuple[tuple[int, ...], ...]
    runs: tuple[tuple[int, int], ...]
    conflicts: int
    accesses: list[int]
    timed: dict[Any, Any] = field(default_factory=dict)

    @staticmethod
    def of(steps: Sequence[Step], lost: Array, accesses: list[int]) -> Ran:
        """From the cycles that steps lose, int64 [iterations, steps]."""
        kinds, which = np.unique(lost, axis=0, return_inverse=True)
        which = which.reshape(-1)
        firsts = np.flatnonzero(np.concatenate(([True], which[1:] != which[:-1])))
        lengths = np.diff(np.append(firsts, which.size))
        runs = tuple(zip(which[firsts].tolist(), lengths.tolist(), strict=True))
        return Ran(tuple(steps), tuple(map(tuple, kinds.tolist())), runs, int(lost.sum()), accesses)


class Template:
    """What loops with one body do that have the same counts: all but the numbers in registers and tables."""

    def __init__(self, trace: Trace, numbers: Affine, vectors: Sequence[int], start: int, end: int) -> None:
        """Of bundles [start, end). `vectors` are the rows of where vectors are after an iteration."""
        self.trace, self.numbers, self.plan = trace, numbers, Plan(trace)
        self.start, self.issued = start, np.zeros(end - start, np.int64)  # how often an iteration issues each bundle
        for step in trace.steps:
            self.issued[step.start - start : step.end - start] += step.times
        self.vectors = np.array(vectors, np.int64)
        self.loaded = np.flatnonzero(self.vectors >= 0)
        self.together = _pairs(trace)
        self._ringed = np.array(trace.ringed, np.int64).reshape(-1, 3).T
        self.timed: dict[Any, Any] = {}  # of iterations that lose nothing to banks
        tables = set(trace.tables)
        self.loads, self.tables, self.stores = (
            np.concatenate([trace.addresses[n] for n in part] or [np.zeros(0, np.int64)])
            for part in (
                [n for n in trace.loads if n not in tables],
                trace.tables,
                [s.address for s in trace.stores],
            )
        )

    @staticmethod
    def of(bundles: Sequence[Bundle], start: int, end: int, counts: Sequence[int], values: Sequence[int]) -> Template | None:
        """Of the bundles [start, end), when the registers r of `counts` hold `values`; None where they cannot be traced."""
        most = _MOST_FOUND
        while True:
            tracer = Tracer(bundles, start, end, counts, values)
            try:
                return Template(*tracer.run(most), tracer.vectors, start, end)
            except OverflowError:
                most *= 8
            except Unknown:
                return None

    def into_rings(self, where: Array) -> None:
        """Of addresses, int64 [iterations, rows], those that are in rings, which go on from the begin behind the end."""
        if self._ringed.size:
            where[:, self._ringed[0]] = around(*(where[:, part] for part in self._ringed))

    @property
    def nbytes(self) -> int:
        """About what it takes."""
        return self.numbers.nbytes


class Nest:
    """All iterations of a loop that is about to begin."""

    @staticmethod
    def of(template: Template, state: State, times: int) -> Nest | None:
        """What `state` leads to in so many iterations; None when it is not known at once."""
        numbers = template.numbers
        first = np.array([*state.r, *state.p, *state.m, state.memory.size + 32 * VECTORS], np.float64)
        if (begun := numbers.before(first, state.memory)) is None:
            return None
        after, tables = numbers.after @ begun[0], [begun[1]]
        size = len(numbers.addresses)
        where = np.empty((times, size + VECTORS), np.int64)
        where[0, :size] = numbers.addresses @ begun[0]
        where[0, size:] = state.memory.size + 32 * np.arange(VECTORS)
        last = after
        if times > 1:
            if (begun := numbers.before(after, state.memory)) is None:
                return None
            moved = numbers.after @ begun[0] - after
            if times > 2 and not numbers.repeats(moved):
                return None
            tables.append(begun[1])
            last = after + (times - 1) * moved
            on = (numbers.addresses[:, :REGISTERS] @ moved).astype(np.int64)
            where[1:, :size] = (numbers.addresses @ begun[0]).astype(np.int64) + np.arange(times - 1)[:, None] * on
        template.into_rings(where)
        if times > 1:
            for w, row in enumerate(template.vectors.tolist()):
                where[1:, w - VECTORS] = where[:-1, row] if row >= 0 else where[0, row]
        return Nest(template, where, first.astype(np.int64), last.astype(np.int64), np.concatenate(tables), state)

    def __init__(self, template: Template, where: Array, first: Array, last: Array, tables: Array, state: State) -> None:
        """Addresses, int64 [iterations, rows], registers before and after; `state` has the `tables` that were read."""
        self.template, self.trace, self.times = template, template.trace, len(where)
        self.where = where
        self._tables = tables // 2
        self._contents: Array = state.memory.view(np.uint16)[self._tables]
        self._lines = where // 32
        self._still = (where == where[0]).all(axis=0)
        self._fits = np.abs(last[: COUNTS["r"]]).max() < 2**31 and self._in_order(state.memory.size)
        self._loaded = np.unique(self._lines[:, template.loads])
        self._ran: dict[int, Ran] = {}
        self._words = int(last[CAME] - first[CAME]) // WORD_BYTES
        places = [(kind, i) for kind, letter in enumerate("rpm") for i in range(COUNTS[letter])]
        self._moved = [(*place, n) for place, n in zip(places, (last - first).tolist(), strict=False) if n]

    def reads_the_same(self, state: State) -> bool:
        """Whether the tables that it was made of are in `state` as well."""
        return np.array_equal(state.memory.view(np.uint16)[self._tables], self._contents)

    def run(self, state: State, bank_bytes: int) -> Ran | None:
        """Carry them out; None, and nothing changed, when that is not possible. `state` is as the one that it was made of."""
        if not self._fits or not self._written(state):
            return None
        came = state.inbox.peek(self._words)
        memory = np.concatenate((state.memory, state.w.reshape(-1), came.reshape(-1)))
        values = Values(self.template.plan, self._lines, self._still, memory, state.c)
        try:
            data = [values.stored(s) for s in (*self.trace.stores, *self.trace.puts)]
            finals = {c: values.final(c) for c in self.template.plan.changed}
        except SparsecError:  # of masks or shifts: bundles are then carried out one by one, to tell which
            return None
        if any(d is None for d in data) or any(f is None for f in finals.values()):
            return None
        state.inbox.drop(self._words)
        if self.trace.puts:
            quarters = [d for d in data[len(self.trace.stores) :] if d is not None]
            state.outbox.append(np.concatenate(quarters, axis=1).reshape(-1, WORD_BYTES))
        for s, d in zip(self.trace.stores, data[: len(self.trace.stores)], strict=True):
            at = self._lines[:, self._row(s.address)]
            state.memory.reshape(-1, 32)[at] = d
            state.written.reshape(-1, 8)[at] = 1
        for c, f in finals.items():
            assert f is not None
            state.sums(c)[:] = f
        self._leave(state, memory)
        if bank_bytes not in self._ran:
            self._ran[bank_bytes] = self._costs(bank_bytes, self._accesses(bank_bytes, state))
        return self._ran[bank_bytes]

    def _costs(self, bank_bytes: int, accesses: list[int]) -> Ran:
        """What it does besides values."""
        template, banks = self.template, self.where // bank_bytes
        if any((banks[:, a] == banks[:, b]).any() for a, b in template.together):
            return Ran.of(*self._conflicts(bank_bytes), accesses)
        steps = tuple(self.trace.steps)
        return Ran(steps, ((0,) * len(steps),), ((0, self.times),), 0, accesses, template.timed)

    def _row(self, number: int) -> int:
        """The row of an address that is used once in an iteration."""
        return int(self.trace.addresses[number][0])

    def _of(self, number: int) -> Array:
        """Addresses, int64 [iterations, executions]."""
        found: Array = self.where[:, self.trace.addresses[number]]
        return found

    def _in_order(self, size: int) -> bool:
        """Whether loads and stores stay in `size` bytes of memory, aligned, and loads read what was there before the loop."""
        template = self.template
        at = self.where[:, np.concatenate((template.loads, template.stores))]
        if at.size and (at.min() < 0 or at.max() > size - 32 or int(np.bitwise_or.reduce(at, axis=None)) % 32):
            return False
        if not template.stores.size:
            return True
        stored = np.zeros(size // 32, np.bool_)  # lines of 32 bytes that a store changes
        lines = self._lines[:, template.stores]
        stored[lines] = True
        if np.count_nonzero(stored) < lines.size:
            return False
        if not stored[self._lines[:, template.loads]].any() and not stored[self._lines[:, template.tables]].any():
            return True
        when = np.full(size // 32, np.iinfo(np.int64).max)
        for s in self.trace.stores:
            when[self._lines[:, self._row(s.address)]] = self._order(s.address)[:, 0]
        return not any((when[self._of(n) // 32] < self._order(n)).any() for n in self.trace.loads)

    def _written(self, state: State) -> bool:
        """Whether all that is loaded has been written."""
        return bool(state.written.reshape(-1, 8)[self._loaded].all() and state.written[self._tables // 2].all())

    def _order(self, number: int) -> Array:
        """When an access takes place, int64 [iterations, 1]; a bundle's loads are before its store."""
        return np.arange(self.times)[:, None] * len(self.trace.steps) + self.trace.places[number]

    def _leave(self, state: State, memory: Array) -> None:
        """Registers as the last iteration leaves them, where it changes them."""
        registers = (state.r, state.p, state.m)
        for kind, i, moved in self._moved:
            registers[kind][i] += moved
        loaded = self.template.loaded
        state.w[loaded] = memory.reshape(-1, 32)[self._lines[-1, self.template.vectors[loaded]]]

    def _conflicts(self, bank_bytes: int) -> tuple[list[Step], Array]:
        """An iteration's steps, loops as their bundles where accesses meet; cycles that these lose, int64 [iterations, steps]."""
        steps: list[Step] = []
        lost: list[Array] = []
        for step in self.trace.steps:
            met = [self._met(group, step.times, bank_bytes) for group in step.groups]
            if step.times * (step.end - step.start) > 1 and any(m.any() for m in met):
                steps += [Step(at, at + 1, 1, ()) for _ in range(step.times) for at in range(step.start, step.end)]
                lost.append(np.stack(met, axis=2).reshape(self.times, -1))
            else:
                steps.append(step)
                lost.append(sum(met, np.zeros((self.times, step.times), np.int64)).sum(axis=1, keepdims=True))
        return steps, np.concatenate(lost, axis=1)

    def _met(self, group: Sequence[int], times: int, bank_bytes: int) -> Array:
        """Cycles that a bundle loses to accesses which meet in a bank, int64 [iterations, executions]."""
        if len(group) < 2:
            return np.zeros((self.times, times), np.int64)
        banks = np.sort(np.stack([self._of(n) // bank_bytes for n in group]), axis=0)
        found: Array = (banks[1:] == banks[:-1]).sum(axis=0)
        return found

    def _accesses(self, bank_bytes: int, state: State) -> list[int]:
        template = self.template
        at = self.where[:, np.concatenate((template.loads, template.tables, template.stores))].reshape(-1)
        found: list[int] = np.bincount(at // bank_bytes, minlength=state.memory.size // bank_bytes).tolist()
        return found


def _pairs(trace: Trace) -> list[tuple[Array, Array]]:
    """The rows of accesses that take place together, two by two."""
    found: list[tuple[list[Array], list[Array]]] = []
    for group in (g for s in trace.steps for g in s.groups):
        for n, (a, b) in enumerate(combinations(group, 2)):
            if n == len(found):
                found.append(([], []))
            found[n][0].append(trace.addresses[a])
            found[n][1].append(trace.addresses[b])
    return [(np.concatenate(a), np.concatenate(b)) for a, b in found]
