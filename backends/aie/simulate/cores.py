"""A core in the array: when it runs, what it waits for, and how it meets DMA channels in the banks of its memory.

A bank serves one access a cycle. Loads and stores of one bundle that meet are counted bundle by bundle (`core/core.py`). A core's
accesses and a channel's are taken as spread evenly over the time in which both are active, as their phases depend on what no
model of this kind knows: while a core makes c accesses to a bank in n cycles and channels make d in the same cycles, it loses
c * d / n, rounded down, at most d; the channel, which has a buffer, loses nothing. Deterministic, and never less than nothing.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sparsec.backends.aie.core.cascade import GET, PUT
from sparsec.backends.aie.core.core import Core, Meeting
from sparsec.backends.aie.core.timing import Latencies
from sparsec.backends.aie.machine import Machine
from sparsec.backends.aie.registers import Tile
from sparsec.backends.aie.simulate.cascade import Coupling, Link
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
    link: Callable[[bool], tuple[Link, CoreProcess]]
    started: bool = False
    waiting: str | None = None
    timeline: Timeline = field(default_factory=Timeline)
    core: Core = field(init=False)
    memory: Words = field(init=False)
    coupling: Coupling = field(init=False)
    _transfers: deque[tuple[int, int, list[int]]] = field(default_factory=deque)
    _begun: int = 0
    _products: int = 0
    _before: Counter[str] = field(default_factory=Counter)
    _meeting: Meeting | None = None
    _sender: CoreProcess | None = None
    _receiver: CoreProcess | None = None

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
        self.coupling = Coupling(self.core.events)

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
        self._begun, self._before, self._products = core.now, core.stalls.copy(), core.products
        core.accesses = [0] * self.machine.core.data_banks
        self.coupling.begin()
        self._run()

    def _run(self) -> None:
        """Compute on, as far as values are there, and hand over what is put into the cascade."""
        core = self.core
        try:
            self._meeting = core.resume()
        except SparsecError as exc:
            raise StreamError(f"cycle {core.now + self.coupling.shift}, {self.name}, {exc}") from exc
        if core.state.outbox:
            self._attach(puts=True)
            assert self._receiver is not None
            self._receiver.feed(np.concatenate(core.state.outbox))
            core.state.outbox.clear()
        if self._meeting.kind == "get":
            self._attach(puts=False)
        self._settle()

    def _attach(self, *, puts: bool) -> None:
        """Find the neighbour that words go to, or come from."""
        try:
            link, other = self.link(puts)
        except SparsecError as exc:
            where = self.core.told(self.core.events.last(PUT)) if puts else self.core.where
            raise StreamError(f"cycle {self.core.now + self.coupling.shift}, {self.name}, {where}: {exc}") from exc
        if puts:
            self.coupling.outgoing, self._receiver = link, other
        else:
            self.coupling.incoming, self._sender = link, other

    def feed(self, words: Array) -> None:
        """Words whose values are known come from the cascade, whatever their time is."""
        self._attach(puts=False)
        self.core.state.inbox.push(words)
        if self._meeting is not None and self._meeting.kind == "get":
            self._meeting = None
            self.clock.at(self.clock.now, self._run)

    def _settle(self) -> None:
        """Find when this core and its neighbours really put and took words; who then knows when it meets the array goes there."""
        todo: list[CoreProcess] = [self]
        while todo:
            process = todo.pop()
            took, put = process.coupling.settle()
            process._plan()
            todo += [p for p, known in ((process._sender, took), (process._receiver, put)) if p is not None and known]

    def _plan(self) -> None:
        """Go to the next meeting, if it is known when that is."""
        if self._meeting is None or self._meeting.kind == "get" or not self.coupling.settled:
            return
        meeting, self._meeting = self._meeting, None
        self.core.wait_until(self.core.now + self.coupling.shift, Cause.CASCADE.value)
        self.clock.at(self.core.now, lambda: self._arrive(meeting))

    def _arrive(self, meeting: Meeting) -> None:
        core, before = self.core, self._before
        conflicts = self._conflicts(self._begun, core.now)
        core.wait_until(core.now + conflicts, "bank")
        lost = (
            core.stalls["pipeline"] - before["pipeline"],
            core.stalls["bank"] - before["bank"],
            core.stalls["jump"] - before["jump"],
        )
        self.timeline.add_between(self._begun, core.now, self.coupling.waits, core.products - self._products, lost)
        if conflicts:
            self.clock.at(core.now, lambda: self._meet(meeting))
        else:
            self._meet(meeting)

    @property
    def coupled(self) -> bool:
        """Whether it waits for the cascade."""
        return not self.coupling.settled or (self._meeting is not None and self._meeting.kind == "get")

    @property
    def waits_for(self) -> str | None:
        """In words, when it is for a lock or the cascade; None when it waits for neither."""
        coupling = self.coupling
        if not self.coupled:
            return self.waiting
        kind, bundle = coupling.blocked or (GET, self.core.pc)
        where = self.core.told(bundle)
        link, other = (coupling.outgoing, "take") if kind == PUT else (coupling.incoming, "put")
        assert link is not None
        whose = link.destination if kind == PUT else link.source
        told = f"{len(link.puts)} words were put into the cascade and {len(link.gets)} taken out"
        return f"{self.name}, {where}, for {whose} to {other} a word ({told})"

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
