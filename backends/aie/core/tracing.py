"""Iterations of a loop without data: which addresses they touch, what sums take and stores write (see `nests`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sparsec.backends.aie.core import loops
from sparsec.backends.aie.core.cascade import WORD_BYTES
from sparsec.backends.aie.core.execute import ACTIONS, VECTORS, State
from sparsec.backends.aie.core.instructions import ADDING, COUNTS, Bundle, Instruction, Slot

Array = np.ndarray[Any, Any]

_LOADS = frozenset(("ldw", "ldwm", "ldm", "ldh", "ldc", "ldu", "ldbf", "ldq"))
_STORES = frozenset(("srs", "srsm", "stw", "stc", "stbf", "putc"))
_SPARSE = ("macsp", "macbfsp")
_MULTIPLYING = {"mul": "mac", "mule": "mace", "mulsp": "macsp"}  # what sets a sum, and what adds to it
_PRODUCTS = ("mac", "mace", "macbf", "macbft", "macebf", *_SPARSE, *_MULTIPLYING, *ADDING)
_VECTORS = frozenset(("row", "setc", "ups", "clr", "addbf", "maxf", "minf", *_PRODUCTS))
_SCALARS = frozenset(
    ("movi", "addi", "add", "sub", "mov", "movp", "movr", "padd", "paddr", "movm", "movz", "pmov", "loop", "getc")
)


def is_nest(bundles: Sequence[Bundle], start: int, end: int) -> bool:
    """Whether `Nest.of` may know the body [start, end): its instructions, and plain loops within it."""
    inner = 0
    for at in range(start, end):
        bundle = bundles[at]
        names = {slot: i.form.name for slot, i in bundle.items()}
        known = {Slot.A: _LOADS, Slot.B: _LOADS, Slot.STORE: _STORES, Slot.VECTOR: _VECTORS, Slot.SCALAR: _SCALARS}
        if any(name not in known[slot] for slot, name in names.items()):
            return False
        if names.get(Slot.SCALAR) == "loop":
            size = bundle[Slot.SCALAR].operands[1]
            if at < inner or not size or at + 1 + size > end or not loops.is_plain(bundles[at + 1 : at + 1 + size]):
                return False
            inner = at + 1 + size
    return True


@dataclass(frozen=True, slots=True)
class Step:
    """What one iteration issues: a bundle by number, or a plain loop of bundles [start, end) `times` times.

    `groups` are the accesses that meet in memory: for each bundle of it, which traced addresses.
    """

    start: int
    end: int
    times: int
    groups: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Sum:
    """What an accumulator takes: an instruction's name and numbers, and which traced addresses its vectors have.

    Beside instructions: `take` sets the accumulator, or a part of it (`parts_of`), to the sum of others after so many of their
    sums; its numbers are the part, then pairs of accumulator and count. `setf` sets half of the positions to bfloat16 from
    memory. A product that sets, and a load that shifts, are `clr` and what is added then.
    """

    name: str
    numbers: tuple[int, ...]
    vectors: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Stored:
    """A store: traced address, and what: an accumulator after so many sums, or a vector (traced address)."""

    address: int
    name: str
    accumulator: int
    after: int
    vector: int
    numbers: tuple[int, ...]


@dataclass
class Trace:
    """One iteration without data. Addresses are arrays, one element an execution; `places` says in which step each is used."""

    addresses: list[Array] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    loads: list[int] = field(default_factory=list)
    tables: list[int] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    sums: dict[int, list[Sum]] = field(default_factory=dict)
    stores: list[Stored] = field(default_factory=list)
    puts: list[Stored] = field(default_factory=list)  # quarters of accumulators, which go to the cascade
    fixed: list[int] = field(default_factory=list)

    def note(self, address: Any) -> int:
        """Keep addresses; returns their number."""
        self.addresses.append(np.atleast_1d(np.asarray(address, np.int64)))
        self.places.append(len(self.steps))
        return len(self.addresses) - 1


ALL, POSITIONS = -1, 2  # parts of an accumulator: all, the halves of its channels (0, 1) or of its positions (2, 3)


def parts_of(name: str, half: int) -> int:
    """The part of an accumulator that a product with a half sets."""
    return half if name in ("macbf", "macbft", "macbfsp") else POSITIONS + half if name == "macebf" else ALL


def _pairs(*wide: int) -> list[int]:
    """The halves of registers of 512 bits."""
    return [half for x in wide for half in (2 * x, 2 * x + 1)]


def _operands(name: str, o: tuple[int, ...]) -> list[int]:
    """The registers of 32 bytes that a product multiplies, by its operands."""
    match name:
        case "mac":
            return [o[1], *_pairs(o[2])]
        case "mace" | "macebf":
            return [o[1], o[2]]
        case "macbf" | "macbft":
            return _pairs(o[1], o[2])
        case "macsp":
            return [*_pairs(o[1], o[2]), COUNTS["w"] + o[3] // 2]
        case _:
            return [*_pairs(2 * o[1], 2 * o[1] + 1, o[2]), COUNTS["w"] + o[3] // 2]


class Tracer:
    """Runs iterations of a body on a copy of the registers of numbers. A vector register holds where its bytes are: an address
    in memory, or beyond it in the registers as they are before the loop, or beyond these in words that the cascade brings."""

    def __init__(self, bundles: Sequence[Bundle], state: State, start: int, end: int) -> None:
        self.bundles, self.start, self.end = bundles, start, end
        self.state = State(state.memory, state.written, list(state.r), list(state.p), list(state.m), state.w, state.c)
        self.vectors = [state.memory.size + 32 * i for i in range(VECTORS)]
        self.came = state.memory.size + 32 * VECTORS  # where the next word out of the cascade is

    def registers(self) -> Array:
        """The numbers of r, p, m, where the next word out of the cascade is, and where vectors are."""
        return np.array([*self.state.r, *self.state.p, *self.state.m, self.came, *self.vectors], np.int64)

    def iteration(self) -> Trace:
        """One more."""
        trace = Trace()
        at = self.start
        while at < self.end:
            bundle = self.bundles[at]
            trace.steps.append(Step(at, at + 1, 1, (self._bundle(bundle, trace),)))
            at += 1
            scalar = bundle.get(Slot.SCALAR)
            if scalar and scalar.form.name == "loop":
                times, size = self.state.r[scalar.operands[0]], scalar.operands[1]
                trace.fixed.append(times)
                if times > 0:
                    trace.steps.append(self._loop(at, at + size, times, trace))
                at += size
        return trace

    def _bundle(self, bundle: Bundle, trace: Trace) -> tuple[int, ...]:
        s, touched, after = self.state, [], []
        for slot in (Slot.STORE, Slot.VECTOR, Slot.A, Slot.B):  # stores and sums read what loads of their bundle write after that
            if slot not in bundle:
                continue
            i = bundle[slot]
            if slot is Slot.VECTOR:
                self._sum(i, trace)
                continue
            if i.form.name == "putc":
                after_sums = len(trace.sums.get(i.operands[0], ()))
                quarters = (2 * i.operands[1], 2 * i.operands[1] + 1)
                trace.puts += [Stored(0, "stc", i.operands[0], after_sums, 0, (q,)) for q in quarters]
                continue
            pointer = i.operands[i.form.pointer]
            touched.append(trace.note(s.p[pointer]))
            last = i.operands[-1]
            after.append((s.p, pointer, s.p[pointer] + (s.m[last] if i.form.name in ("ldwm", "srsm") else last)))
            if slot is Slot.STORE:
                self._store(i, touched[-1], trace)
                continue
            trace.loads.append(touched[-1])
            if i.form.name == "ldh":
                trace.tables.append(touched[-1])
                after.append((s.r, i.operands[0], int(s.read(s.p[pointer], 2, 2).view(np.uint16)[0])))
            elif i.form.name == "ldm":
                trace.tables.append(touched[-1])
                after.append((s.m, i.operands[0], 32 * int(s.read(s.p[pointer], 2, 2).view(np.int16)[0])))
            elif i.form.name in ("ldc", "ldu", "ldbf"):
                self._load_sums(i, s.p[pointer], trace)
            else:
                after.append((self.vectors, loops.vector_of(i), s.p[pointer]))
        commit = None
        if (scalar := bundle.get(Slot.SCALAR)) and scalar.form.name == "getc":
            c, half = scalar.operands
            made = [Sum("setc", (2 * half + i,), (trace.note(self.came + 32 * i),)) for i in range(2)]
            trace.sums.setdefault(c, []).extend(made)
            self.came += WORD_BYTES
        elif scalar and scalar.form.name != "loop":
            commit = ACTIONS[scalar.form.name](s, scalar.operands)
        for values, n, value in after:
            values[n] = value
        if commit:
            commit()
        return tuple(touched)

    def _store(self, i: Instruction, address: int, trace: Trace) -> None:
        o, name = i.operands, i.form.name
        if name == "stw":
            trace.stores.append(Stored(address, name, 0, 0, trace.note(self.vectors[o[0]]), ()))
            return
        numbers = (o[1],) if name in ("stc", "stbf") else (self.state.r[o[2]], o[3])
        trace.fixed += numbers
        trace.stores.append(Stored(address, name, o[0], len(trace.sums.get(o[0], ())), 0, numbers))

    def _load_sums(self, i: Instruction, address: int, trace: Trace) -> None:
        """A load into an accumulator."""
        o, where = i.operands, (trace.note(address),)
        made = {
            "ldc": lambda: [Sum("setc", (o[1],), where)],
            "ldbf": lambda: [Sum("setf", (o[1],), where)],
            "ldu": lambda: [Sum("clr", (), ()), Sum("ups", (self.state.r[o[2]], o[3]), where)],
        }[i.form.name]()
        trace.fixed += made[-1].numbers
        trace.sums.setdefault(o[0], []).extend(made)

    def _sum(self, i: Instruction, trace: Trace) -> None:
        o, name, v = i.operands, i.form.name, self.vectors
        if name in ADDING:
            sources = o[1:3] if name.startswith("add") else o[1:2]
            counts = [n for c in sources for n in (c, len(trace.sums.get(c, ())))]
            name, o = ADDING[name], (o[0], *o[1 + len(sources) :])
            taken = Sum("take", (parts_of(name, o[-1]), *counts), ())
            trace.fixed += taken.numbers
            trace.sums.setdefault(o[0], []).append(taken)
        vectors: list[int] = []
        numbers: tuple[int, ...] = ()
        if name in _MULTIPLYING:
            name = _MULTIPLYING[name]
            trace.sums.setdefault(o[0], []).append(Sum("clr", (), ()))
        if name in ("mac", "mace", "macbf", "macbft", "macebf"):
            vectors, numbers = [v[n] for n in _operands(name, o)], (o[3],)
        elif name in _SPARSE:
            vectors, numbers = [v[n] for n in _operands(name, o)], (o[4], o[3] % 2)
        elif name == "row":
            vectors = [v[o[1]]]
        elif name == "setc":
            vectors, numbers = [v[o[2]]], (o[1],)
        elif name == "ups":
            vectors, numbers = [v[o[1]]], (self.state.r[o[2]], o[3])
        elif name == "addbf":
            vectors = [v[n] for n in _pairs(o[1])]
        elif name in ("maxf", "minf"):
            numbers = (self.state.r[o[1]],)
        trace.fixed += numbers
        trace.sums.setdefault(o[0], []).append(Sum(name, numbers, tuple(trace.note(a) for a in vectors)))

    def _loop(self, start: int, end: int, times: int, trace: Trace) -> Step:
        body = self.bundles[start:end]
        found = loops.load_addresses(self.state, body, times)
        touched = {key: trace.note(a) for key, a in found.items()}
        trace.loads += touched.values()
        writes: dict[int, list[tuple[int, Array]]] = {}
        for (j, slot), addresses in found.items():
            i = body[j][slot]
            if i.form.name == "ldm":
                trace.tables.append(touched[j, slot])
            else:
                writes.setdefault(loops.vector_of(i), []).append((j, addresses))
        streams = {w: loops.Stream.setting(self.vectors[w], times, where) for w, where in writes.items()}
        for j, bundle in enumerate(body):
            if Slot.VECTOR in bundle:
                i = bundle[Slot.VECTOR]
                o = i.operands
                used = _operands(i.form.name, o)
                where = [streams[w].at(j) if w in streams else np.full(times, self.vectors[w]) for w in used]
                numbers = (o[4], o[3] % 2) if i.form.name in _SPARSE else (o[3],)
                made = Sum(i.form.name, numbers, tuple(trace.note(a) for a in where))
                trace.fixed += numbers
                trace.sums.setdefault(o[0], []).append(made)
        for w, stream in streams.items():
            self.vectors[w] = int(stream.after[-1])
        groups = tuple(tuple(touched[j, s] for s in (Slot.A, Slot.B) if s in b) for j, b in enumerate(body))
        return Step(start, end, times, groups)
