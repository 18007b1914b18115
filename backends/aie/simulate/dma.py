"""DMA channels: tasks from their queues, descriptors in turn, words over circuits at the speed of the slowest end.

A transfer goes on when the source has a descriptor with its lock, and so has every destination of its circuits; it moves as
many words as all of them have left, one a cycle. Words arrive three cycles a hop later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sparsec.backends.aie.descriptors import PADDING, Descriptor
from sparsec.backends.aie.machine import Costs
from sparsec.backends.aie.registers import Direction, Kind
from sparsec.backends.aie.simulate.events import Clock, Lock
from sparsec.backends.aie.simulate.memory import MADE, Words
from sparsec.backends.aie.simulate.timeline import Cause, Timeline
from sparsec.backends.aie.transaction import Task
from sparsec.compiler.errors import SparsecError, StreamError

Array = np.ndarray[Any, Any]

_MOST_WORDS = 1 << 26  # of a descriptor; 256 MB


@dataclass(frozen=True)
class Surroundings:
    """What a channel sees of its tile.

    Descriptors by number, to load and to advance once they have been carried out, locks by number, where words are in memory,
    what a transfer that begins and ends at cycles does to the memory's banks, tokens, and what a release costs those who wait.
    """

    kind: Kind
    load: Callable[[int], Descriptor]
    advance: Callable[[int, Descriptor], None]
    lock: Callable[[int], Lock]
    place: Callable[[Array], Sequence[tuple[Words, Array, Array]]]
    touch: Callable[[int, int, Array], None]
    token: Callable[[], None]
    cause: Callable[[Direction, int], Cause]


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
    queue: deque[tuple[Task, str]] = field(default_factory=deque)
    timeline: Timeline = field(default_factory=Timeline)
    _task: Task | None = None
    _origin: str = ""
    _left: int = 0
    _number: int = 0
    _descriptor: Descriptor | None = None
    _addresses: Array = field(default_factory=lambda: np.zeros(0, np.int64))
    _at: int = 0
    _since: int = 0
    _tag: int = 0
    _moving: bool = False

    @property
    def ready(self) -> bool:
        """Whether it has words to move, or room for them, now."""
        return self._descriptor is not None and not self._moving

    @property
    def moving(self) -> bool:
        """Whether words move through it now."""
        return self._moving

    @property
    def remaining(self) -> int:
        """Words of the descriptor that have not moved."""
        return self._addresses.size - self._at

    def push(self, task: Task, origin: str = "") -> None:
        """Queue a task; `origin` is the line of the control stream that does. StreamError when the queue is full."""
        if len(self.queue) >= self.queue_depth:
            raise StreamError(
                f"{self.name}: a task is started while {self.queue_depth} wait, which is all its queue holds: sync first"
            )
        self.queue.append((task, origin))
        if self._task is None:
            self._next_task(self.costs.ddr_latency if self._reads_ddr else 0)

    @property
    def _reads_ddr(self) -> bool:
        return self.around.kind is Kind.SHIM and self.direction is Direction.MM2S

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """Errors within it say when, where, and which line of the control stream started what fails."""
        try:
            yield
        except SparsecError as exc:
            if str(exc).startswith("cycle "):
                raise
            origin = f", started by {self._origin}" if self._origin else ""
            what = f" ({self._descriptor})" if self._descriptor else ""
            raise StreamError(f"cycle {self.clock.now}, {self.name}, descriptor {self._number}{what}{origin}: {exc}") from exc

    def waits_for(self) -> str | None:
        """In words, what it waits for; None when it has nothing to do."""
        if self._task is None:
            return None
        what = f"{self.name}, descriptor {self._number}"
        if self._origin:
            what += f" of {self._origin}"
        if self._descriptor is None:
            wanted = self.around.load(self._number).acquire
            if wanted is None:
                return what
            held = self.around.lock(wanted.lock)
            bound = "at least" if wanted.at_least else "exactly"
            return f"{what}, for {held.name} to be {bound} {wanted.value} (holds {held.value})"
        others = [p.name for p, _ in self.peers if not p.ready] or ["a circuit: none begins or ends here"]
        return f"{what} with {self.remaining} words left, for {', '.join(others)}"

    def _next_task(self, latency: int) -> None:
        self._task, self._origin = self.queue.popleft()
        self._left = self._task.repeat
        self._load(self._task.descriptor, latency)

    def _load(self, number: int, latency: int = 0) -> None:
        """Fetch a descriptor, then take its lock."""
        self._number = number
        with self._naming():
            descriptor = self.around.load(number)
            if not descriptor.valid:
                raise StreamError("the descriptor is not valid")
        begun = self.clock.now
        self.clock.at(begun + self.costs.descriptor_start + latency, lambda: self._take(descriptor, begun))

    def _take(self, descriptor: Descriptor, begun: int) -> None:
        asked = self.clock.now
        self.timeline.add(begun, asked, Cause.START, 0, self._number)
        if descriptor.acquire is None:
            self._begin(descriptor)
            return
        wanted = descriptor.acquire

        def got() -> None:
            now = self.clock.now
            self.timeline.add(asked, now, Cause.LOCK, 0, self._number)
            self.timeline.add(now, now + self.costs.lock, Cause.START, 0, self._number)
            self.clock.at(now + self.costs.lock, lambda: self._begin(descriptor))

        with self._naming():
            self.around.lock(wanted.lock).acquire(self.name, wanted.value, wanted.at_least, got)

    def _begin(self, descriptor: Descriptor) -> None:
        self._descriptor, self._at = descriptor, 0
        with self._naming():
            if descriptor.length > _MOST_WORDS:
                raise StreamError(f"{descriptor.length:,} words at once: expected at most {_MOST_WORDS:,}")
            self._addresses = descriptor.addresses()
            if not self._addresses.size:
                raise StreamError("the descriptor moves no words")
        self._since = self.clock.now
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
        words, tag = source.fetch(n)
        for c in (source, *ends):
            c._move(n, now, now + cycles, tag)
        hops = max(h for _, h in source.peers)

        def moved() -> None:
            for end in ends:
                end.put(words, tag)
            late = self.clock.now + hops * self.costs.hop
            for end in ends:
                end.advance(n, late)
            source.advance(n, self.clock.now)

        self.clock.at(now + cycles, moved)

    def _move(self, n: int, begin: int, end: int, tag: int) -> None:
        """Note that n words move from `begin` to `end`."""
        self._moving, self._tag = True, tag
        self.timeline.add(self._since, begin, Cause.PEER, tag, self._number)
        self.timeline.add(begin, end, Cause.BUSY, tag, self._number, n)
        if self.around.kind is Kind.CORE:
            self.around.touch(begin, end, self._addresses[self._at : self._at + n])

    def fetch(self, n: int) -> tuple[Array, int]:
        """The next n words of memory, uint32, zeros for padding; and the tag of the first that is none."""
        values = np.zeros(n, np.uint32)
        tag = MADE
        with self._naming():
            for memory, places, index in self._placed(self._addresses[self._at : self._at + n]):
                values[index] = memory.read(places)
                tag = memory.tag(int(places[0]))
        return values, tag

    def put(self, values: Array, tag: int) -> None:
        """Store the next words."""
        with self._naming():
            for memory, places, index in self._placed(self._addresses[self._at : self._at + values.size]):
                memory.write(places, values[index], tag)

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
        self.timeline.add(self.clock.now, when, Cause.START, self._tag, self._number)
        self.clock.at(when, lambda d=self._descriptor: self._end(d))  # type: ignore[misc]
        self._descriptor = None

    def _end(self, descriptor: Descriptor) -> None:
        with self._naming():
            if descriptor.release:
                cause = self.around.cause(self.direction, self._tag)
                self.around.lock(descriptor.release.lock).release(descriptor.release.value, cause, self._tag)
        self.around.advance(self._number, descriptor)
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
