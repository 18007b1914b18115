"""Chunks in pages: a core and a channel that follow locks and headers, without an array."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.backends.aie.core.program import HEADER_BYTES
from sparsec.backends.aie.lower.page_sizes import Rates, Streams, own_pages, pagings
from sparsec.backends.aie.lower.paging import Chunks, Layout, Paging, in_ring, pages_of

_RATES = Rates(35, 8)


@st.composite
def _streams(draw: st.DrawFn) -> list[Chunks]:
    """Chunks by stream: similar ones, or very different ones, with more or less before their headers; of some streams none."""
    longest = draw(st.sampled_from([8, 40, 150]))
    sizes = st.integers(draw(st.sampled_from([3, longest // 2, longest])), longest).map(lambda n: 32 * n)
    leads = st.integers(0, draw(st.integers(0, 2))).map(lambda n: 32 * n)
    counts = st.one_of(st.just(draw(st.integers(1, 40))), st.integers(1, 5))
    found = [
        Chunks(*(tuple(draw(st.lists(each, min_size=n, max_size=n))) for each in (sizes, leads)))
        for n in draw(st.lists(counts, min_size=1, max_size=4))
    ]
    return [*found, Chunks((), ())] if draw(st.booleans()) else found


def _carry_out(chunks: Chunks, layout: Layout, page: int, held: int, rounds: int, *, kept: bool) -> None:
    """What the core's program does with the numbers, and a channel that brings pages as early as it may."""
    lengths, leads = chunks.lengths, chunks.leads
    stream: list[tuple[int, int] | None] = [None] * (layout.pages * page // 32)  # chunk and part of it, by 32 bytes
    for i, (at, n) in enumerate(zip(layout.starts, lengths, strict=True)):
        for k in range(n // 32):
            assert stream[at // 32 + k] is None
            stream[at // 32 + k] = (i, k)
    ring: list[tuple[int, int] | None] = [None] * (held * page // 32)
    free, full, brought, sent = held, 0, 0, layout.pages * (1 if kept else rounds)

    def bring() -> None:
        nonlocal free, full, brought
        while free and brought < sent:
            source, to = brought % layout.pages * page // 32, brought % held * page // 32
            ring[to : to + page // 32] = stream[source : source + page // 32]
            free, full, brought = free - 1, full + 1, brought + 1

    def here(chunk: int, head: int) -> None:
        at, before = (head - leads[chunk]) // 32, (leads[chunk] + HEADER_BYTES) // 32
        parts = range(lengths[chunk] // 32)
        assert ring[at : at + before] == [(chunk, k) for k in parts[:before]]  # which is not read as a ring
        assert [ring[(at + k) % len(ring)] for k in parts] == [(chunk, k) for k in parts]

    def take(pages: int) -> None:
        nonlocal full
        bring()
        assert full >= pages, "nothing comes any more"
        full -= pages
        bring()

    at, wanted, before = layout.lead, layout.first, None
    for turn in range(rounds):
        for chunk, spot in enumerate(layout.spots):
            if turn == 0 or not kept:
                take(wanted)
            here(chunk, at)
            if before is not None:
                here(*before[:2])  # its last products are still being stored, but nothing has overwritten it
                free += before[2]
            bring()
            here(chunk, at)
            before, wanted = (chunk, at, spot.left), spot.new
            at += spot.onward
            at -= held * page if at >= held * page else 0
            assert at < held * page or (turn, chunk) == (rounds - 1, len(lengths) - 1)
    free += before[2] if before else 0
    take(layout.rest)
    assert (brought, full, free) == (sent, 0, held - layout.pages if kept else held)


def _tightened(streams: list[Chunks], paging: Paging, room: int, *, again: bool) -> Paging:
    return Streams(streams).tightened(paging, _RATES, again=again, room=room, fits=lambda p: p.bytes <= room)


@settings(max_examples=200)
@given(streams=_streams(), kept=st.booleans(), rounds=st.integers(1, 3), room=st.sampled_from([12_000, 40_000, 400_000]))
def test_cores_have_whole_chunks_when_they_need_them(streams: list[Chunks], kept: bool, rounds: int, room: int) -> None:
    """Every way to lay chunks into pages, tightened or not, and in longer rings: chunks are there when they are taken and until
    the next one is, all pages that come are taken, none is left in locks, and rounds are alike."""
    again = rounds > 1 and not kept
    ways = pagings(streams, _RATES, kept=kept, again=again, room=room)
    assert ways[0] == own_pages(streams, _RATES, kept=kept)
    tight = [_tightened(streams, w, room, again=again) for w in ways[1:]]
    assert all(t.cost <= w.cost for t, w in zip(tight, ways[1:], strict=True))
    long = [Streams(streams).longest_ring(w, again=again, fits=lambda p: p.bytes <= room) for w in [*ways, *tight]]
    for way in [*ways, *tight, *long]:
        assert way in ways[:1] or way.bytes <= room
        for part, own in enumerate(streams):
            layout = way.layout(part, own, again=again)
            assert layout.pages == way.counts[part]
            if own.lengths:
                assert layout.lead == (own.leads[0] if kept and not way.alone else own.lead)
                _carry_out(own, layout, way.sizes[part], way.held(part), rounds, kept=kept)


@settings(max_examples=200)
@given(chunks=_streams().map(lambda s: s[0]), page=st.integers(8, 400), ring=st.integers(2, 6), again=st.booleans())
def test_a_ring_holds_two_chunks_wherever_they_meet(chunks: Chunks, page: int, ring: int, again: bool) -> None:
    """In rings of any size: chunks follow one another without a gap but where what is before blocks would go beyond the end of a
    turn; then the header is where the first one is. All pages from the first of a chunk to the last of the next are there."""
    page, whole = 32 * page, 32 * page * ring
    starts = in_ring(chunks, page, ring, again=again)
    pages = pages_of(chunks, page, ring, again=again)
    assert (starts is None) == (pages is None)
    if starts is None or pages is None:
        assert again or whole < 4 * max(chunks.lengths) + 2 * chunks.passed + 4 * page  # where it is not too small
        return
    assert pages * page >= starts[-1] + chunks.lengths[-1] and (not again or pages % ring == 0)
    behind = [*starts[1:], pages * page + chunks.lead - chunks.leads[0]] if again else starts[1:]
    following = [*chunks.lengths[1:], chunks.lengths[0]]
    assert starts[0] == chunks.lead - chunks.leads[0]
    for i, (at, then) in enumerate(zip(starts, behind, strict=False)):
        end = at + chunks.lengths[i]
        before = chunks.leads[(i + 1) % len(starts)] + HEADER_BYTES
        assert at // whole == (at + chunks.leads[i] + HEADER_BYTES - 1) // whole
        assert (then + following[i] - 1) // page - (at // page if i else 0) < ring  # with pages before the first one
        if then != end:
            assert then % whole + before == chunks.passed
            assert i == len(starts) - 1 or end // whole < (end + before - 1) // whole


def test_pages_before_the_first_chunk_are_in_the_ring_with_it() -> None:
    """Where a later chunk has more before its header than a page: six pages would do for both chunks alone."""
    chunks = Chunks((96, 96), (0, 32))
    assert (pages_of(chunks, 32, 6, again=False), pages_of(chunks, 32, 7, again=False)) == (None, 7)
    assert pages_of(Chunks((96, 96), (0, 0)), 32, 6, again=False) == 6


def _alike(size: int, lead: int, count: int) -> Chunks:
    return Chunks((32 * size + lead,) * count, (lead,) * count)


@given(count=st.integers(1, 40), size=st.integers(3, 150), lead=st.sampled_from([0, 32]), kept=st.booleans(), again=st.booleans())
def test_chunks_of_one_length_are_a_page_each(count: int, size: int, lead: int, kept: bool, again: bool) -> None:
    streams, page = [_alike(size, lead, count), _alike(size, 0, count)], 32 * size
    (way,) = pagings(streams, _RATES, kept=kept, again=again and not kept, room=1 << 20)
    assert way == Paging((page + lead, page), (count, count), 0 if kept else 2, way.cost, alone=True)
    assert {(s.onward, s.new, s.left) for s in way.layout(1, streams[1], again=again).spots} == {(page, 1, int(not kept))}


def test_what_is_passed_over() -> None:
    """24 chunks, of 8 of which a ring of 4 pages has room for: with 32 bytes less, blocks go on at the begin of the ring, and
    what is before them never does."""
    chunks = _alike(30, 0, 24)
    assert pages_of(chunks, 8 * 960 // 4, 4, again=False) == 12
    assert pages_of(chunks, 8 * 960 // 4 - 32, 4, again=False) == 13
    long = Chunks((960,) * 24, (128,) * 24)
    starts = in_ring(long, 8 * 960 // 4 + 32, 4, again=False)
    assert starts is not None and starts[8:10] == [8 * 960 + 128, 9 * 960 + 128]
    room = 9 * 960
    first = pagings([_alike(30, 0, 24), _alike(31, 0, 24)], _RATES, kept=False, again=False, room=room)[-1]
    tight = _tightened([chunks, _alike(31, 0, 24)], first, room, again=False)
    assert sum(n * size for n, size in zip(tight.counts, tight.sizes, strict=True)) <= 1.02 * 24 * (960 + 992)


def test_rings_are_as_long_as_fits() -> None:
    """Of the pages of the best ring as many are in a core as there is room for, and no more than a stream has."""
    streams = [Chunks(tuple((32 * np.random.default_rng(n).integers(60, 150, 16)).tolist()), (0,) * 16) for n in range(8)]
    first = pagings(streams, _RATES, kept=False, again=False, room=6 * 4800)[-1]
    tight = _tightened(streams, first, 6 * 4800, again=False)
    found = [Streams(streams).longest_ring(tight, again=False, fits=lambda p, n=n: p.bytes <= 4800 * n) for n in (6, 7, 10, 100)]
    assert all(0 < 4800 * n - p.bytes <= max(p.sizes) for n, p in zip((6, 7, 10), found, strict=False))
    assert found[-1].ring == max(found[-1].counts) > found[0].ring
