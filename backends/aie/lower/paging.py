"""Pages of weights: how chunks of their own lengths lie in what DMA channels move.

A stream of weights is a core's chunks one behind the other, cut into pages of equal size, which is what descriptors move and
locks count. A core holds a ring of pages, in which no chunk goes on from the end to the begin. Before it begins with a chunk it
takes the pages that are new to it, and then gives back those in which nothing else is to come.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate, pairwise

_ALIGN = 32
_RINGS = (3, 4, 6)  # pages
_LARGER = (1.0, 1.3, 1.8, 2.6)  # than the least ring
_KEPT = (60, 40, 24, 16, 8)  # pages of weights that stay
_COUNTED = 60  # pages at most that come one at a time
_SEVERAL = (2, 4)  # chunks of one length in a page
_WORTH = 0.97  # of the cost of pages of a chunk each
_BETTER = 0.98  # of the cost of a smaller ring
_WORD = 4  # bytes of a cycle
_TRIES, _FEW = 24, 4  # sizes of pages


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a chunk is: `onward` bytes before the next one; how many pages are `new` to that one; and how many are `left` behind,
    since this one is the last in them."""

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
    def of(starts: Sequence[int], lengths: Sequence[int], page: int, pages: int, turn: int, *, kept: bool) -> Layout:
        """From where chunks are. A round goes on up to a multiple of `turn` pages."""
        if not starts:
            return Layout((), pages, 0, pages, ())
        last = [(at + n - 1) // page for at, n in zip(starts, lengths, strict=True)]
        behind = [*starts[1:], (starts[-1] // (turn * page) + 1) * turn * page]
        new = [b - a for a, b in pairwise([*last, pages + last[0]])]
        gone = [at // page for at in starts[1:]] + [pages]
        left = [b - a for a, b in pairwise([0, *gone])] if not kept else [0] * len(starts)
        spots = (Spot(b - a, n, m) for a, b, n, m in zip(starts, behind, new, left, strict=True))
        return Layout(tuple(starts), pages, last[0] + 1, pages - 1 - last[-1], tuple(spots))


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

    def held(self, part: int) -> int:
        """Pages that a core of a part holds."""
        return self.ring or max(1, self.counts[part])

    def tightened(self, lengths: Sequence[Sequence[int]], *, again: bool) -> Paging:
        """With the smallest pages that so many of are enough."""
        if self.alone or not self.ring:
            return self
        sizes = []
        for n, size, count in zip(lengths, self.sizes, self.counts, strict=True):
            sizes.append(_smallest(n, size, self.ring, count, again, _TRIES) or size)
        return replace(self, sizes=tuple(sizes))

    def layout(self, part: int, lengths: Sequence[int], *, again: bool) -> Layout:
        """Of a stream; `again`: rounds follow one another."""
        size, count = self.sizes[part], self.counts[part]
        if self.alone:
            starts: Sequence[int] | None = range(0, size * len(lengths), size)
        elif self.ring:
            starts = in_ring(lengths, size, self.ring, again=again)
        else:
            starts = list(accumulate(lengths, initial=0))[:-1]
        assert starts is not None
        turn = 1 if self.alone else self.ring or count
        return Layout.of(starts, lengths, size, count, turn, kept=not self.ring)


@dataclass
class Streams:
    """The bytes of the chunks of each stream, in their order."""

    lengths: list[list[int]]
    _known: dict[tuple[float, bool, bool, int, bool], list[Paging]] = field(default_factory=dict)

    @cached_property
    def longest(self) -> int:
        """Bytes of all chunks of the stream that has most."""
        return max(map(sum, self.lengths))

    def pagings(self, transfer: float, *, kept: bool, again: bool, room: int, several: bool = False) -> list[Paging]:
        """See `pagings`."""
        key = (transfer, kept, again, room, several)
        if key not in self._known:
            self._known[key] = pagings(self.lengths, transfer, kept=kept, again=again, room=room, several=several)
        return self._known[key]


def in_ring(lengths: Sequence[int], page: int, ring: int, *, again: bool) -> list[int] | None:
    """Where chunks begin that follow one another through a ring, in bytes of all that has come; None where they do not fit.

    While a core has a chunk it takes the next one: all pages from the first of one to the last of the other are in the ring. With
    `again`, the first chunk follows the last one, from the begin of the ring on.
    """
    whole, at, found = ring * page, 0, list[int]()
    turn = whole  # where the ring ends that `at` is in
    for i, length in enumerate(lengths):
        last = i + 1 == len(lengths)
        behind = lengths[0] if last and again else 0 if last else lengths[i + 1]
        if at + length + behind <= turn and not (last and again):
            found.append(at)
            at += length
            continue
        for place, end in ((at, turn), (turn - length, turn), (turn, turn + whole)) if found else ((0, turn),):
            if place < at or place + length > end or (found and (place + length - 1) // page - found[-1] // page >= ring):
                continue
            if place + length + behind <= end and not (last and again):
                break
            if (end + behind - 1) // page - place // page < ring:
                break
        else:
            return None
        found.append(place)
        at = place + length
        turn = end + whole if at == end else end
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
    cost = max(_cost(c, s, transfer) for s, c in zip(sizes, counts, strict=True))
    return Paging(sizes, counts, 0 if kept else 2, cost, alone=True)


def pagings(
    lengths: Sequence[Sequence[int]], transfer: float, *, kept: bool, again: bool, room: int, several: bool = False
) -> list[Paging]:
    """Ways to lay streams into pages that take at most `room` bytes of a core and cost less than one page for every chunk; this
    one is the first, whatever room it takes. A page takes `transfer` cycles beside its words. Chunks of one length may come
    `several` in a page."""
    first = own_pages(lengths, transfer, kept=kept)
    sums = [sum(n) for n in lengths]
    if len({length for n in lengths for length in n}) == 1 and several and not kept:
        return [first, *(p for p in _several(lengths, transfer) if p.bytes <= room)]
    if len({length for n in lengths for length in n}) == 1 or max(sums) / _WORD > _WORTH * first.cost:
        return [first]
    found = [first]
    for made in _kept(lengths, transfer) if kept else _rings(lengths, transfer, again, room):
        if made.cost < _WORTH * first.cost and made.bytes <= room:
            found.append(made)
    return found


def _several(lengths: Sequence[Sequence[int]], transfer: float) -> Iterator[Paging]:
    """Streams of as many chunks each, of one length, some of them in each of two pages."""
    counts = {len(n) for n in lengths if n}
    for some in _SEVERAL:
        if len(counts) == 1 and min(counts) % (2 * some) == 0:
            page, pages = some * max(map(max, filter(None, lengths))), min(counts) // some
            sizes, found = (page,) * len(lengths), tuple(pages if n else 0 for n in lengths)
            yield Paging(sizes, found, 2, _cost(pages, page, transfer))


def _kept(lengths: Sequence[Sequence[int]], transfer: float) -> Iterator[Paging]:
    for count in _KEPT:
        sizes = [_aligned(max(sum(n) / count, _ALIGN)) for n in lengths]
        counts = [_pages(n, s, 0, again=False) or 0 for n, s in zip(lengths, sizes, strict=True)]
        cost = max(_cost(c, s, transfer) for s, c in zip(sizes, counts, strict=True))
        yield Paging(tuple(sizes), tuple(counts), 0, cost)


def _rings(lengths: Sequence[Sequence[int]], transfer: float, again: bool, room: int) -> Iterator[Paging]:
    """Rings for the stream that has most, none of which is larger and costs more than another; others have as many pages, which
    are smaller."""
    most = max(lengths, key=sum)
    pairs = [max((a + b for a, b in pairwise([*n, n[0]] if again else n)), default=max(n)) for n in lengths if n]
    tried: list[tuple[int, float, int, int, int]] = []
    for ring in _RINGS:
        for larger in _LARGER:
            page = _aligned(larger * (max(pairs) + _ALIGN) / (ring - 1))
            count = _pages(most, page, ring, again=again) if ring * page <= room else None
            if count:
                if count > _COUNTED and not again:
                    count += count % 2  # so that they come two at a time into memory tiles that hold them all
                tried.append((ring * page, _cost(count, page, transfer), page, ring, count))
    least = float("inf")
    for _, cost, page, ring, count in sorted(tried):
        if cost < _BETTER * least and (made := _alike(lengths, page, ring, count, transfer, again)):
            least = cost
            yield made


def _alike(lengths: Sequence[Sequence[int]], page: int, ring: int, count: int, transfer: float, again: bool) -> Paging | None:
    """Pages of all streams, as many of each."""
    sizes, most = [], max(map(sum, lengths))
    for n in lengths:
        likely = _aligned(max(page * sum(n) / most, _ALIGN))
        size = likely if _enough(n, likely, ring, count, again) else _smallest(n, page, ring, count, again, _FEW)
        if size is None:
            return None
        sizes.append(size)
    counts = tuple(count if n else 0 for n in lengths)
    return Paging(tuple(sizes), counts, ring, _cost(count, max(sizes), transfer))


def _enough(lengths: Sequence[int], page: int, ring: int, count: int, again: bool) -> bool:
    """Whether so many pages hold a stream. With `again`, the first chunk comes right behind the ring that the last one is in."""
    pages = _pages(lengths, page, ring, again=again)
    return pages is not None and (pages == count if again and lengths else pages <= count)


def _smallest(lengths: Sequence[int], page: int, ring: int, count: int, again: bool, tries: int) -> int | None:
    """The smallest pages that so many of are enough, out of about so many sizes; None where not even `page` is."""
    least = _aligned(max(sum(lengths) / max(1, count), _ALIGN))
    step = _aligned(max(_ALIGN, (page - least) / tries))
    return next((size for size in (*range(least, page, step), page) if _enough(lengths, size, ring, count, again)), None)


def _cost(count: int, page: int, transfer: float) -> float:
    """Cycles until so many pages have come, the first one through two channels."""
    return count * (page / _WORD + transfer) + page / _WORD
