"""A core in the array: when it runs, what it waits for, and how it meets DMA channels in the banks of its memory.

A bank serves one access a cycle. Loads and stores of one bundle that meet are counted bundle by bundle (`core/core.py`). A core's
accesses and a channel's are taken as spread evenly over the time in which both are active, as their phases depend on what no
model of this kind knows: while a core makes c accesses to a bank in n cycles and channels make d in the same cycles, it loses
c * d / n, rounded down, at most d; the channel, which has a buffer, loses nothing. Deterministic, and never less than nothing.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sparsec.backends.aie.core.core import Core, Meeting
from sparsec.backends.aie.core.timing import Latencies
from sparsec.backends.aie.machine import Machine
from sparsec.backends.aie.registers import Tile
from sparsec.backends.aie.simulate.events import Clock, Lock
from sparsec.backends.aie.simulate.memory import Words
from sparsec.backends.aie.simulate.timeline import Cause, Timeline
from sparsec.compiler.errors import SparsecError, StreamError

Array = np.ndarray[Any, Any]


@dataclass
class CoreProcess:
    """A core that runs between meetings with locks."""

    machine: Machine
    clock: Clock
    tile: Tile
    program: bytes
    locks: list[Lock]
    started: bool = False
    waiting: str | None = None
    timeline: Timeline = field(default_factory=Timeline)
    core: Core = field(init=False)
    memory: Words = field(init=False)
    _transfers: deque[tuple[int, int, list[int]]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        m = self.machine.core
        try:
            self.core = Core(
                self.program,
                Latencies(m.load_latency, m.vector_latency, m.jump_cycles),
                m.data_bytes,
                m.data_bytes // m.data_banks,
            )
        except SparsecError as exc:
            raise StreamError(f"the program of {self.name}: {exc}") from exc
        if len(self.program) > m.program_bytes:
            raise StreamError(f"the program of {self.name} has {len(self.program):,} bytes: its memory holds {m.program_bytes:,}")
        self.memory = Words(self.name, self.core.state.memory, self.core.state.written)

    @property
    def name(self) -> str:
        """As reports and errors call it."""
        return f"core{self.tile}"

    def start(self) -> None:
        """Begin the program now."""
        if not self.started:
            self.started = True
            self.core.wait_until(self.clock.now, "off")
            self._go_on()

    def touch(self, begin: int, end: int, words: Array) -> None:
        """Note that a channel moves `words` (addresses) of the memory from cycle `begin` to `end`."""
        together = self.machine.costs.dma_access_words
        words = words[words >= 0]
        if not words.size or not together:
            return
        groups = words // together
        first = np.concatenate(([True], groups[1:] != groups[:-1]))
        banks = groups[first] * (4 * together) // self.core.bank_bytes
        self._transfers.append((begin, end, np.bincount(banks, minlength=self.machine.core.data_banks).tolist()))

    def _go_on(self) -> None:
        """Compute up to the next meeting, which takes place when the core has got there."""
        core = self.core
        begun, before, products = core.now, core.stalls.copy(), core.products
        core.accesses = [0] * self.machine.core.data_banks
        try:
            meeting = core.resume()
        except SparsecError as exc:
            raise StreamError(f"cycle {core.now}, {self.name}, {exc}") from exc

        def arrive() -> None:
            conflicts = self._conflicts(begun, core.now)
            core.wait_until(core.now + conflicts, "bank")
            lost = (
                core.stalls["pipeline"] - before["pipeline"],
                core.stalls["bank"] - before["bank"],
                core.stalls["jump"] - before["jump"],
            )
            self.timeline.add(begun, core.now, Cause.COMPUTE, 0, 0, core.products - products, lost)
            if conflicts:
                self.clock.at(core.now, lambda: self._meet(meeting))
            else:
                self._meet(meeting)

        self.clock.at(core.now, arrive)

    def _conflicts(self, begin: int, end: int) -> int:
        """Cycles that the core lost to channels from `begin` to `end`."""
        while self._transfers and self._transfers[0][1] <= begin:
            self._transfers.popleft()
        total = 0
        for first, last, accesses in self._transfers:
            shared = min(end, last) - max(begin, first)
            if shared <= 0:
                continue
            for mine, theirs in zip(self.core.accesses, accesses, strict=True):
                if mine and theirs:
                    met = theirs * shared // (last - first)
                    total += min(met, mine * met // (end - begin))
        return total

    def _meet(self, meeting: Meeting) -> None:
        now = self.clock.now
        if meeting.kind == "done":
            return
        try:
            if meeting.lock >= len(self.locks):
                raise StreamError(f"there is no lock {meeting.lock}: the tile has {len(self.locks)}")
            lock = self.locks[meeting.lock]
            if meeting.kind == "rel":
                lock.release(meeting.value, Cause.LOCK)
        except SparsecError as exc:
            if str(exc).startswith("cycle "):
                raise
            raise StreamError(f"cycle {now}, {self.name}, {self.core.where}: {exc}") from exc
        if meeting.kind == "rel":
            self._go_on()
            return
        self.waiting = f"{self.name}, {self.core.where}, for {lock.name} to be at least {meeting.value} (holds {lock.value})"
        lock.acquire(self.name, meeting.value, True, lambda: self._got(now, lock))

    def _got(self, asked: int, lock: Lock) -> None:
        """Go on with a lock that was asked for at cycle `asked`."""
        self.waiting = None
        now = self.clock.now
        self.timeline.add(asked, now, lock.cause, lock.tag)
        self.timeline.add(now, now + self.machine.costs.lock, Cause.LOCK)
        self.core.wait_until(now, lock.cause.value)
        self.core.wait_until(now + self.machine.costs.lock, Cause.LOCK.value)
        self._go_on()
