"""Loops of loops at once: the iterations of a loop whose body loads, multiplies, stores and holds plain loops, with numpy.

How. Numbers and pointers are computed for four iterations, without data (`tracing`). When from one to the next they move by the
same amounts, and so does every address, then they go on like that: everything that such a body does to them is linear, and the
tables that it reads are the same every time. So all addresses of all iterations are known, the data that products multiply can
be gathered at once, and sums follow from matrix products (`sums`). The first iteration is left to `execute.run_bundle`.

What does not fit (a store where a load reads, a sum that goes on over iterations, an address outside of memory, a word that
nothing has written) is found before anything changes, and left to `execute.run_bundle` too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from sparsec.backends.aie.core.execute import State
from sparsec.backends.aie.core.instructions import COUNTS, Bundle
from sparsec.backends.aie.core.sums import Values
from sparsec.backends.aie.core.tracing import Step, Trace, Tracer
from sparsec.compiler.errors import SparsecError

Array = np.ndarray[Any, Any]

LEAST_TIMES = 5
_TRACED = 4


@dataclass(frozen=True)
class Ran:
    """What iterations did besides values: the steps of each, and accesses by bank.

    `kinds` are the cycles that the steps of an iteration lose to banks, as far as they differ; `runs` says which kind how many
    iterations in a row are of; `conflicts` are the cycles lost by all.
    """

    steps: tuple[Step, ...]
    kinds: tuple[tuple[int, ...], ...]
    runs: tuple[tuple[int, int], ...]
    conflicts: int
    accesses: list[int]

    @staticmethod
    def of(steps: Sequence[Step], lost: Array, accesses: list[int]) -> Ran:
        """From the cycles that steps lose, int64 [iterations, steps]."""
        kinds, which = np.unique(lost, axis=0, return_inverse=True)
        which = which.reshape(-1)
        firsts = np.flatnonzero(np.concatenate(([True], which[1:] != which[:-1])))
        lengths = np.diff(np.append(firsts, which.size))
        runs = tuple(zip(which[firsts].tolist(), lengths.tolist(), strict=True))
        return Ran(tuple(steps), tuple(map(tuple, kinds.tolist())), runs, int(lost.sum()), accesses)


class Nest:
    """The iterations from the second on of a loop that is about to begin."""

    @staticmethod
    def of(bundles: Sequence[Bundle], state: State, start: int, end: int, times: int) -> Nest | None:
        """What `state` leads to in `times` iterations of the bundles [start, end); None when it is not known at once."""
        if times < LEAST_TIMES:
            return None
        tracer = Tracer(bundles, state, start, end)
        registers, traces = [tracer.registers()], []
        try:
            for _ in range(_TRACED):
                traces.append(tracer.iteration())
                registers.append(tracer.registers())
        except SparsecError:
            return None
        if any(t.fixed != traces[1].fixed or t.steps != traces[1].steps for t in traces[2:]):
            return None
        where = [np.concatenate(t.addresses) if t.addresses else np.zeros(0, np.int64) for t in traces[1:]]
        move = where[1] - where[0]
        still = registers[2] - registers[1]
        if not np.array_equal(where[2] - where[1], move) or any(
            not np.array_equal(b - a, still) for a, b in pairwise(registers[1:])
        ):
            return None
        made = Nest(traces[1], where[0], move, registers[1], still, times - 1)
        made._tables = np.unique(np.concatenate([t.addresses[n] for t in traces for n in t.tables] or [np.zeros(0, np.int64)]))
        made._contents = state.memory.view(np.uint16)[made._tables // 2]
        return made

    def __init__(self, trace: Trace, where: Array, move: Array, registers: Array, still: Array, times: int) -> None:
        """Addresses `where` and `registers` at the beginning of the second iteration, and what they move by; iterations left."""
        self.trace, self.registers, self.still, self.times = trace, registers, still, times
        self._tables: Array = np.zeros(0, np.int64)
        self._contents: Array = np.zeros(0, np.uint16)
        self._ran: dict[int, Ran] = {}
        bounds = np.cumsum([0, *(a.size for a in trace.addresses)])
        parts = list(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True))
        self.where = [where[a:b] for a, b in parts]
        self.move = [move[a:b] for a, b in parts]

    def reads_the_same(self, state: State) -> bool:
        """Whether the tables that it was made of are in `state` as well."""
        return np.array_equal(state.memory.view(np.uint16)[self._tables // 2], self._contents)

    def _addresses(self, number: int) -> Array:
        """int64 [iterations, executions] of traced addresses."""
        return self.where[number] + np.arange(self.times)[:, None] * self.move[number]

    def run(self, state: State, bank_bytes: int) -> Ran | None:
        """Carry them out on `state`, which the first iteration has left; None, and nothing changed, when that is not possible."""
        here = [*state.r, *state.p, *state.m]
        if here != self.registers[: len(here)].tolist() or not self._allowed(state):
            return None
        last = self.registers + self.still * self.times
        if np.abs(last[: COUNTS["r"]]).max() >= 2**31:
            return None
        values = Values(
            self.trace.sums, self.where, self.move, self.times, np.concatenate((state.memory, state.w.reshape(-1))), state.c
        )
        data = [values.stored(s) for s in self.trace.stores]
        finals = {c: values.final(c) for c in self.trace.sums}
        if any(d is None for d in data) or any(f is None for f in finals.values()):
            return None
        for s, d in zip(self.trace.stores, data, strict=True):
            at = self._addresses(s.address)[:, 0]
            state.memory.reshape(-1, 32)[at // 32] = d
            state.written.reshape(-1, 8)[at // 32] = 1
        for c, f in finals.items():
            assert f is not None
            state.sums(c)[:] = f[-1]
        self._leave(state, last, values.memory)
        if bank_bytes not in self._ran:
            self._ran[bank_bytes] = Ran.of(*self._conflicts(bank_bytes), self._accesses(bank_bytes, state))
        return self._ran[bank_bytes]

    def _allowed(self, state: State) -> bool:
        """Whether loads and stores stay in memory, aligned, and loads read what was written before the loop."""
        stored = np.full(state.memory.size // 32, np.iinfo(np.int64).max)  # when a store changes a line of 32 bytes
        for s in self.trace.stores:
            at = self._addresses(s.address)
            if not self._inside(at, 32, state) or np.unique(at).size != at.size:
                return False
            if (stored[at // 32] != np.iinfo(np.int64).max).any():
                return False
            stored[at // 32] = self._order(s.address)
        known = np.all(state.written.reshape(-1, 8), axis=1)
        tables = set(self.trace.tables)
        for number in self.trace.loads:
            at = self._addresses(number)
            table = number in tables
            if not self._inside(at, 2 if table else 32, state) or (stored[at // 32] < self._order(number)).any():
                return False
            if not (state.written[at // 4].all() if table else known[at // 32].all()):
                return False
            if table and self.move[number].any():
                return False
        return True

    def _order(self, number: int) -> Array:
        """When an access takes place, int64 [iterations, 1]; a bundle's loads are before its store."""
        return np.arange(self.times)[:, None] * len(self.trace.steps) + self.trace.places[number]

    @staticmethod
    def _inside(at: Array, size: int, state: State) -> bool:
        return bool(at.min() >= 0 and at.max() <= state.memory.size - size and not (at % size).any())

    def _leave(self, state: State, last: Array, memory: Array) -> None:
        """Registers as the last iteration leaves them."""
        numbers = last.tolist()
        first = 0
        for values in (state.r, state.p, state.m):
            values[:] = numbers[first : first + len(values)]
            first += len(values)
        before = memory.size - state.w.size
        for w, at in enumerate(numbers[first:]):
            if at != before + 32 * w:
                state.w[w] = memory[at : at + 32]

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
        banks = np.sort(np.stack([self._addresses(n) // bank_bytes for n in group]), axis=0)
        found: Array = (banks[1:] == banks[:-1]).sum(axis=0)
        return found

    def _accesses(self, bank_bytes: int, state: State) -> list[int]:
        count = np.zeros(state.memory.size // bank_bytes, np.int64)
        for number in (*self.trace.loads, *(s.address for s in self.trace.stores)):
            count += np.bincount(self._addresses(number).reshape(-1) // bank_bytes, minlength=count.size)
        return [int(n) for n in count]
