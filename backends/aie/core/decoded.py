"""A program's bundles with what never changes about them, once for all cores that have it."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from sparsec.backends.aie.core import loops
from sparsec.backends.aie.core.affine import FIRST
from sparsec.backends.aie.core.assembly import read_registers, written_registers
from sparsec.backends.aie.core.cascade import GET, PUT
from sparsec.backends.aie.core.execute import STEERING, Actions, State, actions_of
from sparsec.backends.aie.core.instructions import ADDING, BUNDLE_BYTES, Bundle, Instruction, Slot, decode_bundle
from sparsec.backends.aie.core.nests import Nest, Template
from sparsec.backends.aie.core.plan import HALVES
from sparsec.backends.aie.core.timing import Latencies, Timed
from sparsec.backends.aie.core.tracing import counts_of, is_nest, onward
from sparsec.compiler.errors import ModelError, SparsecError

Array = np.ndarray[Any, Any]
PRODUCTS = frozenset(("mac", "mul", "mace", "mule", "macbf", "macbft", "macebf", "macsp", "mulsp", "macbfsp", *ADDING))
_LONG = 8  # products beside loops
_KEPT_NESTS = 128
_KEPT_BYTES = 1 << 26  # of templates


@dataclass
class Decoded:
    """By bundle: needs and effects in time, what steers, whether it multiplies, which pointers it uses, what it does with the
    cascade."""

    bundles: tuple[Bundle, ...]
    timed: list[Timed]
    steering: list[Instruction | None] = field(init=False)
    actions: list[Actions] = field(init=False)
    multiplies: list[bool] = field(init=False)
    multiplied: Array = field(init=False)  # int64: the same as numbers
    pointers: list[list[tuple[int, int]]] = field(init=False)  # and the ring that they are in, -1 where in none
    meets: list[tuple[int, ...]] = field(init=False)
    gets: Array = field(init=False)  # int64: words that bundles before each one take, one by one
    _loops: Array = field(init=False)  # int64: loops that bundles before each one begin
    _products: Array = field(init=False)  # int64: products before each bundle
    _floats: Array = field(init=False)  # int64: those of bfloat16
    _plain: dict[tuple[int, int], bool] = field(default_factory=dict)
    _counts: dict[tuple[int, int], tuple[int, ...] | None] = field(default_factory=dict)
    _used: dict[tuple[int, int], list[int]] = field(default_factory=dict)
    _nests: OrderedDict[tuple[int, ...], list[Nest]] = field(default_factory=OrderedDict)
    _templates: OrderedDict[tuple[int, int, tuple[int, ...]], Template | None] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        scalars = [b.get(Slot.SCALAR) for b in self.bundles]
        self.steering = [s if s is not None and s.form.name in STEERING else None for s in scalars]
        self.actions = [actions_of(b) for b in self.bundles]
        vectors = [b[Slot.VECTOR].form.name if Slot.VECTOR in b else "" for b in self.bundles]
        self.multiplies = [name in PRODUCTS for name in vectors]
        moving = [[b[s] for s in (Slot.A, Slot.B, Slot.STORE) if s in b and b[s].form.moves] for b in self.bundles]
        self.pointers = [
            [(i.operands[i.form.pointer], i.operands[2] if i.form.name in loops.RINGED else -1) for i in instructions]
            for instructions in moving
        ]
        taken = [Slot.SCALAR in b and b[Slot.SCALAR].form.name == "getc" for b in self.bundles]
        given = [Slot.STORE in b and b[Slot.STORE].form.name == "putc" for b in self.bundles]
        self.meets = [(GET,) * got + (PUT,) * put for got, put in zip(taken, given, strict=True)]
        self.gets = np.cumsum([0, *taken])
        self.multiplied = np.array(self.multiplies, np.int64)
        self._products = np.cumsum([0, *self.multiplies])
        self._floats = np.cumsum([0, *(name in HALVES or ADDING.get(name) in HALVES for name in vectors)])
        self._loops = np.cumsum([0, *(s is not None and s.form.name == "loop" for s in self.steering)])
        self.stretches = self._stretches()

    def _stretches(self) -> list[int]:
        ends = [*range(len(self.bundles) + 1)]
        for at in reversed(range(len(self.bundles))):
            if (behind := onward(self.bundles, at)) is not None:
                ends[at] = ends[behind]
        return [end if self.long(at, end) else at for at, end in enumerate(ends)]

    def plain(self, start: int, end: int) -> bool:
        """Whether `loops.run` does the body [start, end)."""
        if (start, end) not in self._plain:
            self._plain[start, end] = loops.is_plain(self.bundles[start:end]) and not any(self.steering[start:end])
        return self._plain[start, end]

    def long(self, start: int, end: int) -> bool:
        """Whether bundles [start, end), each carried out once but for loops, do so much that it pays to know them at once. Not
        those of bfloat16, whose sums depend on their order."""
        loops, floats, products = (
            int(n[end] - n[start]) if start < end else 0 for n in (self._loops, self._floats, self._products)
        )
        return not floats and (loops > 0 or products >= _LONG)

    def _numbers(self, start: int, end: int) -> list[int]:
        """The registers of numbers and pointers that bundles [start, end) read or write, counted through r, p and m: what they do
        depends on no others."""
        if (start, end) not in self._used:
            slots = [i for b in self.bundles[start:end] for i in b.values()]
            used = {r for i in slots for r in (*read_registers(i), *written_registers(i))}
            self._used[start, end] = sorted(FIRST[kind] + n for kind, n in used if kind in FIRST)
        return self._used[start, end]

    def nest(self, state: State, start: int, end: int, times: int) -> Nest | None:
        """What a loop does that is about to begin, when it can be known at once; kept, as other cores mostly do the same."""
        counts = self._counted(start, end)
        if counts is None:
            return None
        registers = [*state.r, *state.p, *state.m]
        key = (start, end, times, *[registers[n] for n in self._numbers(start, end)])
        kept = self._nests.setdefault(key, [])
        self._nests.move_to_end(key)
        for nest in kept:
            if nest.reads_the_same(state):
                return nest
        template = self._template(start, end, counts, tuple(state.r[n] for n in counts))
        made = Nest.of(template, state, times) if template is not None else None
        if made is not None:
            kept.append(made)
            if sum(map(len, self._nests.values())) > _KEPT_NESTS:
                self._nests.popitem(last=False)
        return made

    def _counted(self, start: int, end: int) -> tuple[int, ...] | None:
        """The registers by which the body [start, end) counts; None where it cannot be known at once."""
        if (start, end) not in self._counts:
            self._counts[start, end] = counts_of(self.bundles, start, end) if is_nest(self.bundles, start, end) else None
        return self._counts[start, end]

    def _template(self, start: int, end: int, counts: tuple[int, ...], values: tuple[int, ...]) -> Template | None:
        """What loops do that differ in their data, tables and pointers only."""
        key = (start, end, values)
        if key not in self._templates:
            self._templates[key] = Template.of(self.bundles, start, end, counts, values)
            while sum(t.nbytes for t in self._templates.values() if t) > _KEPT_BYTES and len(self._templates) > 1:
                self._templates.popitem(last=False)
        self._templates.move_to_end(key)
        return self._templates[key]


@lru_cache(maxsize=8)
def decoded(program: bytes, latencies: Latencies) -> Decoded:
    """The program's bundles. ModelError names the one that is none."""
    if len(program) % BUNDLE_BYTES:
        raise ModelError(f"{len(program)} bytes end within a bundle of {BUNDLE_BYTES}: the file may be cut off")
    found = []
    for at in range(0, len(program), BUNDLE_BYTES):
        try:
            found.append(decode_bundle(program[at : at + BUNDLE_BYTES]))
        except SparsecError as exc:
            raise ModelError(f"bundle {at // BUNDLE_BYTES}, {program[at : at + BUNDLE_BYTES].hex()}, is none: {exc}") from exc
    return Decoded(tuple(found), [Timed.of(b, latencies) for b in found])
