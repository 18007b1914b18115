"""Chunks in pages: a core and a channel that follow locks and headers, without an array."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.backends.aie.lower.paging import Layout, Paging, own_pages, pagings

_TRANSFER = 35


@st.composite
def _streams(draw: st.DrawFn) -> list[list[int]]:
    """Bytes of chunks by stream: similar ones, or very different ones; of some streams none."""
    longest = draw(st.sampled_from([8, 40, 150]))
    sizes = st.integers(draw(st.sampled_from([3, longest // 2, longest])), longest).map(lambda n: 32 * n)
    counts = st.one_of(st.just(draw(st.integers(1, 40))), st.integers(1, 5))
    found = [draw(st.lists(sizes, min_size=n, max_size=n)) for n in draw(st.lists(counts, min_size=1, max_size=4))]
    return [*found, []] if draw(st.booleans()) else found


def _carry_out(lengths: Sequence[int], layout: Layout, page: int, held: int, rounds: int, *, kept: bool) -> None:
    """What the core's program does with the numbers, and a channel that brings pages as early as it may."""
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

    def here(chunk: int, at: int) -> None:
        assert ring[at // 32 : (at + lengths[chunk]) // 32] == [(chunk, k) for k in range(lengths[chunk] // 32)]

    def take(pages: int) -> None:
        nonlocal full
        bring()
        assert full >= pages, "nothing comes any more"
        full -= pages
        bring()

    at, wanted, before = 0, layout.first, None
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
            at = at + spot.onward if at + spot.onward != held * page else 0
            assert at < held * page or (turn, chunk) == (rounds - 1, len(lengths) - 1)
    free += before[2] if before else 0
    take(layout.rest)
    assert (brought, full, free) == (sent, 0, held - layout.pages if kept else held)


@settings(max_examples=200)
@given(lengths=_streams(), kept=st.booleans(), rounds=st.integers(1, 3), room=st.sampled_from([12_000, 40_000, 400_000]))
def test_cores_have_whole_chunks_when_they_need_them(lengths: list[list[int]], kept: bool, rounds: int, room: int) -> None:
    """Every way to lay chunks into pages, tightened or not: chunks are there when they are taken and until the next one is, all
    pages that come are taken, none is left in locks, and rounds are alike."""
    again = rounds > 1 and not kept
    ways = pagings(lengths, _TRANSFER, kept=kept, again=again, room=room)
    assert ways[0] == own_pages(lengths, _TRANSFER, kept=kept)
    for way in [*ways, *(w.tightened(lengths, again=again) for w in ways)]:
        assert way in ways[:1] or way.bytes <= room
        for part, own in enumerate(lengths):
            layout = way.layout(part, own, again=again)
            assert layout.pages == way.counts[part] and layout.starts[:1] in ((), (0,))
            if own:
                _carry_out(own, layout, way.sizes[part], way.held(part), rounds, kept=kept)


@given(count=st.integers(1, 40), size=st.integers(3, 150), kept=st.booleans(), again=st.booleans())
def test_chunks_of_one_length_are_a_page_each(count: int, size: int, kept: bool, again: bool) -> None:
    (way,) = pagings([[32 * size] * count] * 2, _TRANSFER, kept=kept, again=again and not kept, room=1 << 20)
    assert way == Paging((32 * size,) * 2, (count, count), 0 if kept else 2, way.cost, alone=True)
    assert {(s.onward, s.new, s.left) for s in way.layout(0, [32 * size] * count, again=again).spots} == {
        (32 * size, 1, int(not kept))
    }
