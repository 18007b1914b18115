"""How large pages of weights are, and how many are in a core: what takes the fewest cycles, by how chunks lie in them (`paging`).

What is left of the last page comes for nothing, and so does the little that a ring passes over at its end. While ways to compute
a layer are ranked, a few are tried, for the stream that has most; for those that are left, many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from math import ceil
from operator import mul

from sparsec.backends.aie.lower.paging import Chunks, Paging, pages_of

_ALIGN = 32
_RINGS = (3, 4, 6)  # pages
_HELD = 12  # times the two chunks that take most, in the largest ring
_KEPT = (60, 40, 24, 16, 8)  # pages of weights that stay
_LONGEST = 32  # pages of a ring
_COUNTED = 60  # pages at most that come one at a time
_SEVERAL = (2, 4)  # chunks of one length in a page
_WORTH = 0.97  # of the cost of pages of a chunk each
_BETTER = 0.98  # of the cost of a smaller ring
_WORD = 4  # bytes of a cycle
_LARGE = 6144  # bytes of a page
_FEW, _MANY = 6, 24  # numbers of pages that are tried for each ring, by the stream that has most
_LIKELY = 5  # of many, for all streams
_STEPS, _ALL = 8, 100  # sizes of pages that are tried for a number of them


@dataclass(frozen=True, slots=True)
class Rates:
    """What pages take: `transfer` cycles beside their words, and all streams together come through so many `channels`."""

    transfer: float
    channels: int

    def cost(self, counts: Sequence[int], sizes: Sequence[float]) -> float:
        """Cycles until so many pages of such sizes have come, by stream, and the first of them once more."""
        each = max(n * (size / _WORD + self.transfer) for n, size in zip(counts, sizes, strict=True))
        together: float = sum(map(mul, counts, sizes)) / (_WORD * self.channels)
        return max(each, together) + max(sizes) / _WORD


@dataclass
class Streams:
    """The chunks of each stream."""

    chunks: list[Chunks]
    _known: dict[tuple[Rates, bool, bool, int, bool], list[Paging]] = field(default_factory=dict)
    _many: dict[tuple[Rates, bool, int], list[_Tried]] = field(default_factory=dict)
    _made: dict[tuple[Rates, bool, _Tried], Paging | None] = field(default_factory=dict)

    @cached_property
    def longest(self) -> int:
        """Bytes of all chunks of the stream that has most."""
        return max(c.ends[-1] for c in self.chunks)

    def pagings(self, rates: Rates, *, kept: bool, again: bool, room: int, several: bool = False) -> list[Paging]:
        """See `pagings`."""
        key = (rates, kept, again, room, several)
        if key not in self._known:
            self._known[key] = pagings(self.chunks, rates, kept=kept, again=again, room=room, several=several)
        return self._known[key]

    def tightened(self, paging: Paging, rates: Rates, *, again: bool, room: int, fits: Callable[[Paging], bool]) -> Paging:
        """The best ring that fits, out of more than there is time for while ways are ranked; of what holds all, the paging.
        Pages are large only where these were, so that memory tiles have room for rings of them, too."""
        if paging.alone or not paging.ring:
            return paging
        best, key = paging, (rates, again, room)
        if key not in self._many:
            self._many[key] = sorted(_tried(self.chunks, rates, again, room, _MANY, _STEPS))
        likely = (t for t in self._many[key] if t.held // t.ring <= max(_LARGE, *paging.sizes) and fits(t.first))
        for tried in islice(likely, _LIKELY):
            if (rates, again, tried) not in self._made:
                self._made[rates, again, tried] = tried.of(self.chunks, rates, again, tight=True)
            made = self._made[rates, again, tried]
            if made and made.cost < best.cost and fits(made):
                best = made
        return best

    def longest_ring(self, paging: Paging, *, again: bool, fits: Callable[[Paging], bool]) -> Paging:
        """The same pages in the longest ring that fits, so that more of them come before a core has data; of what holds all, the
        paging."""
        if not paging.ring:
            return paging
        for ring in range(min(_LONGEST, *(n for n in paging.counts if n)), paging.ring, -1):
            made = replace(paging, ring=ring)
            if fits(made) and all(
                made.alone or _enough(c, size, ring, count, again)
                for c, size, count in zip(self.chunks, paging.sizes, paging.counts, strict=True)
            ):
                return made
        return paging


def own_pages(streams: Sequence[Chunks], rates: Rates, *, kept: bool) -> Paging:
    """A page for every chunk, of the length of the longest."""
    sizes, counts = tuple(c.page for c in streams), tuple(len(c.lengths) for c in streams)
    return Paging(sizes, counts, 0 if kept else 2, rates.cost(counts, sizes), alone=True)


def in_one(streams: Sequence[Chunks], rates: Rates) -> Paging:
    """A page for all chunks of a stream, which stay."""
    sizes, counts = tuple(max(c.ends[-1], _ALIGN) for c in streams), tuple(int(bool(c.lengths)) for c in streams)
    return Paging(sizes, counts, 0, rates.cost(counts, sizes))


def pagings(
    streams: Sequence[Chunks], rates: Rates, *, kept: bool, again: bool, room: int, several: bool = False
) -> list[Paging]:
    """Ways to lay streams into pages that take at most `room` bytes of a core and cost less than one page for every chunk; this
    one is the first, whatever room it takes. Chunks of one length may come `several` in a page."""
    first = own_pages(streams, rates, kept=kept)
    if len({n - lead for c in streams for n, lead in zip(c.lengths, c.leads, strict=True)}) == 1:  # but for biases
        return [first, *(p for p in _several(streams, rates) if p.bytes <= room)] if several and not kept else [first]
    if max(c.ends[-1] for c in streams) / _WORD > _WORTH * first.cost:
        return [first]
    found = [first]
    for made in _kept(streams, rates) if kept else _rings(streams, rates, again, room):
        if made.cost < _WORTH * first.cost and made.bytes <= room:
            found.append(made)
    return found


def _several(streams: Sequence[Chunks], rates: Rates) -> Iterator[Paging]:
    """Streams of as many chunks each, of one length, some of them in each of two pages."""
    counts = {len(c.lengths) for c in streams if c.lengths}
    for some in _SEVERAL:
        if len(counts) == 1 and min(counts) % (2 * some) == 0:
            sizes = tuple(some * c.page for c in streams)
            found = tuple(len(c.lengths) // some for c in streams)
            yield Paging(sizes, found, 2, rates.cost(found, sizes))


def _kept(streams: Sequence[Chunks], rates: Rates) -> Iterator[Paging]:
    """As many pages of each stream, as rings of memory tiles are filled in turns. Most come while the layer before computes, or
    with the first tile, so that streams to cores count, not the channels that they share."""
    rates = Rates(rates.transfer, len(streams))
    for likely in _KEPT:
        size = _aligned(max(c.ends[-1] for c in streams) / likely)
        count = max(pages_of(c, size, 0, again=False) or 0 for c in streams)
        sizes = tuple(_aligned(max(c.ends[-1] / count, _ALIGN)) for c in streams)
        counts = tuple(count if c.lengths else 0 for c in streams)
        yield Paging(sizes, counts, 0, rates.cost(counts, sizes))


def _rings(streams: Sequence[Chunks], rates: Rates, again: bool, room: int) -> Iterator[Paging]:
    """Rings none of which is larger and costs more than another."""
    least = float("inf")
    for likely in sorted(_tried(streams, rates, again, room, _FEW, _STEPS), key=lambda t: (t.held, t.cost)):
        if likely.cost < _BETTER * least and (made := likely.of(streams, rates, again)):
            least = min(least, made.cost)
            yield made


@dataclass(frozen=True, slots=True, order=True)
class _Tried:
    """A `ring` and a number of pages, and what they cost and hold, by the stream that has most."""

    cost: float
    held: int
    ring: int
    count: int

    @property
    def first(self) -> Paging:
        """Of the stream that has most."""
        return Paging((self.held // self.ring,), (self.count,), self.ring, self.cost)

    def of(self, streams: Sequence[Chunks], rates: Rates, again: bool, *, tight: bool = False) -> Paging | None:
        """So many pages of all streams, as small as possible if `tight`, or as full as those of the stream that has most; None
        where chunks do not fit."""
        each, most = self.held / self.ring, max(c.ends[-1] for c in streams)
        sizes = []
        for c in streams:
            likely = _aligned(max(each * c.ends[-1] / most, _ALIGN))
            rough = not tight and _enough(c, likely, self.ring, self.count, again)
            sizes.append(likely if rough else _smallest(c, self.ring, self.count, again, _ALL if tight else _STEPS))
        found = tuple(s for s in sizes if s is not None)
        counts = tuple(self.count if c.lengths else 0 for c in streams)
        return Paging(found, counts, self.ring, rates.cost(counts, found)) if len(found) == len(sizes) else None


def _tried(streams: Sequence[Chunks], rates: Rates, again: bool, room: int, tries: int, steps: int) -> Iterator[_Tried]:
    """Rings of at most so many bytes, each with so many numbers of pages, from pages as large as there is room for to those that
    two chunks need."""
    totals = [c.ends[-1] for c in streams]
    first = totals.index(max(totals))
    pair = max(c.pair_again if again else c.pair for c in streams)
    for ring in _RINGS:
        fewest, many = max(ring, totals[first] * ring // min(room, _HELD * pair)), totals[first] * (ring - 1) // pair
        more = max(0, min(many, _COUNTED) - fewest)
        counts = (fewest + round(more * i / (tries - 1)) for i in range(tries if fewest <= many else 0))
        for count in sorted({_counted(n, ring, again) for n in counts}):
            size = _smallest(streams[first], ring, count, again, steps)
            if size is not None and ring * size <= room:
                sizes = [size * n / totals[first] for n in totals]
                yield _Tried(rates.cost([count] * len(sizes), sizes), ring * size, ring, count)


def _counted(count: int, ring: int, again: bool) -> int:
    """A number of pages as rounds or memory tiles want it: of many, two come at a time into those that hold all."""
    return count // ring * ring if again else count + count % 2 * (count > _COUNTED)


def _smallest(chunks: Chunks, ring: int, count: int, again: bool, steps: int) -> int | None:
    """The smallest pages that so many of are enough, out of about so many sizes; None where none is."""
    if not chunks.lengths:
        return _ALIGN
    least = _aligned(chunks.ends[-1] / count)
    turns = -(-count // ring)
    largest = _aligned(max((chunks.ends[-1] + turns * chunks.passed) / count, chunks.pair_again / (ring - 1) + _ALIGN))
    for size in range(least, largest + 1, _aligned((largest - least) / steps) or _ALIGN):
        if _enough(chunks, size, ring, count, again):
            return size
    return None


def _enough(chunks: Chunks, page: int, ring: int, count: int, again: bool) -> bool:
    """Whether so many pages hold a stream. With `again`, the first chunk comes right behind the ring that the last one is in."""
    pages = pages_of(chunks, page, ring, again=again)
    return pages is not None and (pages == count if again and chunks.lengths else pages <= count)


def _aligned(n: float) -> int:
    return ceil(n / _ALIGN) * _ALIGN
