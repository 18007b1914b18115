"""Loops of loops at once: all iterations of a loop whose body loads, multiplies, stores and holds plain loops, with numpy.

How. Numbers and pointers are computed for up to four iterations, without data (`tracing`). Where there are more, and from one to
the next they move by the same amounts, and so does every address, then they go on like that: everything that such a body does to
them is linear, and the tables that it reads are the same every time. So all addresses of all iterations are known, the data that
products multiply can be gathered at once, and sums follow from matrix products (`sums`).

What does not fit (a load of what an iteration stored, a sum that goes on over iterations, an address outside of memory, a word
that nothing has written) is found before anything changes, and left to `execute.run_bundle`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from sparsec.backends.aie.core.cascade import WORD_BYTES
from sparsec.backends.aie.core.execute import State
from sparsec.backends.aie.core.instructions import COUNTS, Bundle
from sparsec.backends.aie.core.sums import Operands, Values, joined
from sparsec.backends.aie.core.tracing import Step, Trace, Tracer
from sparsec.compiler.errors import SparsecError

Array = np.ndarray[Any, Any]

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
    """All iterations of a loop that is about to begin."""

    @staticmethod
    def of(bundles: Sequence[Bundle], state: State, start: int, end: int, times: int) -> Nest | None:
        """What `state` leads to in `times` iterations of the bundles [start, end); None when it is not known at once."""
        tracer = Tracer(bundles, state, start, end)
        registers, traces = [tracer.registers()], []
        try:
            for _ in range(min(times, _TRACED)):
                traces.append(tracer.iteration())
                registers.append(tracer.registers())
        except SparsecError:
            return None
        if any(t.fixed != traces[0].fixed or t.steps != traces[0].steps for t in traces[1:]):
            return None
        where = np.stack([np.concatenate(t.addresses) if t.addresses else np.zeros(0, np.int64) for t in traces])
        last = registers[-1]
        if times > _TRACED:
            move, still = where[2] - where[1], registers[2] - registers[1]
            if not np.array_equal(where[3] - where[2], move) or any(
                not np.array_equal(b - a, still) for a, b in pairwise(registers[1:])
            ):
                return None
            where = np.concatenate((where[:1], where[1] + np.arange(times - 1)[:, None] * move))
            last = registers[1] + (times - 1) * still
        return Nest(traces[0], where, registers[0], last, state)

    def __init__(self, trace: Trace, where: Array, first: Array, last: Array, state: State) -> None:
        """Addresses, int64 [iterations, all executions], registers before and after; `state` has the tables that were read."""
        self.trace, self.first, self.last, self.times = trace, first, last, where.shape[0]
        bounds = np.cumsum([0, *(a.size for a in trace.addresses)]).tolist()
        self.where = [where[:, a:b] for a, b in pairwise(bounds)]
        self._tables = np.unique(np.concatenate([self.where[n].reshape(-1) for n in trace.tables] or [np.zeros(0, np.int64)]))
        self._contents: Array = state.memory.view(np.uint16)[self._tables // 2]
        self._fits = np.abs(last[: COUNTS["r"]]).max() < 2**31 and self._in_order(state.memory.size)
        loads = [self.where[n].reshape(-1) // 32 for n in trace.loads if n not in set(trace.tables)]
        self._lines = np.unique(np.concatenate(loads or [np.zeros(0, np.int64)]))
        self._ran: dict[int, Ran] = {}
        came = sum(COUNTS[kind] for kind in "rpm")  # its place among registers
        self._words = int(last[came] - first[came]) // WORD_BYTES
        self._sums, lines = joined(trace, self.where)
        self._operands = Operands(lines)

    def reads_the_same(self, state: State) -> bool:
        """Whether the tables that it was made of are in `state` as well."""
        return np.array_equal(state.memory.view(np.uint16)[self._tables // 2], self._contents)

    def run(self, state: State, bank_bytes: int) -> Ran | None:
        """Carry them out; None, and nothing changed, when that is not possible. `state` is as the one that it was made of."""
        if not self._fits or not self._written(state):
            return None
        came = state.inbox.peek(self._words)
        memory = np.concatenate((state.memory, state.w.reshape(-1), came.reshape(-1)))
        values = Values(self._sums, self._operands, memory, state.c)
        data = [values.stored(s) for s in (*self.trace.stores, *self.trace.puts)]
        finals = {c: values.final(c) for c in self.trace.sums}
        if any(d is None for d in data) or any(f is None for f in finals.values()):
            return None
        state.inbox.drop(self._words)
        if self.trace.puts:
            quarters = [d for d in data[len(self.trace.stores) :] if d is not None]
            state.outbox.append(np.concatenate(quarters, axis=1).reshape(-1, WORD_BYTES))
        for s, d in zip(self.trace.stores, data[: len(self.trace.stores)], strict=True):
            at = self.where[s.address][:, 0]
            state.memory.reshape(-1, 32)[at // 32] = d
            state.written.reshape(-1, 8)[at // 32] = 1
        for c, f in finals.items():
            assert f is not None
            state.sums(c)[:] = f[-1]
        self._leave(state, memory)
        if bank_bytes not in self._ran:
            self._ran[bank_bytes] = Ran.of(*self._conflicts(bank_bytes), self._accesses(bank_bytes, state))
        return self._ran[bank_bytes]

    def _in_order(self, size: int) -> bool:
        """Whether loads and stores stay in `size` bytes of memory, aligned, and loads read what was there before the loop."""
        never = np.iinfo(np.int64).max
        stored = np.full(size // 32, never)  # when a store changes a line of 32 bytes
        for s in self.trace.stores:
            at = self.where[s.address]
            if not _inside(at, 32, size) or np.unique(at).size != at.size or (stored[at // 32] != never).any():
                return False
            stored[at // 32] = self._order(s.address)
        tables = set(self.trace.tables)
        for number in self.trace.loads:
            at = self.where[number]
            if not _inside(at, 2 if number in tables else 32, size) or (stored[at // 32] < self._order(number)).any():
                return False
        return True

    def _written(self, state: State) -> bool:
        """Whether all that is loaded has been written."""
        return bool(state.written.reshape(-1, 8)[self._lines].all() and state.written[self._tables // 4].all())

    def _order(self, number: int) -> Array:
        """When an access takes place, int64 [iterations, 1]; a bundle's loads are before its store."""
        return np.arange(self.times)[:, None] * len(self.trace.steps) + self.trace.places[number]

    def _leave(self, state: State, memory: Array) -> None:
        """Registers as the last iteration leaves them, where it changes them."""
        at = 0
        for values in (state.r, state.p, state.m):
            for i in range(len(values)):
                values[i] += int(self.last[at + i] - self.first[at + i])
            at += len(values)
        at += 1  # where the cascade's words are
        for w, (before, after) in enumerate(zip(self.first[at:].tolist(), self.last[at:].tolist(), strict=True)):
            if before != after:
                state.w[w] = memory[after : after + 32]

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
        banks = np.sort(np.stack([self.where[n] // bank_bytes for n in group]), axis=0)
        found: Array = (banks[1:] == banks[:-1]).sum(axis=0)
        return found

    def _accesses(self, bank_bytes: int, state: State) -> list[int]:
        count = np.zeros(state.memory.size // bank_bytes, np.int64)
        for number in (*self.trace.loads, *(s.address for s in self.trace.stores)):
            count += np.bincount(self.where[number].reshape(-1) // bank_bytes, minlength=count.size)
        return [int(n) for n in count]


def _inside(at: Array, size: int, memory: int) -> bool:
    """Whether accesses of `size` bytes are in memory and aligned."""
    return bool(at.min() >= 0 and at.max() <= memory - size and not (at % size).any())
