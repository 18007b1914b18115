from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsec.backends.aie.descriptor_forms import OWN_WORDS
from sparsec.backends.aie.descriptors import (
    CLASSES,
    PADDING,
    Acquire,
    Axi,
    CoreDescriptor,
    Descriptor,
    Dim,
    Iteration,
    MemoryDescriptor,
    Packet,
    Pad,
    Release,
    ShimDescriptor,
    check_channel_descriptor,
)
from sparsec.backends.aie.registers import DMAS, Kind
from sparsec.compiler.errors import FitError, StreamError, UsageError

STEP = {Kind.CORE: 13, Kind.MEMORY: 17, Kind.SHIM: 20}  # bits
WRAP = {Kind.CORE: 8, Kind.MEMORY: 10, Kind.SHIM: 10}
LENGTH = {Kind.CORE: 14, Kind.MEMORY: 17, Kind.SHIM: 32}


def signed_values() -> st.SearchStrategy[int]:
    return st.integers(-64, 63).filter(bool)


@st.composite
def descriptors(draw: st.DrawFn, kind: Kind) -> Descriptor:
    def number(high: int, low: int = 0) -> int:
        return draw(st.one_of(st.sampled_from([low, high]), st.integers(low, high)))

    dims = tuple(
        Dim(number(1 << STEP[kind], 1), number((1 << WRAP[kind]) - 1, 1)) for _ in range(3 if kind is Kind.MEMORY else 2)
    )
    dims += (Dim(number(1 << STEP[kind], 1)),)
    wrap = number(64, 1)
    locks, count = DMAS[kind].locks, DMAS[kind].descriptors
    acquire = st.one_of(
        st.builds(Acquire, st.integers(0, locks - 1), st.integers(1, 64)),
        st.builds(Acquire, st.integers(0, locks - 1), st.integers(0, 63), st.just(False)),
    )
    more: dict[str, Any] = {}
    if kind is Kind.SHIM:
        more["axi"] = Axi(number(3), number(15), number(15), number(15), draw(st.booleans()))
    else:
        more["compression"] = draw(st.booleans())
    if kind is Kind.MEMORY:
        more["padding"] = tuple(Pad(number(high), number(high)) for high in (63, 31, 15))
    bases = {Kind.CORE: 16383, Kind.MEMORY: 3 * OWN_WORDS - 1, Kind.SHIM: (1 << 46) - 1}
    return CLASSES[kind](
        base=number(bases[kind]) * (4 if kind is Kind.SHIM else 1),
        length=number((1 << LENGTH[kind]) - 1),
        dims=dims,
        iteration=Iteration(number(1 << STEP[kind], 1), wrap, number(wrap - 1)),
        acquire=draw(st.none() | acquire),
        release=draw(st.none() | st.builds(Release, st.integers(0, locks - 1), signed_values())),
        next=draw(st.none() | st.integers(0, count - 1)),
        valid=draw(st.booleans()),
        packet=draw(st.none() | st.builds(Packet, st.integers(0, 31), st.integers(0, 7))),
        out_of_order=number(63),
        tlast_suppress=draw(st.booleans()),
        **more,
    )


@pytest.mark.parametrize("kind", Kind)
@given(st.data())
def test_words_are_read_back(kind: Kind, data: st.DataObject) -> None:
    made = data.draw(descriptors(kind))
    words = made.encode()
    assert len(words) == DMAS[kind].words and all(0 <= w < 1 << 32 for w in words)
    assert CLASSES[kind].decode(words) == made


def test_a_memory_descriptor_that_mlir_aie_publishes() -> None:
    words = (0x00000001, 0x00580002, 0x000C0005, 0x00100007, 0x00000009, 0x00000000, 0x059A000C, 0x84038201)
    expected = MemoryDescriptor(
        base=2,
        length=1,
        dims=(Dim(6, 6), Dim(8, 8), Dim(10)),
        iteration=Iteration(13, 14, 11),
        acquire=Acquire(1, 2, at_least=False),
        release=Release(3, 4),
        next=5,
    )
    assert expected.encode() == words
    assert MemoryDescriptor.decode(words) == expected


def test_a_core_descriptor_by_hand() -> None:
    made = CoreDescriptor(
        base=0x1000 // 4,
        length=1024,
        dims=(Dim(1, 8), Dim(32, 16), Dim(8)),
        iteration=Iteration(step=512, wrap=3, current=2),
        acquire=Acquire(5, 1),  # -1 in 7 bits is 0x7f
        release=Release(6, 1),
        next=7,
        packet=Packet(id=9, type=2),
        compression=True,
    )
    assert made.encode() == (
        0x400 << 14 | 1024,
        1 << 31 | 1 << 30 | 9 << 19 | 2 << 16,
        31 << 13 | 0,
        16 << 21 | 8 << 13 | 7,
        2 << 19 | 2 << 13 | 511,
        7 << 27 | 1 << 26 | 1 << 25 | 1 << 18 | 6 << 13 | 1 << 12 | 0x7F << 5 | 5,
    )


def test_a_shim_descriptor_by_hand() -> None:
    made = ShimDescriptor(base=0x1234_5678_9ABC, length=4096, dims=(Dim(1, 64), Dim(256, 16), Dim(64)), release=Release(15, -2))
    assert made.encode() == (
        4096,
        0x5678_9ABC,
        0x1234,
        64 << 20,
        2 << 30 | 16 << 20 | 255,
        2 << 24 | 63,
        0,
        1 << 25 | (-2 & 0x7F) << 18 | 15 << 13,
    )


def walked(made: Descriptor, pads: tuple[Pad, ...]) -> list[int]:
    """The offsets by counting, as the register reference tells it."""
    extents = []
    for i, dim in enumerate(made.dims):
        pad = pads[i] if i < len(pads) else Pad()
        extents.append((dim, pad, range(pad.before + dim.wrap + pad.after) if dim.wrap else range(made.length)))
        if not dim.wrap:
            break
    found: list[int] = []
    for index in product(*(places for _, _, places in reversed(extents))):
        if len(found) == made.length:
            break
        places = [(i - pad.before, dim) for i, (dim, pad, _) in zip(reversed(index), extents, strict=True)]
        inside = all(0 <= place and (not dim.wrap or place < dim.wrap) for place, dim in places)
        found.append(sum(place * dim.step for place, dim in places) if inside else PADDING)
    return found


small = st.builds(Dim, st.integers(1, 9), st.integers(0, 4))


@given(st.lists(small, max_size=2), st.integers(1, 9), st.integers(0, 60))
def test_core_and_shim_walk_as_counted(dims: list[Dim], last: int, length: int) -> None:
    for kind in (Kind.CORE, Kind.SHIM):
        made = CLASSES[kind](8, length, (*dims, Dim(last)))
        assert made.offsets().tolist() == walked(made, ())
        base = 2 if kind is Kind.SHIM else 8
        assert made.addresses().tolist() == [base + o for o in walked(made, ())]


@given(
    st.lists(st.builds(Dim, st.integers(1, 9), st.integers(1, 4)), min_size=3, max_size=3),
    st.lists(st.builds(Pad, st.integers(0, 2), st.integers(0, 2)), min_size=3, max_size=3),
    st.integers(1, 9),
    st.integers(0, 120),
)
def test_memory_tiles_walk_as_counted_with_zeros(dims: list[Dim], pads: list[Pad], last: int, length: int) -> None:
    made = MemoryDescriptor(OWN_WORDS, length, (*dims, Dim(last)), padding=tuple(pads))
    assert made.offsets().tolist() == walked(made, tuple(pads))


def test_zeros_around_an_image_are_those_of_numpy() -> None:
    rows, columns, channels = 5, 6, 4
    words = np.arange(rows * columns * channels).reshape(rows, columns, channels) + 1
    padded = np.pad(words, ((1, 2), (2, 1), (0, 3)))
    made = MemoryDescriptor(
        OWN_WORDS + 8,
        padded.size,
        (Dim(1, channels), Dim(channels, columns), Dim(channels * columns, rows)),
        padding=(Pad(0, 3), Pad(2, 1), Pad(1, 2)),
    )
    at = made.addresses()
    read = np.where(at == PADDING, 0, words.reshape(-1)[np.maximum(at - OWN_WORDS - 8, 0)])
    assert np.array_equal(read, padded.reshape(-1))
    assert at.dtype == np.int64


def test_zeros_before_a_line_without_wrap() -> None:
    made = MemoryDescriptor(OWN_WORDS, 5, padding=(Pad(2, 0),))
    assert made.offsets().tolist() == [PADDING, PADDING, 0, 1, 2]


def test_iterations_move_the_base_and_come_round() -> None:
    made = CoreDescriptor(100, 3, iteration=Iteration(step=10, wrap=3))
    firsts = []
    for _ in range(4):
        firsts.append(int(made.addresses()[0]))
        made = made.advanced()
    assert firsts == [100, 110, 120, 100]
    assert CoreDescriptor(0, 1).advanced() == CoreDescriptor(0, 1)


def test_offsets_are_shared_and_cannot_be_written() -> None:
    one, other = CoreDescriptor(0, 8, (Dim(1, 4), Dim(8))), CoreDescriptor(64, 8, (Dim(1, 4), Dim(8)), next=1)
    assert one.offsets() is other.offsets()
    with pytest.raises(ValueError, match="read-only"):
        one.offsets()[0] = 1


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (
            Kind.CORE,
            {"length": 1 << 14},
            "length of a core descriptor does not fit: it is 16384, the bound is 0 to 16383 words; split",
        ),
        (Kind.MEMORY, {"length": 1 << 17}, "length of a memory .* 131072, the bound is 0 to 131071 words"),
        (Kind.SHIM, {"length": 1 << 32}, "length of a shim descriptor"),
        (Kind.CORE, {"length": -1}, "length of a core descriptor does not fit: it is -1"),
        (Kind.CORE, {"base": 16384}, "base of a core .* bound is 0 to 16383 words; place the buffer inside"),
        (Kind.MEMORY, {"base": 3 * OWN_WORDS}, "base of a memory .* bound is 0 to 393215 words"),
        (Kind.SHIM, {"base": 6}, "base of a shim .* in steps of 4; align the buffer to 4 bytes"),
        (Kind.SHIM, {"base": 1 << 48}, "base of a shim"),
        (Kind.CORE, {"dims": (Dim(0),)}, "d0 step of a core .* it is 0, the bound is 1 to 8192 words"),
        (Kind.CORE, {"dims": (Dim(), Dim(8193))}, "d1 step of a core .* it is 8193"),
        (Kind.CORE, {"dims": (Dim(1, 256),)}, "d0 wrap of a core .* it is 256, the bound is 0 to 255; split the dimension"),
        (Kind.MEMORY, {"dims": (Dim(1, 1024),)}, "d0 wrap of a memory .* bound is 0 to 1023"),
        (Kind.CORE, {"dims": (Dim(),) * 4}, "dimensions of a core .* it is 4, the bound is 3"),
        (
            Kind.CORE,
            {"dims": (Dim(1, 2), Dim(1, 2), Dim(1, 2))},
            "d2 wrap of a core .* outermost dimension never wraps; end it by",
        ),
        (Kind.MEMORY, {"iteration": Iteration(1, 65)}, "iteration wrap of a memory .* it is 65, the bound is 1 to 64"),
        (Kind.CORE, {"iteration": Iteration(8193, 2)}, "iteration step of a core .* bound is 1 to 8192 words"),
        (Kind.CORE, {"iteration": Iteration(1, 2, 2)}, "iteration current of a core .* it is 2, the bound is 0 to 1"),
        (
            Kind.CORE,
            {"acquire": Acquire(16)},
            "acquire lock of a core .* it is 16, the bound is 0 to 15; use a lock that the tile has",
        ),
        (Kind.MEMORY, {"release": Release(192)}, "release lock of a memory .* bound is 0 to 191"),
        (Kind.CORE, {"release": Release(0, 64)}, "release value of a core .* it is 64, the bound is -64 to 63"),
        (Kind.CORE, {"acquire": Acquire(0, 64, at_least=False)}, "acquire value of a core .* it is 64, the bound is -64 to 63"),
        (Kind.CORE, {"next": 16}, "next of a core .* it is 16, the bound is 0 to 15; use a descriptor that the tile has"),
        (Kind.MEMORY, {"next": 48}, "next of a memory .* bound is 0 to 47"),
        (Kind.CORE, {"packet": Packet(32)}, "packet id of a core .* bound is 0 to 31"),
        (
            Kind.MEMORY,
            {"dims": (Dim(1, 4),), "padding": (Pad(64),)},
            "d0 before of a memory .* bound is 0 to 63; split the padding",
        ),
        (Kind.SHIM, {"axi": Axi(burst=4)}, "burst of a shim .* bound is 0 to 3"),
    ],
)
def test_what_has_no_room_names_demand_bound_and_remedy(kind: Kind, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(FitError, match=message):
        CLASSES[kind](**{"base": 0, "length": 4, **arguments})


def test_what_means_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="the acquire of lock 3 waits for at least 0: expected 1 or more"):
        CoreDescriptor(0, 4, acquire=Acquire(3, 0))
    with pytest.raises(UsageError, match="the release of lock 3 gives 0"):
        CoreDescriptor(0, 4, release=Release(3, 0))
    for padding in ((Pad(0, 1),), (Pad(), Pad(1, 0))):
        with pytest.raises(UsageError, match="dimension 0 of a memory descriptor has no wrap, but zeros"):
            MemoryDescriptor(0, 4, padding=padding)


def test_a_walk_that_leaves_the_memory() -> None:
    inside = CoreDescriptor(16380, 4)
    assert inside.addresses()[-1] == 16383
    with pytest.raises(FitError, match="last word of a core descriptor does not fit: it is 16384, the bound is word 16383"):
        CoreDescriptor(16380, 5).addresses()
    with pytest.raises(FitError, match="last word"):
        CoreDescriptor(16380, 4, iteration=Iteration(1, 2, 1)).addresses()


@pytest.mark.parametrize("kind", Kind)
def test_bits_that_nothing_reads_are_refused(kind: Kind) -> None:
    words = CLASSES[kind](0, 4).encode()
    for word, bit in product(range(len(words)), range(32)):
        given = tuple(w ^ (1 << bit if i == word else 0) for i, w in enumerate(words))
        try:
            assert CLASSES[kind].decode(given).encode() == given
        except StreamError as exc:
            assert "bits" in str(exc) or "are not a descriptor" in str(exc)
    core_gaps = [(0, 28), (1, 0), (2, 26), (3, 29), (4, 25), (5, 17), (5, 4)]
    for word, bit in core_gaps if kind is Kind.CORE else []:
        with pytest.raises(
            StreamError, match=f"word {word} of a core descriptor has bits {1 << bit:#x} set, which nothing reads"
        ):
            CoreDescriptor.decode(tuple(w | (1 << bit if i == word else 0) for i, w in enumerate(words)))


def test_words_that_are_no_descriptor() -> None:
    with pytest.raises(StreamError, match="a core descriptor has 6 words, not 8"):
        CoreDescriptor.decode((0,) * 8)
    with pytest.raises(StreamError, match="are not a descriptor: next of a memory descriptor does not fit: it is 48"):
        MemoryDescriptor.decode((4, 48 << 20 | 1 << 19, 0, 0, 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("kind", "channel", "low", "high"),
    [(Kind.CORE, 1, 0, 15), (Kind.SHIM, 0, 0, 15), (Kind.MEMORY, 4, 0, 23), (Kind.MEMORY, 5, 24, 47)],
)
def test_channels_run_descriptors_of_their_half(kind: Kind, channel: int, low: int, high: int) -> None:
    check_channel_descriptor(kind, channel, low)
    check_channel_descriptor(kind, channel, high)
    for outside in (low - 1, high + 1):
        with pytest.raises(FitError, match=f"descriptor {outside}, the bound is descriptors {low} to {high}"):
            check_channel_descriptor(kind, channel, outside)


def test_the_line_tells_what_differs_from_the_defaults() -> None:
    made = MemoryDescriptor(
        16, 60, (Dim(1, 4), Dim(8)), Iteration(64, 2, 1), Acquire(64), Release(65, -1), 3, padding=(Pad(1, 2),), compression=True
    )
    assert str(made) == (
        "base 0x10, length 60, d0 4x1, d1 -x8, pad0 1+2, iteration 1 of 2x64, acquire 64 >= 1, release 65 -1, next 3, compressed"
    )
    assert str(CoreDescriptor(0, 1, valid=False)) == "base 0x0, length 1, invalid"
