"""A core that runs: from one meeting with the rest of the array to the next, with values and cycles.

`Core.resume` executes bundles until one waits for a lock, gives one back or stops, and says which. The array's
simulation (`backends/aie/simulate`) decides when the core goes on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from sparsec.backends.aie.core import loops
from sparsec.backends.aie.core.assembly import bundle_text
from sparsec.backends.aie.core.cascade import GET, Event, Events
from sparsec.backends.aie.core.decoded import decoded
from sparsec.backends.aie.core.execute import State, around, run_actions
from sparsec.backends.aie.core.instructions import Instruction, Slot
from sparsec.backends.aie.core.nests import Ran
from sparsec.backends.aie.core.timing import Latencies, Scoreboard
from sparsec.backends.aie.core.trace import Step
from sparsec.compiler.errors import ModelError, SparsecError

# What a core stops at: what kind it is, and whether a register holds the value.
MEETINGS = {
    "acq": ("acq", False),
    "rel": ("rel", False),
    "acqr": ("acq", True),
    "relr": ("rel", True),
    "done": ("done", False),
}

_JUMPS = ("jz", "jnz", "jzd", "jmpr")  # by what a register holds

MOST_BUNDLES = 1 << 21  # one by one, from one meeting to the next
_MOST_AT_ONCE = 1 << 22  # bundles of a loop


@dataclass(frozen=True, slots=True)
class Meeting:
    """What a core stopped at. `kind` is acq, rel or done, with a lock and its value where it is a lock's; or get, where a word
    out of the cascade has no value yet."""

    kind: str
    lock: int = 0
    value: int = 0


@dataclass
class _Loop:
    start: int
    end: int
    left: int
    gets: int = 0  # words out of the cascade in an iteration


@dataclass
class Core:
    """A core with a program. Cycles count from 0; `stalls` are cycles lost, by cause; `bank_bytes` is the size of a bank.

    Without `fast`, all loops run bundle by bundle, to the same effect. `products` counts vector instructions that multiplied,
    `accesses` loads and stores by bank since it was last set back. `events` are when it put words into the cascade and took some,
    in cycles of a core that never waits for it: the caller adds what it waits.
    """

    program: bytes
    latencies: Latencies
    memory_bytes: int
    bank_bytes: int
    fast: bool = True
    pc: int = 0
    stalls: Counter[str] = field(default_factory=Counter)
    products: int = 0
    accesses: list[int] = field(init=False)
    events: Events = field(default_factory=Events)
    state: State = field(init=False)
    board: Scoreboard = field(init=False)

    def __post_init__(self) -> None:
        self.state = State.fresh(self.memory_bytes)
        self.board = Scoreboard(self.latencies)
        self.accesses = [0] * (self.memory_bytes // self.bank_bytes)
        self._code = decoded(self.program, self.latencies)
        self._bundles = self._code.bundles
        self._timed, self._steering, self._multiplies = self._code.timed, self._code.steering, self._code.multiplies
        self.executed = np.zeros(len(self._bundles), np.int64)
        self._meets = self._code.meets
        self._loops: list[_Loop] = []
        self._ran = 0  # iterations that were carried out at once
        self._tried = 0  # where a stretch ends that cannot be carried out at once
        self._met = False

    @property
    def now(self) -> int:
        """The cycle of the last bundle."""
        return self.board.now

    @property
    def where(self) -> str:
        """The bundle that is next, in words."""
        return self.told(self.pc)

    def told(self, bundle: int) -> str:
        """A bundle in words."""
        return f"bundle {bundle}, `{bundle_text(self._bundles[bundle])}`"

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
        self._tried = 0
        for _ in range(MOST_BUNDLES):
            if not 0 <= self.pc < len(self._bundles):
                raise ModelError(f"the program of {len(self._bundles)} bundles goes on at bundle {self.pc}")
            steering = self._steering[self.pc]
            if GET in self._meets[self.pc] and not len(self.state.inbox):
                return Meeting("get")
            if not self._met:
                self._met = True
                if steering is not None and steering.form.name in MEETINGS:
                    return self._meeting(steering)
            try:
                if not self._run_stretch():
                    self._step(steering)
            except SparsecError as exc:
                raise type(exc)(f"{self.where}: {exc}") from exc
            self._met = False
        raise ModelError(f"{self.where}: {MOST_BUNDLES:,} bundles, one by one, and no lock between them: look for a loop")

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
        self.products += self._multiplies[self.pc]
        for kind in self._meets[self.pc]:
            self.events.add(self.board.now, kind, self.pc)
        if pointers := self._code.pointers[self.pc]:
            self.stalls["bank"] += self._bank_conflict(pointers)
        name = steering.form.name if steering else ""
        to = self._target(steering) if steering is not None else None
        run_actions(self.state, self._code.actions[self.pc])
        if to is not None:
            self.pc = to
            self.stalls["jump"] += self.latencies.jump
            self.board.advance(self.latencies.jump)
            return
        if name == "loop" and steering is not None:
            self._begin_loop(*steering.operands)
            return
        self._go_on(self.pc + 1)

    def _run_stretch(self) -> bool:
        """Carry out what lies before the next meeting, jump or end of a loop, if that is long, as far as the cascade has words;
        False, and nothing changed, when that cannot be done at once."""
        start, end = self.pc, self._code.stretches[self.pc]
        if start == end or start < self._tried or not self.fast:
            return False
        if self._loops:
            end = min(end, self._loops[-1].end)
        words = self._code.gets
        if words[end] - words[start] > len(self.state.inbox):
            end = int(np.searchsorted(words, words[start] + len(self.state.inbox), "right")) - 1
        if not self._code.long(start, end):
            return False
        self._tried = end
        if not self._run_nest(start, end, 1):
            return False
        self._tried = 0
        self._go_on(end)
        return True

    def _target(self, steering: Instruction) -> int | None:
        """Where a jump goes, if this is one and is taken."""
        name, operands = steering.form.name, steering.operands
        if name == "jmp":
            return operands[0]
        if name not in _JUMPS:
            return None
        value = self.state.r[operands[0]]
        if name == "jmpr":
            return value
        return operands[1] if {"jz": value == 0, "jnz": value != 0, "jzd": value == 1}[name] else None

    def _go_on(self, pc: int) -> None:
        """Continue at `pc`, or at the start of the loops that end there."""
        self.pc = pc
        while self._loops and self.pc == self._loops[-1].end:
            loop = self._loops[-1]
            loop.left -= 1
            if loop.left:
                self.pc = loop.start
                if not loop.gets or not self._run_nest(loop.start, loop.end, loop.left):
                    return
                loop.left -= self._ran
                if loop.left:
                    return
                self.pc = loop.end
            self._loops.pop()

    def _bank_conflict(self, pointers: Sequence[tuple[int, int]]) -> int:
        """Cycles that loads and stores of a bundle take beyond one, as a bank serves one at a time."""
        s = self.state
        at = [s.p[p] if ring < 0 else around(s.p[p], *s.ring(ring)) for p, ring in pointers]
        banks = [address // self.bank_bytes for address in at]
        for bank in banks:
            if 0 <= bank < len(self.accesses):
                self.accesses[bank] += 1
        conflicts = len(banks) - len(set(banks))
        self.board.advance(conflicts)
        return conflicts

    def _begin_loop(self, register: int, size: int) -> None:
        times, start = self.state.r[register], self.pc + 1
        end = start + size
        if times < 0 or not size or end > len(self._bundles):
            raise ModelError(f"a loop of {times} times {size} bundles from bundle {start} on is none")
        if times == 0:
            self._go_on(end)
            return
        fast = self.fast and times * size <= _MOST_AT_ONCE
        if fast and (self._run_plain if self._code.plain(start, end) else self._run_nest)(start, end, times):
            times -= self._ran
            if not times:
                self._go_on(end)
                return
        self._loops.append(_Loop(start, end, times, self._gets(start, end) if fast else 0))
        self.pc = start

    def _gets(self, start: int, end: int) -> int:
        """Words out of the cascade that bundles [start, end) take, each carried out once."""
        return int(self._code.gets[end] - self._code.gets[start])

    def _run_plain(self, start: int, end: int, times: int) -> bool:
        """Carry out a whole loop; False, and nothing changed, when something in it fails, which bundle by bundle tells where."""
        pointers, steps = list(self.state.p), list(self.state.m)
        try:
            met, accesses = loops.run(self.state, self._bundles[start:end], times, self.bank_bytes)
        except SparsecError:
            self.state.p[:], self.state.m[:] = pointers, steps
            return False
        self.accesses = [a + b for a, b in zip(self.accesses, accesses, strict=True)]
        self._ran = times
        self.products += times * sum(self._multiplies[start:end])
        self.executed[start:end] += times
        if met.any():
            bundles = [Step(at, at + 1, 1, ()) for at in range(start, end)]
            self._time(Ran.of(bundles, met.astype(np.int64), accesses))
        else:
            self.stalls["pipeline"] += self.board.repeat(start, self._timed[start:end], times)
        return True

    def _run_nest(self, start: int, end: int, times: int) -> bool:
        """Carry out iterations of a loop of loops, if that can be done at once: all, or as many as the cascade has words for."""
        if gets := self._gets(start, end):
            times = min(times, len(self.state.inbox) // gets)
        if not times:
            return False
        nest = self._code.nest(self.state, start, end, times)
        ran = nest.run(self.state, self.bank_bytes) if nest else None
        if nest is None or ran is None:
            return False
        self._ran = times
        self.accesses = [a + b for a, b in zip(self.accesses, ran.accesses, strict=True)]
        issued = nest.times * nest.template.issued
        self.executed[start:end] += issued
        self.products += int(issued @ self._code.multiplied[start:end])
        self._time(ran)
        return True

    def _time(self, ran: Ran) -> None:
        """Issue iterations, each as the ones before it that began alike and lost as much to banks."""
        outlook = self.board.outlook()
        for kind, times in ran.runs:
            left, met_banks = times, ran.kinds[kind]
            while left:
                if (outlook, met_banks) not in ran.timed:
                    self.board.expect(outlook)
                    issued = self._issue(ran.steps, met_banks)
                    ran.timed[outlook, met_banks] = (*issued, self.board.outlook())
                    self.board.advance(-issued[0])
                cycles, lost, met, after = ran.timed[outlook, met_banks]
                repeats = left if after == outlook else 1
                self.events.extend(met, self.board.now, cycles, repeats)
                self.board.advance(repeats * cycles)
                self.stalls["pipeline"] += repeats * lost
                outlook, left = after, left - repeats
        self.board.expect(outlook)
        self.stalls["bank"] += ran.conflicts

    def _issue(self, steps: Sequence[Step], conflicts: Sequence[int]) -> tuple[int, int, list[Event]]:
        """Issue one iteration; returns its cycles, those lost to waiting, and when it meets the cascade, from its begin on."""
        begun, lost, events = self.board.now, 0, list[Event]()
        for step, met in zip(steps, conflicts, strict=True):
            timed = self._timed[step.start : step.end]
            once = len(timed) == step.times == 1
            lost += self.board.issue(timed[0]) if once else self.board.repeat(step.start, timed, step.times)
            if once:
                events += [(self.board.now - begun, kind, step.start) for kind in self._meets[step.start]]
            self.board.advance(met)
        return self.board.now - begun, lost, events
