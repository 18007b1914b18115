"""A core that runs: from one meeting with the rest of the array to the next, with values and cycles.

`Core.resume` executes bundles until one waits for a lock, gives one back, uses the cascade or stops, and says which. The
array's simulation (`backends/aie/simulate`) decides when the core goes on.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from sparsec.backends.aie.core import loops
from sparsec.backends.aie.core.assembly import bundle_text
from sparsec.backends.aie.core.execute import STEERING, State, run_bundle
from sparsec.backends.aie.core.instructions import BUNDLE_BYTES, Instruction, Slot, decode_bundle
from sparsec.backends.aie.core.timing import Latencies, Scoreboard, Timed
from sparsec.compiler.errors import ModelError, SparsecError

# What a core stops at: what kind it is, and whether a register holds the value.
MEETINGS = {
    "acq": ("acq", False),
    "rel": ("rel", False),
    "acqr": ("acq", True),
    "relr": ("rel", True),
    "done": ("done", False),
}


@dataclass(frozen=True, slots=True)
class Meeting:
    """What a core stopped at. `kind` is acq, rel, pop or done; a lock and its value where it is a lock's."""

    kind: str
    lock: int = 0
    value: int = 0


@dataclass
class _Loop:
    start: int
    end: int
    left: int


@dataclass
class Core:
    """A core with a program. Cycles count from 0; `stalls` are cycles lost, by cause; `bank_bytes` is the size of a bank."""

    program: bytes
    latencies: Latencies
    memory_bytes: int
    bank_bytes: int
    pc: int = 0
    stalls: Counter[str] = field(default_factory=Counter)
    state: State = field(init=False)
    board: Scoreboard = field(init=False)

    def __post_init__(self) -> None:
        self.state = State.fresh(self.memory_bytes)
        self.board = Scoreboard(self.latencies)
        at = range(0, len(self.program), BUNDLE_BYTES)
        self._bundles = [decode_bundle(self.program[i : i + BUNDLE_BYTES]) for i in at]
        self._timed = [Timed.of(b, self.latencies) for b in self._bundles]
        self._steering = [
            b.get(Slot.SCALAR) if Slot.SCALAR in b and b[Slot.SCALAR].form.name in STEERING else None for b in self._bundles
        ]
        self._cascades = [Slot.VECTOR in b and b[Slot.VECTOR].form.name == "pop" for b in self._bundles]
        self.executed = np.zeros(len(self._bundles), np.int64)
        self._plain: dict[tuple[int, int], bool] = {}
        self._loops: list[_Loop] = []
        self._met = False

    @property
    def now(self) -> int:
        """The cycle of the last bundle."""
        return self.board.now

    def vector_counts(self) -> Counter[str]:
        """How often each vector instruction was carried out."""
        counts: Counter[str] = Counter()
        for bundle, times in zip(self._bundles, self.executed, strict=True):
            if Slot.VECTOR in bundle:
                counts[bundle[Slot.VECTOR].form.name] += int(times)
        return counts

    def wait_until(self, cycle: int, cause: str) -> None:
        """Let the core stand until `cycle`."""
        if cycle > self.now:
            self.stalls[cause] += cycle - self.now
            self.board.advance(cycle - self.now)

    def resume(self) -> Meeting:
        """Run to the next meeting, whose bundle the next call carries out. ModelError names the bundle that fails."""
        while True:
            if not 0 <= self.pc < len(self._bundles):
                raise ModelError(f"the program of {len(self._bundles)} bundles goes on at bundle {self.pc}")
            steering = self._steering[self.pc]
            if not self._met:
                self._met = True
                if steering is not None and steering.form.name in MEETINGS:
                    return self._meeting(steering)
                if self._cascades[self.pc] and not self.state.cascade_in:
                    return Meeting("pop")
            try:
                self._step(steering)
            except SparsecError as exc:
                raise type(exc)(f"bundle {self.pc}, `{bundle_text(self._bundles[self.pc])}`: {exc}") from exc
            self._met = False

    def _meeting(self, steering: Instruction) -> Meeting:
        kind, register = MEETINGS[steering.form.name]
        if not steering.operands:
            return Meeting(kind)
        lock, value = steering.operands
        return Meeting(kind, lock, self.state.r[value] if register else value)

    def _step(self, steering: Instruction | None) -> None:
        """Carry out one bundle, or a whole loop that it begins."""
        self.stalls["pipeline"] += self.board.issue(self._timed[self.pc])
        self.executed[self.pc] += 1
        bundle = self._bundles[self.pc]
        self.stalls["bank"] += self._bank_conflict()
        name = steering.form.name if steering else ""
        taken = name == "jmp" or (
            steering is not None and name in ("jz", "jnz") and (self.state.r[steering.operands[0]] == 0) == (name == "jz")
        )
        run_bundle(self.state, bundle)
        if taken and steering is not None:
            self.pc = steering.operands[-1]
            self.stalls["jump"] += self.latencies.jump
            self.board.advance(self.latencies.jump)
            return
        if name == "loop" and steering is not None:
            self._begin_loop(*steering.operands)
            return
        self._go_on(self.pc + 1)

    def _go_on(self, pc: int) -> None:
        """Continue at `pc`, or at the start of the loops that end there."""
        self.pc = pc
        while self._loops and self.pc == self._loops[-1].end:
            loop = self._loops[-1]
            loop.left -= 1
            if loop.left:
                self.pc = loop.start
                return
            self._loops.pop()

    def _bank_conflict(self) -> int:
        bundle = self._bundles[self.pc]
        if Slot.A not in bundle or Slot.B not in bundle:
            return 0
        where = [self.state.p[b.operands[b.form.pointer]] // self.bank_bytes for b in (bundle[Slot.A], bundle[Slot.B])]
        if where[0] == where[1]:
            self.board.advance(1)
            return 1
        return 0

    def _begin_loop(self, register: int, size: int) -> None:
        times, start = self.state.r[register], self.pc + 1
        end = start + size
        if times < 0 or not size or end > len(self._bundles):
            raise ModelError(f"a loop of {times} times {size} bundles from bundle {start} on is none")
        if times == 0:
            self._go_on(end)
            return
        body = self._bundles[start:end]
        if (start, end) not in self._plain:
            self._plain[start, end] = loops.is_plain(body) and not any(self._steering[start:end])
        if not self._plain[start, end]:
            self._loops.append(_Loop(start, end, times))
            self.pc = start
            return
        conflicts = loops.run(self.state, body, times, self.bank_bytes)
        self.stalls["pipeline"] += self.board.repeat(start, self._timed[start:end], times)
        self.stalls["bank"] += conflicts
        self.board.advance(conflicts)
        self.executed[start:end] += times
        self._go_on(end)
