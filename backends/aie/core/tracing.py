"""An iteration of a loop without data: which addresses it touches, what sums take and stores write (see `nests`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sparsec.backends.aie.core import loops
from sparsec.backends.aie.core.affine import CAME, FIRST, REGISTERS, Affine, Chosen, Findings, Loaded
from sparsec.backends.aie.core.cascade import WORD_BYTES
from sparsec.backends.aie.core.execute import VECTORS
from sparsec.backends.aie.core.instructions import ADDING, COUNTS, Bundle, Instruction, Slot
from sparsec.backends.aie.core.trace import Step, Stored, Sum, Trace, parts_of

Array = np.ndarray[Any, Any]

_LOADS = frozenset(("ldw", "ldwm", "ldm", "ldh", "ldc", "ldu", "ldbf", "ldq", *loops.RINGED))
_STORES = frozenset(("srs", "srsm", "stw", "stc", "stbf", "putc"))
_SPARSE = ("macsp", "macbfsp")
_MULTIPLYING = {"mul": "mac", "mule": "mace", "mulsp": "macsp"}  # what sets a sum, and what adds to it
_PRODUCTS = ("mac", "mace", "macbf", "macbft", "macebf", *_SPARSE, *_MULTIPLYING, *ADDING)
_VECTORS = frozenset(("row", "setc", "ups", "clr", "addbf", "maxf", "minf", *_PRODUCTS))
_SCALARS = frozenset(
    ("movi", "addi", "add", "sub", "mov", "movp", "movr", "padd", "paddr", "movm", "movz", "pmov", "loop", "getc", "addl")
)
_MOST_INNER = 1 << 15  # bundles of a plain loop within a body


def onward(bundles: Sequence[Bundle], at: int) -> int | None:
    """The bundle behind one that can be traced, or behind the plain loop that it begins; None where it cannot."""
    names = {slot: i.form.name for slot, i in bundles[at].items()}
    known = {Slot.A: _LOADS, Slot.B: _LOADS, Slot.STORE: _STORES, Slot.VECTOR: _VECTORS, Slot.SCALAR: _SCALARS}
    if any(name not in known[slot] for slot, name in names.items()):
        return None
    if names.get(Slot.SCALAR) != "loop":
        return at + 1
    size = bundles[at][Slot.SCALAR].operands[1]
    end = at + 1 + size
    return end if size and end <= len(bundles) and loops.is_plain(bundles[at + 1 : end]) else None


def is_nest(bundles: Sequence[Bundle], start: int, end: int) -> bool:
    """Whether `Template.of` may know the bundles [start, end): their instructions, and plain loops within them."""
    at: int | None = start
    while at is not None and at < end:
        at = onward(bundles, at)
    return at == end


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


class Unknown(Exception):
    """What a loop does is no function of the registers that are given."""


def counts_of(bundles: Sequence[Bundle], start: int, end: int) -> tuple[int, ...]:
    """The registers r of bundles [start, end) by which loops are counted, and sums shifted or bounded."""
    places = {"loop": 0, "srs": 2, "srsm": 2, "ups": 2, "ldu": 2, "maxf": 1, "minf": 1}
    slots = [i for b in bundles[start:end] for i in b.values()]
    return tuple(sorted({i.operands[places[i.form.name]] for i in slots if i.form.name in places}))


class Tracer:
    """Traces an iteration of a body, for all registers but those of `counts`, whose values are given.

    A vector register holds where its bytes are, as the number of a row (see `Trace`): where words out of the cascade would be is
    told by a register of its own.
    """

    def __init__(self, bundles: Sequence[Bundle], start: int, end: int, counts: Sequence[int], values: Sequence[int]) -> None:
        self.bundles, self.start, self.end, self.counts, self.values = bundles, start, end, counts, values
        self.vectors = list(range(-VECTORS, 0))
        self.trace = Trace()
        self.rows: list[Array] = []
        self._used: set[int] = set()
        self._ring: tuple[list[Array], int] = [], 0  # the rows of the last ring, and where they are among all

    def run(self, most: int) -> tuple[Trace, Affine]:
        """One iteration that finds out at most so much. Unknown where that cannot be traced, OverflowError where it is more."""
        found = self.findings = Findings(most)
        registers = [found.register(n) for n in range(REGISTERS)]
        self.r, self.p, self.m = (registers[FIRST[k] : FIRST[k] + COUNTS[k]] for k in "rpm")
        self.came = registers[CAME]
        at = self.start
        while at < self.end:
            bundle = self.bundles[at]
            self.trace.steps.append(Step(at, at + 1, 1, (self._bundle(bundle),)))
            at += 1
            scalar = bundle.get(Slot.SCALAR)
            if scalar and scalar.form.name == "loop":
                times, size = self._number(scalar.operands[0]), scalar.operands[1]
                if not 0 <= times * size <= _MOST_INNER:
                    raise Unknown
                if times:
                    self.trace.steps.append(self._loop(at, at + size, times))
                at += size
        after = [*self.r, *self.p, *self.m, self.came]
        if any(not np.array_equal(after[n], registers[n]) for n in self._used):
            raise Unknown
        return self.trace, Affine(found, np.array(self.rows).reshape(-1, found.width), np.stack(after))

    def _number(self, register: int) -> int:
        """What a register r holds, which has to be the same in all iterations."""
        value = self.findings.value(self.r[register], self.counts, self.values)
        if value is None:
            raise Unknown
        self._used.update(n for n in self.counts if self.r[register][n])
        return value

    def _at(self, i: Instruction) -> int:
        """The row of where the pointer of a load or store points."""
        self.rows.append(self.p[i.operands[i.form.pointer]])
        row = len(self.rows) - 1
        if i.form.name in loops.RINGED:
            ring = self._pair(i.operands[2])
            known, at = self._ring
            if [id(n) for n in known] != [id(n) for n in ring]:
                at = len(self.rows)
                self.rows += ring
                self._ring = ring, at
            self.trace.ringed.append((row, at, at + 1))
        return row

    def _pair(self, n: int) -> list[Array]:
        """The registers r that ln is."""
        return self.r[2 * n : 2 * n + 2]

    def _bundle(self, bundle: Bundle) -> tuple[int, ...]:
        trace, touched, after = self.trace, list[int](), list[tuple[list[Any], int, Any]]()
        for slot in (Slot.STORE, Slot.VECTOR, Slot.A, Slot.B):  # stores and sums read what loads of their bundle write after that
            if slot not in bundle:
                continue
            i = bundle[slot]
            if slot is Slot.VECTOR:
                self._sum(i)
                continue
            if i.form.name == "putc":
                after_sums = len(trace.sums.get(i.operands[0], ()))
                quarters = (2 * i.operands[1], 2 * i.operands[1] + 1)
                trace.puts += [Stored(0, "stc", i.operands[0], after_sums, 0, (q,)) for q in quarters]
                continue
            row = self._at(i)
            touched.append(trace.note(row))
            after.append(self._moved(i))
            if slot is Slot.STORE:
                self._store(i, touched[-1])
                continue
            trace.loads.append(touched[-1])
            if i.form.name in ("ldh", "ldm"):
                trace.tables.append(touched[-1])
                after.append(self._looked_up(i, row))
            elif i.form.name in ("ldc", "ldu", "ldbf"):
                self._load_sums(i, row)
            else:
                after.append((self.vectors, loops.vector_of(i), row))
        if (scalar := bundle.get(Slot.SCALAR)) and scalar.form.name == "getc":
            self._take(*scalar.operands)
        elif scalar and scalar.form.name != "loop":
            after.append(self._scalar(scalar.form.name, scalar.operands))
        for values, n, value in after:
            values[n] = value
        return tuple(touched)

    def _moved(self, i: Instruction) -> tuple[list[Any], int, Any]:
        """The pointer of a load or store behind it."""
        pointer, last = i.operands[i.form.pointer], i.operands[-1]
        step = self.m[last] if i.form.name in ("ldwm", "srsm") else self.findings.number(last)
        return self.p, pointer, self.p[pointer] + step

    def _looked_up(self, i: Instruction, row: int) -> tuple[list[Any], int, Any]:
        """The register that a load from a table sets."""
        step = i.form.name == "ldm"
        return self.m if step else self.r, i.operands[0], self.findings.add(Loaded(self.rows[row], step))

    def _take(self, c: int, half: int) -> None:
        """Take a word out of the cascade."""
        for i in range(2):
            self.rows.append(self.came + self.findings.number(32 * i))
            self.trace.sums.setdefault(c, []).append(Sum("setc", (2 * half + i,), (self.trace.note(len(self.rows) - 1),)))
        self.came = self.came + self.findings.number(WORD_BYTES)

    def _scalar(self, name: str, o: tuple[int, ...]) -> tuple[list[Any], int, Any]:
        """What an instruction of the scalar slot sets to what."""
        r, p, number = self.r, self.p, self.findings.number
        match name:
            case "movi":
                return r, o[0], number(o[1])
            case "addi":
                return r, o[0], r[o[1]] + number(o[2])
            case "add":
                return r, o[0], r[o[1]] + r[o[2]]
            case "sub":
                return r, o[0], r[o[1]] - r[o[2]]
            case "addl":
                end, size = self._pair(o[3])
                total = r[o[1]] + r[o[2]]
                return r, o[0], self.findings.add(Chosen(total - end, total, total - size, below=True))
            case "mov":
                return r, o[0], r[o[1]]
            case "movr":
                return r, o[0], p[o[1]]
            case "movz":
                return r, o[0], self.findings.add(Chosen(r[o[2]], r[o[1]], r[o[0]]))
            case "movp":
                return p, o[0], r[o[1]]
            case "pmov":
                return p, o[0], p[o[1]]
            case "padd":
                return p, o[0], p[o[0]] + number(o[1])
            case "paddr":
                return p, o[0], p[o[1]] + r[o[2]]
            case "movm":
                return self.m, o[0], r[o[1]]
        raise Unknown

    def _store(self, i: Instruction, address: int) -> None:
        o, name, trace = i.operands, i.form.name, self.trace
        if name == "stw":
            trace.stores.append(Stored(address, name, 0, 0, trace.note(self.vectors[o[0]]), ()))
            return
        numbers = (o[1],) if name in ("stc", "stbf") else (self._number(o[2]), o[3])
        trace.stores.append(Stored(address, name, o[0], len(trace.sums.get(o[0], ())), 0, numbers))

    def _load_sums(self, i: Instruction, row: int) -> None:
        """A load into an accumulator."""
        o, where = i.operands, (self.trace.note(row),)
        made = {
            "ldc": lambda: [Sum("setc", (o[1],), where)],
            "ldbf": lambda: [Sum("setf", (o[1],), where)],
            "ldu": lambda: [Sum("clr", (), ()), Sum("ups", (self._number(o[2]), o[3]), where)],
        }[i.form.name]()
        self.trace.sums.setdefault(o[0], []).extend(made)

    def _sum(self, i: Instruction) -> None:
        o, name, v, trace = i.operands, i.form.name, self.vectors, self.trace
        if name in ADDING:
            sources = o[1:3] if name.startswith("add") else o[1:2]
            counts = [n for c in sources for n in (c, len(trace.sums.get(c, ())))]
            name, o = ADDING[name], (o[0], *o[1 + len(sources) :])
            trace.sums.setdefault(o[0], []).append(Sum("take", (parts_of(name, o[-1]), *counts), ()))
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
            vectors, numbers = [v[o[1]]], (self._number(o[2]), o[3])
        elif name == "addbf":
            vectors = [v[n] for n in _pairs(o[1])]
        elif name in ("maxf", "minf"):
            numbers = (self._number(o[1]),)
        trace.sums.setdefault(o[0], []).append(Sum(name, numbers, tuple(trace.note(a) for a in vectors)))

    def _loop(self, start: int, end: int, times: int) -> Step:
        """All iterations of a plain loop within the body, one after the other."""
        body, trace = self.bundles[start:end], self.trace
        touched: dict[tuple[int, Slot], list[int]] = {}
        used: dict[int, list[list[int]]] = {}
        for _ in range(times):
            for j, bundle in enumerate(body):
                after: list[tuple[list[Any], int, Any]] = []
                if Slot.VECTOR in bundle:
                    i = bundle[Slot.VECTOR]
                    used.setdefault(j, []).append([self.vectors[w] for w in _operands(i.form.name, i.operands)])
                for slot in (s for s in (Slot.A, Slot.B) if s in bundle):
                    i = bundle[slot]
                    row = self._at(i)
                    touched.setdefault((j, slot), []).append(row)
                    after.append(self._moved(i))
                    vector = i.form.name != "ldm"
                    after.append((self.vectors, loops.vector_of(i), row) if vector else self._looked_up(i, row))
                for values, n, value in after:
                    values[n] = value
        noted = {key: trace.note(rows) for key, rows in touched.items()}
        trace.loads += noted.values()
        trace.tables += [n for (j, slot), n in noted.items() if body[j][slot].form.name == "ldm"]
        for j, rows in used.items():
            i = body[j][Slot.VECTOR]
            numbers = (i.operands[4], i.operands[3] % 2) if i.form.name in _SPARSE else (i.operands[3],)
            vectors = tuple(trace.note(part) for part in zip(*rows, strict=True))
            trace.sums.setdefault(i.operands[0], []).append(Sum(i.form.name, numbers, vectors))
        groups = tuple(tuple(noted[j, s] for s in (Slot.A, Slot.B) if s in b) for j, b in enumerate(body))
        return Step(start, end, times, groups)
