"""DMA channels: tasks from their queues, descriptors in turn, words over circuits at the speed of the slowest end.

A transfer goes on when the source has a descriptor with its lock, and so has every destination of its circuits; it moves as
many words as all of them have left, one a cycle. Words arrive three cycles a hop later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sparsec.backends.aie.descriptors import PADDING, Descriptor
from sparsec.backends.aie.machine import Costs
from sparsec.backends.aie.registers import Direction, Kind
from sparsec.backends.aie.simulate.events import Action, Clock, Lock
from sparsec.backends.aie.simulate.memory import Words
from sparsec.backends.aie.transaction import Task
from sparsec.compiler.errors import StreamError

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Surroundings:
    """What a channel sees of its tile: descriptors by number, locks by number, and where words are in memory."""

    kind: Kind
    load: Callable[[int], Descriptor]
    store: Callable[[int, Descriptor], None]
    lock: Callable[[int], Lock]
    place: Callable[[Array], Sequence[tuple[Words, Array, Array]]]
    token: Action


@dataclass
class Busy:
    """What a channel did and what it waited for, in cycles."""

    words: int = 0
    lock: int = 0
    peer: int = 0


@dataclass
class Channel:
    """One channel of a DMA. `peers` are the other ends of its circuits with their hops."""

    name: str
    direction: Direction
    clock: Clock
    costs: Costs
    around: Surroundings
    queue_depth: int
    words_per_cycle: float = 1.0
    peers: list[tuple[Channel, int]] = field(default_factory=list)
    queue: deque[Task] = field(default_factory=deque)
    busy: Busy = field(default_factory=Busy)
    trace: list[tuple[int, int, str]] = field(default_factory=list)
    _task: Task | None = None
    _left: int = 0
    _number: int = 0
    _descriptor: Descriptor | None = None
    _addresses: Array = field(default_factory=lambda: np.zeros(0, np.int64))
    _at: int = 0
    _since: int = 0
    _moving: bool = False

    @property
    def ready(self) -> bool:
        """Whether it has words to move, or room for them, now."""
        return self._descriptor is not None and not self._moving

    @property
    def remaining(self) -> int:
        """Words of the descriptor that have not moved."""
        return self._addresses.size - self._at

    def push(self, task: Task) -> None:
        """Queue a task. StreamError when the queue is full."""
        if len(self.queue) >= self.queue_depth:
            raise StreamError(
                f"{self.name}: a task is started while {self.queue_depth} wait, which is all its queue holds: sync first"
            )
        self.queue.append(task)
        if self._task is None:
            self._next_task(self.costs.ddr_latency if self._reads_ddr else 0)

    @property
    def _reads_ddr(self) -> bool:
        return self.around.kind is Kind.SHIM and self.direction is Direction.MM2S

    def waits_for(self) -> str | None:
        """In words, what it waits for; None when it has nothing to do."""
        if self._task is None:
            return None
        if self._descriptor is None:
            lock = self.around.load(self._number).acquire
            held = self.around.lock(lock.lock) if lock else None
            return f"{self.name}, descriptor {self._number}, for {held.name} (holds {held.value})" if held else f"{self.name}"
        others = [p.name for p, _ in self.peers if not p.ready] or ["no circuit"]
        return f"{self.name}, descriptor {self._number} with {self.remaining} words left, for {', '.join(others)}"

    def _next_task(self, latency: int) -> None:
        self._task = self.queue.popleft()
        self._left = self._task.repeat
        self._load(self._task.descriptor, latency)

    def _load(self, number: int, latency: int = 0) -> None:
        """Fetch a descriptor, then take its lock."""
        self._number = number
        descriptor = self.around.load(number)
        if not descriptor.valid:
            raise StreamError(f"{self.name}: descriptor {number} is not valid")
        self.clock.at(self.clock.now + self.costs.descriptor_start + latency, lambda: self._take(descriptor))

    def _take(self, descriptor: Descriptor) -> None:
        asked = self.clock.now
        if descriptor.acquire is None:
            self._begin(descriptor)
            return
        wanted = descriptor.acquire

        def got() -> None:
            self.busy.lock += self.clock.now - asked
            self.clock.at(self.clock.now + self.costs.lock, lambda: self._begin(descriptor))

        self.around.lock(wanted.lock).acquire(self.name, wanted.value, wanted.at_least, got)

    def _begin(self, descriptor: Descriptor) -> None:
        self._descriptor, self._addresses, self._at = descriptor, descriptor.addresses(), 0
        self._since = self.clock.now
        if not self._addresses.size:
            raise StreamError(f"{self.name}: descriptor {self._number} moves no words")
        self._try()

    def _try(self) -> None:
        """Move words when both ends can."""
        source = self if self.direction is Direction.MM2S else (self.peers[0][0] if self.peers else None)
        if source is None or not source.ready or not source.peers or not all(p.ready for p, _ in source.peers):
            return
        ends = [p for p, _ in source.peers]
        n = min(c.remaining for c in (source, *ends))
        now = self.clock.now
        cycles = int(np.ceil(n / min(c.words_per_cycle for c in (source, *ends))))
        words = source.fetch(n)
        for c in (source, *ends):
            c.busy.peer += now - c._since
            c.busy.words += cycles
            c.trace.append((now, now + cycles, f"descriptor {c._number}"))
            c._moving = True
        hops = max(h for _, h in source.peers)

        def moved() -> None:
            for end in ends:
                end.put(words)
            late = self.clock.now + hops * self.costs.hop
            for end in ends:
                end.advance(n, late)
            source.advance(n, self.clock.now)

        self.clock.at(now + cycles, moved)

    def fetch(self, n: int) -> Array:
        """The next n words of memory, uint32; zeros for padding."""
        addresses = self._addresses[self._at : self._at + n]
        values = np.zeros(n, np.uint32)
        for memory, places, index in self._placed(addresses):
            values[index] = memory.read(places)
        return values

    def put(self, values: Array) -> None:
        """Store the next words."""
        for memory, places, index in self._placed(self._addresses[self._at : self._at + values.size]):
            memory.write(places, values[index])

    def _placed(self, addresses: Array) -> Sequence[tuple[Words, Array, Array]]:
        index = np.flatnonzero(addresses != PADDING)
        if not index.size:
            return ()
        return [(memory, places, index[chosen]) for memory, places, chosen in self.around.place(addresses[index])]

    def advance(self, n: int, when: int) -> None:
        """Note that n words have moved; the descriptor ends `when` its last one has arrived."""
        self._at += n
        self._moving = False
        self._since = self.clock.now
        if self.remaining:
            self._try()
            return
        self.clock.at(when, lambda d=self._descriptor: self._end(d))  # type: ignore[misc]
        self._descriptor = None

    def _end(self, descriptor: Descriptor) -> None:
        if descriptor.release:
            self.around.lock(descriptor.release.lock).release(self.name, descriptor.release.value)
        self.around.store(self._number, descriptor.advanced())
        task = self._task
        assert task is not None
        if descriptor.next is not None:
            self._load(descriptor.next)
            return
        self._left -= 1
        if self._left:
            self._load(task.descriptor)
            return
        if task.token:
            self.around.token()
        self._task = None
        if self.queue:
            self._next_task(0)
