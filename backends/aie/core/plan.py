"""How the sums of an iteration are computed: products that follow one another as one, accumulators that do the same together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsec.backends.aie.core.trace import ALL, POSITIONS, Sum, Trace, parts_of

Array = np.ndarray[Any, Any]

OF_FLOATS = frozenset(("macbf", "macbft", "macebf", "macbfsp", "addbf", "maxf", "minf", "setf"))
HALVES = frozenset(("macbf", "macbft", "macebf", "macbfsp"))  # products that add to one half or the other
OF_INTEGERS = frozenset(("mac", "mace", "macsp", "ups"))


@dataclass(frozen=True, slots=True)
class Alike:
    """Accumulators that do the same with other vectors, and so are computed together: one after the other in each iteration.

    `sums` are those of any of them, but that vectors are numbers of `rows`, int64 [accumulators, executions], and what "take"
    takes are places in `takes`: which accumulators, by which class they are in and their places there (None: all in order), and
    after so many of their sums.
    """

    members: tuple[int, ...]
    sums: tuple[Sum, ...]
    rows: tuple[Array, ...]
    takes: tuple[tuple[int, Array | None, int], ...]
    begins: int | None

    @property
    def floats(self) -> bool:
        """Whether sums are of float32."""
        return any(s.name in OF_FLOATS for s in self.sums)


class Plan:
    """How the sums of an iteration are computed: accumulators by class, and the stores of each."""

    def __init__(self, trace: Trace) -> None:
        sums, self.rows = _joined(trace)
        of = _classes(sums, self.rows)
        self.classes: list[Alike] = []
        self.place: dict[int, tuple[int, int]] = {}  # of an accumulator: its class, and which of it
        for members in sorted({tuple(k for k in of if of[k] == of[c]) for c in of}):
            for which, c in enumerate(members):
                self.place[c] = len(self.classes), which
            self.classes.append(Alike(members, (), (), (), None))
        for n, old in enumerate(self.classes):
            self.classes[n] = self._made(old.members, [sums.get(c, []) for c in old.members])
        self.changed = tuple(sorted(sums))

    def _made(self, members: tuple[int, ...], sums: Sequence[Sequence[Sum]]) -> Alike:
        made, rows, takes = list[Sum](), list[Array](), list[tuple[int, Array | None, int]]()
        for each in zip(*sums, strict=True):
            first = each[0]
            vectors = range(len(rows), len(rows) + len(first.vectors))
            rows += [np.stack([self.rows[s.vectors[i]] for s in each]) for i in range(len(first.vectors))]
            numbers = first.numbers
            if first.name == "take":
                sources = range(len(takes), len(takes) + len(numbers) // 2)
                for at in range(1, len(numbers), 2):
                    places = [self.place[s.numbers[at]] for s in each]
                    where = np.array([which for _, which in places])
                    whole = np.array_equal(where, np.arange(len(self.classes[places[0][0]].members)))
                    takes.append((places[0][0], None if whole else where, numbers[at + 1]))
                numbers = (numbers[0], *sources)
            made.append(Sum(first.name, numbers, tuple(vectors)))
        return Alike(members, tuple(made), tuple(rows), tuple(takes), _begins(made))


def _classes(sums: Mapping[int, Sequence[Sum]], rows: Sequence[Array]) -> dict[int, Any]:
    """By accumulator what those have in common that do the same with other vectors.

    Products of bfloat16 stay by themselves: how a library adds them up may depend on how many there are.
    """
    sources = {c for found in sums.values() for s in found if s.name == "take" for c in s.numbers[1::2]}
    of: dict[int, Any] = {}
    for c in sorted(sources | set(sums)):
        known = [
            (s.name, (s.numbers[0], *s.numbers[2::2]) if s.name == "take" else s.numbers, [rows[v].size for v in s.vectors])
            for s in sums.get(c, ())
        ]
        alone = c not in sums or any(s.name in OF_FLOATS for s in sums[c])
        of[c] = (c if alone else -1, str(known))
    while True:
        numbers = {key: n for n, key in enumerate(dict.fromkeys(of.values()))}
        finer = {
            c: (numbers[of[c]], *(numbers[of[k]] for s in sums.get(c, ()) if s.name == "take" for k in s.numbers[1::2]))
            for c in of
        }
        if len(set(finer.values())) == len(numbers):
            return finer
        of = finer


def _joined(trace: Trace) -> tuple[dict[int, list[Sum]], list[Array]]:
    """The sums by accumulator, products that follow one another as one; and rows by address number, as the trace has them.

    Products between which something is stored, or another accumulator takes the sum, stay apart. A product that was joined to the
    one before it becomes "none", so that the numbers by which stores name sums stay as they are.
    """
    rows = list(trace.addresses)
    found: dict[int, list[Sum]] = {}
    taken: dict[int, set[int]] = {}
    for s in (s for sums in trace.sums.values() for s in sums if s.name == "take"):
        for c, count in zip(s.numbers[1::2], s.numbers[2::2], strict=True):
            taken.setdefault(c, set()).add(count)
    for c, sums in trace.sums.items():
        kept = [s for s in trace.stores if s.name != "stw"] + trace.puts
        stops = {s.after for s in kept if s.accumulator == c} | taken.get(c, set())
        made = found[c] = list(sums)
        first = 0
        for i in range(1, len(made) + 1):
            if i < len(made) and _alike(made[first], made[i]) and i not in stops:
                continue
            for numbers in dict.fromkeys(s.numbers for s in made[first:i]):
                _join(made, [n for n in range(first, i) if made[n].numbers == numbers], rows)
            first = i
    return found, rows


def _alike(a: Sum, b: Sum) -> bool:
    """Whether two sums of an accumulator may be taken in any order: those of bfloat16 add to one half of it or the other."""
    return a.name == b.name and (a.name in HALVES or (a.name in ("mac", "macsp") and a.numbers == b.numbers))


def _join(made: list[Sum], which: Sequence[int], rows: list[Array]) -> None:
    if len(which) < 2:
        return
    parts = zip(*(made[n].vectors for n in which), strict=True)
    first = made[which[0]]
    vectors = range(len(rows), len(rows) + len(first.vectors))
    rows += [np.concatenate([rows[n] for n in part]) for part in parts]
    for n in which:
        made[n] = Sum("none", (), ())
    made[which[0]] = Sum(first.name, first.numbers, tuple(vectors))


def part_of(number: int) -> tuple[slice, slice]:
    """The rows and channels of a part of an accumulator (`trace.parts_of`)."""
    whole = slice(None)
    if number == ALL:
        return whole, whole
    if number < POSITIONS:
        return whole, slice(4 * number, 4 * number + 4)
    return slice(2 * (number - POSITIONS), 2 * (number - POSITIONS) + 2), whole


def _begins(sums: Sequence[Sum]) -> int | None:
    """After which of its sums nothing of an accumulator is what was there before them."""
    known = np.zeros((4, 8), np.bool_)
    for i, s in enumerate(sums):
        if s.name in ("row", "clr"):
            return i
        if s.name == "setc":
            known[s.numbers[0]] = True
        elif s.name == "setf":
            known[2 * s.numbers[0] : 2 * s.numbers[0] + 2] = True
        elif s.name == "take":
            known[part_of(s.numbers[0])] = True
        elif s.name != "none" and not (s.name in HALVES and known[part_of(parts_of(s.name, s.numbers[0]))].all()):
            return None
        if known.all():
            return i
    return None
