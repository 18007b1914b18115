"""Pages of weights: how chunks of their own lengths lie in what DMA channels move.

A stream of weights is a core's chunks one behind the other, cut into pages of equal size, which is what descriptors move and locks
count. A core holds a ring of pages, in which no chunk goes on from the end to the begin. Before it begins with a chunk it takes the
pages that are new to it, and then gives back those in which nothing else is to come.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

_ALIGN = 32
_RINGS = (3, 4, 5, 6, 8)  # pages
_LARGER = (1.0, 1.2, 1.5, 2.0, 3.0)  # than the least ring
_KEPT = (60, 40, 24, 16, 8)  # pages of weights that stay
_COUNTED = 60  # pages at most that come one at a time
_WORTH = 0.97  # of the cost of pages of a chunk each
_TRIES = 8


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a chunk is: `onward` bytes before the next one; of how many pages the next one is the first that needs them (`new`),
    and of how many this one is the last (`left`)."""

    onward: int
    new: int
    left: int


@dataclass(frozen=True, slots=True)
class Layout:
    """Chunks of a stream in pages: where each begins, in bytes; `pages` of a round, and the `spots`. Of the first round the first
    chunk needs `first` pages; `rest` come behind what the last one needs."""

    starts: tuple[int, ...]
    pages: int
    first: int
    rest: int
    spots: tuple[Spot, ...]

    @staticmethod
    def of(starts: Sequence[int], lengths: Sequence[int], page: int, pages: int, *, kept: bool) -> Layout:
        """From where chunks are."""
        if not starts:
            return Layout((), pages, 0, pages, ())
        last = [(at + n - 1) // page for at, n in zip(starts, lengths, strict=True)]
        begins = [*(at // page for at in starts[1:]), pages]
        spots, given = [], 0
        for i, at in enumerate(starts):
            behind = starts[i + 1] if i + 1 < len(starts) else pages * page
            new = (last[i + 1] if i + 1 < len(starts) else pages + last[0]) - last[i]
            spots.append(Spot(behind - at, new, 0 if kept else begins[i] - given))
            given = begins[i]
        return Layout(tuple(starts), pages, last[0] + 1, pages - 1 - last[-1], tuple(spots))


@dataclass(frozen=True, slots=True)
class Paging:
    """`sizes` of the pages of each stream, in bytes, and how many of them a round of it has (`counts`); a core's `ring` of pages,
    0 where it holds all. `cost`: cycles of the stream that takes longest. With `alone`, every chunk is in a page of its own."""

    sizes: tuple[int, ...]
    counts: tuple[int, ...]
    ring: int
    cost: float
    alone: bool = field(default=False)

    @property
    def bytes(self) -> int:
        """What a core holds at most."""
        return max(size * self.held(part) for part, size in enumerate(self.sizes))

    def held(self, part: int) -> int:
        """Pages that a core of a part holds."""
        return self.ring or max(1, self.counts[part])

    def layout(self, part: int, lengths: Sequence[int], *, again: bool) -> Layout:
        """Of a stream; `again`: rounds follow one another."""
        size, count = self.sizes[part], self.counts[part]
        if self.alone:
            starts: Sequence[int] | None = range(0, size * len(lengths), size)
        elif self.ring:
            starts = in_ring(lengths, size, self.ring, again=again)
        else:
            starts = _sums(lengths)
        assert starts is not None
        return Layout.of(starts, lengths, size, count, kept=not self.ring)


def in_ring(lengths: Sequence[int], page: int, ring: int, *, again: bool) -> list[int] | None:
    """Where chunks begin that follow one another through a ring, in bytes of all that has come; None where they do not fit.

    While a core has a chunk it takes the next one: all pages from the first of one to the last of the other are in the ring. With
    `again`, the first chunk follows the last one, from the begin of the ring on.
    """
    whole, at, found = ring * page, 0, list[int]()

    def meets(first: int, then: int, length: int) -> bool:
        return (then + length - 1) // page - first // page < ring

    for i, length in enumerate(lengths):
        last = i + 1 == len(lengths)
        behind = lengths[0] if last and again else 0 if last else lengths[i + 1]
        end = -(-at // whole) * whole or whole  # of the turn
        end += whole if at == end else 0
        for place in (at, end - length, end):
            turn = (place // whole + 1) * whole
            if place < at or place + length > turn or (found and not meets(found[-1], place, length)):
                continue
            if (place + length + behind <= turn and not (last and again)) or meets(place, turn, behind):
                break
        else:
            return None
        found.append(place)
        at = place + length
    return found


def _sums(lengths: Sequence[int]) -> list[int]:
    found, at = [], 0
    for n in lengths:
        found.append(at)
        at += n
    return found


def _pages(lengths: Sequence[int], page: int, ring: int, *, again: bool) -> int | None:
    """Pages of a round; None where a ring does not hold it."""
    if not lengths:
        return 0
    starts = in_ring(lengths, page, ring, again=again) if ring else [sum(lengths[:-1])]
    if starts is None:
        return None
    pages = -(-(starts[-1] + lengths[-1]) // page)
    return -(-pages // ring) * ring if again and ring else pages


def _aligned(n: float) -> int:
    return -(-int(n) // _ALIGN) * _ALIGN


def own_pages(lengths: Sequence[Sequence[int]], transfer: float, *, kept: bool) -> Paging:
    """A page for every chunk, of the length of the longest."""
    sizes = tuple(max(n, default=_ALIGN) for n in lengths)
    counts = tuple(map(len, lengths))
    cost = max(c * (s / 4 + transfer) for s, c in zip(sizes, counts, strict=True))
    return Paging(sizes, counts, 0 if kept else 2, cost, alone=True)


def pagings(lengths: Sequence[Sequence[int]], transfer: float, *, kept: bool, again: bool, room: int) -> list[Paging]:
    """Ways to lay streams into pages that take at most `room` bytes of a core and cost less than one page for every chunk; this
    one is the first, whatever room it takes. A page takes `transfer` cycles beside its words."""
    first = own_pages(lengths, transfer, kept=kept)
    sums = [sum(n) for n in lengths]
    if max(sums) / 4 > _WORTH * first.cost:
        return [first]
    found = [first]
    for made in _kept(lengths, transfer) if kept else _rings(lengths, transfer, again, room):
        if made.cost < _WORTH * first.cost and made.bytes <= room:
            found.append(made)
    return found


def _kept(lengths: Sequence[Sequence[int]], transfer: float) -> Iterator[Paging]:
    for count in _KEPT:
        sizes = [_aligned(max(sum(n) / count, _ALIGN)) for n in lengths]
        counts = [_pages(n, s, 0, again=False) or 0 for n, s in zip(lengths, sizes, strict=True)]
        cost = max(c * (s / 4 + transfer) for s, c in zip(sizes, counts, strict=True))
        yield Paging(tuple(sizes), tuple(counts), 0, cost)


def _rings(lengths: Sequence[Sequence[int]], transfer: float, again: bool, room: int) -> Iterator[Paging]:
    """Rings of as many bytes for the stream that has most; others have as many pages, which are smaller."""
    most = max(range(len(lengths)), key=lambda p: sum(lengths[p]))
    pairs = [max((a + b for a, b in pairwise([*n, n[0]] if again else n)), default=max(n)) for n in lengths if n]
    tried = set()
    for ring in _RINGS:
        for larger in _LARGER:
            page = _aligned(larger * (max(pairs) + _ALIGN) / max(1, ring - 1))
            if ring * page > room or (ring, page) in tried:
                continue
            tried.add((ring, page))
            count = _pages(lengths[most], page, ring, again=again)
            if count and count > _COUNTED and not again:
                count += count % 2  # so that they come two at a time into memory tiles that hold them all
            if count is not None and (made := _alike(lengths, page, ring, count, transfer, again)):
                yield made


def _alike(
    lengths: Sequence[Sequence[int]], page: int, ring: int, count: int, transfer: float, again: bool
) -> Paging | None:
    """Pages of all streams, as many of each."""
    sizes = []
    for n in lengths:
        least = _aligned(max(sum(n) / count, _ALIGN))
        step = max(_ALIGN, _aligned((page - least) / _TRIES))
        for size in (*range(least, page, step), page):
            pages = _pages(n, size, ring, again=again)
            if pages is not None and pages <= count:
                break
        else:
            return None
        sizes.append(size)
    counts = tuple(count if n else 0 for n in lengths)
    return Paging(tuple(sizes), counts, ring, count * (max(sizes) / 4 + transfer))
