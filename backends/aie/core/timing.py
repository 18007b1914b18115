"""When the bundles of a core start: in order, one a cycle, each waiting for the registers that it reads.

The latencies are parameters of the machine. A load's register can be read `load` cycles after the bundle that loads, an
accumulator by another vector instruction one cycle after a product and by a store `vector` cycles after it, anything else one
cycle later. Two loads of one bundle from the same bank of memory take a cycle more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sparsec.backends.aie.core.assembly import read_registers, written_registers
from sparsec.backends.aie.core.instructions import Bundle, Slot

Register = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Latencies:
    """Cycles from an instruction to the first that can read what it wrote, and what leaving the straight line costs."""

    load: int
    vector: int
    jump: int


@dataclass(frozen=True, slots=True)
class Timed:
    """What a bundle waits for and delays: registers read by stores, by the rest, and registers written with their latency."""

    stored: tuple[Register, ...]
    read: tuple[Register, ...]
    written: tuple[tuple[Register, int], ...]

    @staticmethod
    def of(bundle: Bundle, latencies: Latencies) -> Timed:
        """The needs and effects of a bundle."""
        stored: list[Register] = []
        read: list[Register] = []
        written: list[tuple[Register, int]] = []
        for slot, instruction in bundle.items():
            (stored if slot is Slot.STORE else read).extend(read_registers(instruction))
            loaded = instruction.form.fields[0].kind if slot in (Slot.A, Slot.B) else ""
            for n, register in enumerate(written_registers(instruction)):
                slow = slot in (Slot.A, Slot.B) and n == 0 and loaded == register[0]
                written.append((register, latencies.load if slow else 1))
        return Timed(tuple(stored), tuple(read), tuple(written))


class Scoreboard:
    """The cycle from which every register can be read, and the cycle of the last bundle."""

    def __init__(self, latencies: Latencies) -> None:
        self.latencies = latencies
        self.now = 0
        self._ready: dict[Register, int] = {}
        self._stored: dict[Register, int] = {}  # accumulators, as stores see them

    def issue(self, bundle: Timed) -> int:
        """Start a bundle in the cycle after the last one, or when its registers are there; returns the cycles lost to waiting."""
        first = self.now + 1
        start = max(first, *(self._ready.get(r, 0) for r in bundle.read), 0) if bundle.read else first
        for register in bundle.stored:
            start = max(start, self._stored.get(register, 0), self._ready.get(register, 0))
        for register, latency in bundle.written:
            self._ready[register] = start + latency
            if register[0] == "c":
                self._stored[register] = start + self.latencies.vector
        self.now = start
        return start - first

    def advance(self, cycles: int) -> None:
        """Let cycles pass in which no bundle starts."""
        self.now += cycles

    def outlook(self) -> tuple[tuple[Register, int, int], ...]:
        """What is not ready yet, relative to now: equal outlooks have equal futures."""
        registers = {r for ready in (self._ready, self._stored) for r, at in ready.items() if at > self.now}
        return tuple(sorted((r, self._ready.get(r, 0) - self.now, self._stored.get(r, 0) - self.now) for r in registers))

    def shift(self, cycles: int) -> None:
        """Move everything that is not ready yet, and now, `cycles` later: the repetition of a period."""
        for ready in (self._ready, self._stored):
            for register, at in ready.items():
                if at > self.now:
                    ready[register] = at + cycles
        self.now += cycles

    def repeat(self, body: Sequence[Timed], times: int) -> int:
        """Issue `body` `times` times; returns the cycles lost to waiting. Whole periods are skipped over."""
        lost, seen = 0, None
        for done in range(times):
            start, before = self.now, lost
            lost += sum(self.issue(b) for b in body)
            outlook = self.outlook()
            if outlook == seen:
                left = times - done - 1
                self.shift(left * (self.now - start))
                return lost + left * (lost - before)
            seen = outlook
        return lost
