"""Orders in which things lie in the data memory of a core, one behind the other.

Each begins as soon as it shares no bank with what it is to be apart from, and what comes early of it meets nothing that is in
use.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations

from sparsec.backends.aie.descriptor_forms import CORE_STEP_BYTES

Span = tuple[int, int]  # the first byte, and that behind the last

_ALIGN = 32


@dataclass(frozen=True, slots=True)
class Thing:
    """What lies in a core: its bytes, of which the first `early` ones may come early; its parts that may have banks of their own,
    from and to a byte of it; and the first byte where it may begin."""

    bytes: int
    early: int
    parts: tuple[tuple[str, int, int], ...]
    least: int = 0


@dataclass(frozen=True, slots=True)
class Orders:
    """Orders of `things`, which end before the byte `end`. Pairs of parts are `apart`: they share no bank of so many bytes. The
    last of those things that are so many bytes longer than what comes is the one that has them (`behind`)."""

    things: Mapping[str, Thing]
    apart: Sequence[tuple[str, str]]
    bank: int
    end: int
    behind: Mapping[str, int]

    def no_worse(self, starts: Mapping[str, int]) -> Orders:
        """Those in which only things share banks that do so if they begin there."""
        masks: dict[str, int] = {}
        for name, thing in self.things.items():
            masks |= self._banks(thing, starts[name])
        return replace(self, apart=[(a, b) for a, b in self.apart if not masks.get(a, 0) & masks.get(b, 0)])

    def all(self, beside: Mapping[str, Sequence[Span]]) -> Iterator[dict[str, int]]:
        """Where things begin in each order in which what comes early of some is `beside` what is used."""
        others: dict[str, list[str]] = {}
        for a, b in self.apart:
            others.setdefault(a, []).append(b)
            others.setdefault(b, []).append(a)
        empty = [name for name, thing in self.things.items() if not thing.bytes]
        for order in permutations(name for name, thing in self.things.items() if thing.bytes):
            if (found := self._in_order(order, beside, others)) is not None:
                yield found | dict.fromkeys(empty, 0)

    def _in_order(
        self, order: Sequence[str], beside: Mapping[str, Sequence[Span]], others: Mapping[str, Sequence[str]]
    ) -> dict[str, int] | None:
        """Where things begin; None where that leads beyond the end, or buffers are further apart than descriptors step."""
        last = max((name for name in self.behind if name in order), key=order.index)
        starts: dict[str, int] = {}
        masks: dict[str, int] = {}
        at = 0
        for name in order:
            thing, used = self.things[name], beside.get(name, ())
            length = thing.bytes + (self.behind[last] if name == last else 0)
            for start in self._likely(max(at, thing.least), thing, used):
                if start + length > self.end:
                    return None
                if any(start < end and first < start + thing.early for first, end in used):
                    continue
                banks = self._banks(thing, start)
                there = masks | banks  # both halves of a ring are apart as well
                if not any(banks[part] & there.get(other, 0) for part in banks for other in others.get(part, ())):
                    break
            else:
                return None
            starts[name] = start
            masks |= banks
            at = start + length
        steps = [starts[name] for name in self.behind if name in starts]
        return starts if max(steps) - min(steps) <= CORE_STEP_BYTES else None

    def _likely(self, at: int, thing: Thing, used: Sequence[Span]) -> list[int]:
        """Where a thing may begin from `at` on: there, behind what is used, and where a part of it begins a bank."""
        at = -(-at // _ALIGN) * _ALIGN
        found = {at, *(-(-end // _ALIGN) * _ALIGN for _, end in used if end > at)}
        for first in {0, *(first for _, first, _ in thing.parts)}:
            found |= set(range(at + -(at + first) % self.bank, self.end, self.bank))
        return sorted(found)

    def _banks(self, thing: Thing, start: int) -> dict[str, int]:
        """The banks that the parts of a thing are in, a bit for each."""
        found = {}
        for name, first, end in thing.parts:
            if end > first:
                low, high = (start + first) // self.bank, (start + end - 1) // self.bank
                found[name] = (2 << high) - (1 << low)
        return found
