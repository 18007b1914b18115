"""Pages of weights: how chunks of their own lengths lie in what DMA channels move.

A stream of weights is a core's chunks one behind the other, cut into pages of equal size, which is what descriptors move and
locks count. A core holds a ring of pages; blocks that reach its end go on at its begin. Before the core begins with a chunk it
takes the pages that are new to it, and then gives back those in which nothing else is to come.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, pairwise
from operator import add
from typing import NamedTuple

from sparsec.backends.aie.core.program import HEADER_BYTES

_ALIGN = 32


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a chunk is: `onward` bytes before the next one; how many pages are `new` to that one; and how many are `left` behind,
    since this one is the last in them."""

    onward: int
    new: int
    left: int


@dataclass(frozen=True)
class Chunks:
    """Chunks of a stream in their order: bytes of each (`lengths`), and how many of these are before its header (`leads`), which
    is where cores go on to."""

    lengths: tuple[int, ...]
    leads: tuple[int, ...]

    @cached_property
    def ends(self) -> list[int]:
        """Bytes before each chunk, and all."""
        return list(accumulate(self.lengths, initial=0))

    @cached_property
    def pair(self) -> int:
        """Bytes of the two chunks, one behind the other, that have most, or of the only one."""
        return max(map(add, self.lengths, self.lengths[1:]), default=sum(self.lengths))

    @cached_property
    def pair_again(self) -> int:
        """The same where the first one follows the last one."""
        return max(self.pair, sum(self.lengths[:1]) + sum(self.lengths[-1:]))

    @cached_property
    def lead(self) -> int:
        """Where the header of a ring's first chunk is, of whichever chunk begins a turn."""
        return max(self.leads, default=0)

    @property
    def passed(self) -> int:
        """Bytes of a ring that a turn passes over at most."""
        return self.lead + HEADER_BYTES

    @cached_property
    def page(self) -> int:
        """The page that holds any chunk, with its header in the same place."""
        return self.lead + max((n - lead for n, lead in zip(self.lengths, self.leads, strict=True)), default=_ALIGN)


@dataclass(frozen=True, slots=True)
class Layout:
    """Chunks of a stream in pages: where each begins, in bytes; `pages` of a round, and the `spots`. Of the first round the first
    chunk needs `first` pages; `rest` come behind what the last one needs. The header of a ring's first chunk is at `lead`."""

    starts: tuple[int, ...]
    pages: int
    first: int
    rest: int
    spots: tuple[Spot, ...]
    lead: int

    @staticmethod
    def of(starts: Sequence[int], chunks: Chunks, page: int, pages: int, turn: int, *, kept: bool) -> Layout:
        """From where chunks are. The next round begins at a multiple of `turn` pages."""
        if not starts:
            return Layout((), pages, 0, pages, (), 0)
        last = [(at + n - 1) // page for at, n in zip(starts, chunks.lengths, strict=True)]
        heads = [at + n for at, n in zip(starts, chunks.leads, strict=True)]
        behind = [*heads[1:], _rounded(starts[-1] + chunks.lengths[-1], page, turn) * page + heads[0]]
        new = [b - a for a, b in pairwise([*last, pages + last[0]])]
        gone = [at // page for at in starts[1:]] + [pages]
        left = [b - a for a, b in pairwise([0, *gone])] if not kept else [0] * len(starts)
        spots = (Spot(b - a, n, m) for a, b, n, m in zip(heads, behind, new, left, strict=True))
        return Layout(tuple(starts), pages, last[0] + 1, pages - 1 - last[-1], tuple(spots), heads[0])


@dataclass(frozen=True, slots=True)
class Paging:
    """`sizes` of the pages of each stream, in bytes, and how many of them a round of it has (`counts`); a core's `ring` of pages,
    0 where it holds all. `cost`: cycles of the stream that takes longest, and of its first page once more. With `alone`, every
    chunk is in a page of its own."""

    sizes: tuple[int, ...]
    counts: tuple[int, ...]
    ring: int
    cost: float
    alone: bool = field(default=False)

    @property
    def bytes(self) -> int:
        """What a core holds at most."""
        return max(size * self.held(part) for part, size in enumerate(self.sizes))

    @property
    def first_half(self) -> int:
        """Bytes of the half of a ring that comes while a core reads the other one; 0 of weights that stay."""
        return max(self.sizes) * (self.ring // 2)

    def held(self, part: int) -> int:
        """Pages that a core of a part holds."""
        return self.ring or max(1, self.counts[part])

    def layout(self, part: int, chunks: Chunks, *, again: bool) -> Layout:
        """Of a stream; `again`: rounds follow one another."""
        size, count = self.sizes[part], self.counts[part]
        if self.alone:
            starts: Sequence[int] | None = [at * size + chunks.lead - lead for at, lead in enumerate(chunks.leads)]
        elif self.ring:
            starts = in_ring(chunks, size, self.ring, again=again)
        else:
            starts = chunks.ends[:-1]
        assert starts is not None
        turn = 1 if self.alone else self.ring or count
        return Layout.of(starts, chunks, size, count, turn, kept=not self.ring)


class _Run(NamedTuple):
    """Chunks [first, end) that lie one behind the other: number i begins `shift` behind all before it."""

    first: int
    end: int
    shift: int


def _runs(chunks: Chunks, page: int, ring: int, *, again: bool) -> list[_Run] | None:
    """How chunks follow one another through a ring; None where they do not fit.

    Blocks go on from the ring's end to its begin, but not what is before them, so that such a chunk begins with the next turn.
    While a core has a chunk it takes the next one: all pages from the first of one to the last of the other are in the ring.
    With `again`, the first chunk follows the last one, a number of whole turns behind its place.
    """
    leads, ends, whole = chunks.leads, chunks.ends, ring * page
    if not leads:
        return []
    if chunks.passed > whole:
        return None
    first, shift, border, found = 0, chunks.lead - leads[0], whole, list[_Run]()
    while (at := bisect_right(ends, border - shift, first) - 1) < len(leads):
        start = shift + ends[at]
        if start < border < start + leads[at] + HEADER_BYTES:
            found.append(_Run(first, at, shift))
            first, shift = at, border + chunks.lead - leads[at] - ends[at]
        border += whole
    found.append(_Run(first, len(leads), shift))
    return found if _within(chunks, found, page, ring, again=again) else None


def _within(chunks: Chunks, runs: Sequence[_Run], page: int, ring: int, *, again: bool) -> bool:
    """Whether a ring holds every chunk together with the next one."""

    def held(at: int, then: int, length: int) -> bool:
        return (then + length - 1) // page - at // page < ring

    lengths, last = chunks.lengths, runs[-1].shift + chunks.ends[-2]
    if again and not held(last, _rounded(last + lengths[-1], page, ring) * page + chunks.lead - chunks.leads[0], lengths[0]):
        return False
    if chunks.pair_again + chunks.passed <= (ring - 1) * page:
        return True
    starts = _starts(chunks, runs)
    begins = [0, *starts[1:]]  # pages before the first chunk, too, are given back behind it
    return held(0, starts[0], lengths[0]) and all(map(held, begins, starts[1:], lengths[1:]))


def _starts(chunks: Chunks, runs: Sequence[_Run]) -> list[int]:
    return [r.shift + n for r in runs for n in chunks.ends[r.first : r.end]]


def _rounded(end: int, page: int, turn: int) -> int:
    """Pages up to an end, in bytes, and on to a multiple of `turn`."""
    return -(-end // (page * turn)) * turn


def in_ring(chunks: Chunks, page: int, ring: int, *, again: bool) -> list[int] | None:
    """Where chunks begin that follow one another through a ring, in bytes of all that has come; None where they do not fit."""
    runs = _runs(chunks, page, ring, again=again)
    return None if runs is None else _starts(chunks, runs)


def pages_of(chunks: Chunks, page: int, ring: int, *, again: bool) -> int | None:
    """Pages of a round; None where a ring does not hold it. A ring of 0 holds all."""
    if not chunks.lengths:
        return 0
    if not ring:
        return -(-chunks.ends[-1] // page)
    runs = _runs(chunks, page, ring, again=again)
    return None if runs is None else _rounded(runs[-1].shift + chunks.ends[-1], page, ring if again else 1)
