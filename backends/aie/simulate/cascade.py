"""The cascade between cores: words of 512 bits from one to its neighbour, and what both wait for.

A core runs ahead, from one meeting with the array to the next, as if it never waited for the cascade (`core/cascade.py`); the
words that it puts have their values then, whatever their time. Its real times follow in order, each as soon as it is known:

    put i takes place when the core gets there, and not before word i - depth has been taken and its place is free
    get i takes place when the core gets there, and not before word i has been put and has come

and everything behind is as much later. These are the recurrences of a max-plus system: the times do not depend on the order in
which they are found. A core that waits for the cascade does not meanwhile make up for what it waits for otherwise.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

from sparsec.backends.aie.core.cascade import PUT, Events


@dataclass
class Link:
    """The way from one core to a neighbour: `depth` words at a time, which take `latency` cycles. By word the cycle in which it
    was put, by which bundle, and the cycle in which it was taken."""

    source: str
    destination: str
    depth: int
    latency: int
    puts: array[int] = field(default_factory=lambda: array("q"))
    bundles: array[int] = field(default_factory=lambda: array("h"))
    gets: array[int] = field(default_factory=lambda: array("q"))

    @property
    def room_from(self) -> int | None:
        """The cycle from which the next word may be put; None when that is not known yet."""
        i = len(self.puts) - self.depth
        if i < 0:
            return 0
        return self.gets[i] + 1 if i < len(self.gets) else None

    @property
    def there_from(self) -> int | None:
        """The cycle from which the next word may be taken; None when that is not known yet."""
        i = len(self.gets)
        return self.puts[i] + self.latency if i < len(self.puts) else None


@dataclass
class Coupling:
    """What a core has put and taken since its last meeting, as far as its real times are known: `shift` are the cycles that it
    has waited, `waits` when (from, to)."""

    events: Events
    incoming: Link | None = None
    outgoing: Link | None = None
    shift: int = 0
    waits: list[tuple[int, int]] = field(default_factory=list)
    _at: int = 0

    @property
    def settled(self) -> bool:
        """Whether all times are known."""
        return self._at == len(self.events)

    def settle(self) -> tuple[bool, bool]:
        """Find times as far as neighbours allow; returns whether words were taken, and whether any were put."""
        took = put = False
        while self._at < len(self.events):
            cycle, kind, bundle = self.events[self._at]
            link = self.outgoing if kind == PUT else self.incoming
            assert link is not None
            free = link.room_from if kind == PUT else link.there_from
            if free is None:
                break
            cycle += self.shift
            if free > cycle:
                self.waits.append((cycle, free))
                self.shift += free - cycle
                cycle = free
            if kind == PUT:
                link.puts.append(cycle)
                link.bundles.append(bundle)
                put = True
            else:
                link.gets.append(cycle)
                took = True
            self._at += 1
        return took, put

    def begin(self) -> None:
        """Behind a meeting: nothing has been put or taken yet."""
        self.events.clear()
        self.waits.clear()
        self.shift = self._at = 0

    @property
    def blocked(self) -> tuple[int, int] | None:
        """What the core waits for, as kind and bundle; None when nothing is left to settle."""
        if self.settled:
            return None
        _, kind, bundle = self.events[self._at]
        return kind, bundle
