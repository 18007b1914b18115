"""When the bundles of a core start: in order, one a cycle, each waiting for the registers that it reads.

The latencies are parameters of the machine. A load's register can be read `load` cycles after the bundle that loads, an
accumulator by another vector instruction one cycle after a product and by a store `vector` cycles after it, anything else one
cycle later. Two loads of one bundle from the same bank of memory take a cycle more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from sparsec.backends.aie.core.assembly import loaded_registers, read_registers, written_registers
from sparsec.backends.aie.core.instructions import COUNTS, Bundle, Slot

_FIRST = dict(zip(COUNTS, accumulate(COUNTS.values(), initial=0), strict=False))  # registers of all kinds in one row
_REGISTERS = sum(COUNTS.values())
_ACCUMULATORS = range(_FIRST["c"], _FIRST["c"] + COUNTS["c"])


@dataclass(frozen=True, slots=True)
class Latencies:
    """Cycles from an instruction to the first that can read what it wrote, and what leaving the straight line costs."""

    load: int
    vector: int
    jump: int


@dataclass(frozen=True, slots=True)
class Timed:
    """What a bundle waits for and delays: registers read by stores, by the rest, and registers written with their latency."""

    stored: tuple[int, ...]
    read: tuple[int, ...]
    written: tuple[tuple[int, int], ...]

    @staticmethod
    def of(bundle: Bundle, latencies: Latencies) -> Timed:
        """The needs and effects of a bundle."""
        stored: list[int] = []
        read: list[int] = []
        written: list[tuple[int, int]] = []
        for slot, instruction in bundle.items():
            (stored if slot is Slot.STORE else read).extend(_FIRST[k] + n for k, n in read_registers(instruction))
            loaded = loaded_registers(instruction) if slot in (Slot.A, Slot.B) else ()
            for kind, n in written_registers(instruction):
                written.append((_FIRST[kind] + n, latencies.load if (kind, n) in loaded else 1))
        return Timed(tuple(stored), tuple(read), tuple(written))


class Scoreboard:
    """The cycle from which every register can be read, and the cycle of the last bundle."""

    def __init__(self, latencies: Latencies) -> None:
        self.latencies = latencies
        self.now = 0
        self._ready = [0] * _REGISTERS
        self._stored = [0] * _REGISTERS  # as stores see them, who wait longer for accumulators
        self._known: dict[tuple[int, int, tuple[int, ...]], tuple[int, int, tuple[int, ...]]] = {}

    def issue(self, bundle: Timed) -> int:
        """Start a bundle in the cycle after the last one, or when its registers are there; returns the cycles lost to waiting."""
        first = start = self.now + 1
        ready, seen_by_stores = self._ready, self._stored
        for r in bundle.read:
            if ready[r] > start:
                start = ready[r]
        for r in bundle.stored:
            start = max(start, ready[r], seen_by_stores[r])
        for r, latency in bundle.written:
            ready[r] = start + latency
            if r in _ACCUMULATORS:
                seen_by_stores[r] = start + self.latencies.vector
        self.now = start
        return start - first

    def advance(self, cycles: int) -> None:
        """Let cycles pass in which no bundle starts."""
        self.now += cycles

    def outlook(self) -> tuple[int, ...]:
        """How long registers are not ready yet: equal outlooks have equal futures."""
        now = self.now
        return tuple([t - now if t > now else 0 for times in (self._ready, self._stored) for t in times])

    def expect(self, outlook: tuple[int, ...]) -> None:
        """Make it as it was with an outlook, from now on."""
        self._ready = [self.now + t for t in outlook[:_REGISTERS]]
        self._stored = [self.now + t for t in outlook[_REGISTERS:]]

    def repeat(self, key: int, body: Sequence[Timed], times: int) -> int:
        """Issue `body` `times` times; returns the cycles lost to waiting. `key` names the body, so that it is timed once."""
        before = (key, times, self.outlook())
        if before not in self._known:
            start = self.now
            lost = self._repeat(body, times)
            self._known[before] = (self.now - start, lost, self.outlook())
            return lost
        cycles, lost, outlook = self._known[before]
        self.now += cycles
        self.expect(outlook)
        return lost

    def _repeat(self, body: Sequence[Timed], times: int) -> int:
        """Iteration by iteration, until one begins as the one before it: the rest then takes as long."""
        lost, seen = 0, self.outlook()
        for done in range(times):
            start, before = self.now, lost
            for bundle in body:
                lost += self.issue(bundle)
            outlook = self.outlook()
            if outlook == seen:
                left = times - done - 1
                self.now += left * (self.now - start)
                self.expect(outlook)
                return lost + left * (lost - before)
            seen = outlook
        return lost
