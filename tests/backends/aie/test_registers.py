import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsec.backends.aie.registers import (
    DMAS,
    LOCKS,
    NPU1,
    Direction,
    Grid,
    Kind,
    Tile,
    address,
    check_channel,
    describe,
    groups,
    parse_address,
    ports,
    register,
    register_address,
    register_name,
    split,
)
from sparsec.compiler.errors import FitError, StreamError, UsageError


@pytest.mark.parametrize(
    ("tile", "name", "expected"),
    [
        (Tile(0, 2), "bd0", 0x0021D000),
        (Tile(0, 2), "bd15.5", 0x0021D1F4),
        (Tile(3, 5), "s2mm1.queue", 0x0651DE0C),
        (Tile(3, 5), "mm2s0.ctrl", 0x0651DE10),
        (Tile(0, 2), "lock15", 0x0021F0F0),
        (Tile(1, 4), "core.control", 0x02432000),
        (Tile(1, 4), "data+0xfffc", 0x0240FFFC),
        (Tile(1, 4), "program+0x10", 0x02420010),
        (Tile(1, 1), "bd6", 0x021A00C0),
        (Tile(1, 1), "lock63", 0x021C03F0),
        (Tile(1, 1), "mm2s5.queue", 0x021A065C),
        (Tile(2, 0), "bd1.1", 0x0401D024),
        (Tile(2, 0), "s2mm0.queue", 0x0401D204),
        (Tile(2, 0), "mm2s0.queue", 0x0401D214),
        (Tile(2, 0), "mux", 0x0401F000),
        (Tile(2, 0), "slave.west0", 0x0403F128),
        (Tile(2, 0), "slave.trace0", 0x0403F158),
        (Tile(0, 3), "master.north0", 0x0033F034),
        (Tile(0, 1), "slave.north0", 0x001B0134),
    ],
)
def test_addresses_by_hand(tile: Tile, name: str, expected: int) -> None:
    assert register_address(NPU1, tile, name) == expected
    assert describe(NPU1, expected) == f"{NPU1.kind(tile).value}{tile}.{name}"


def test_npu1_has_shims_memory_tiles_and_cores_from_below() -> None:
    kinds = [NPU1.kind(Tile(0, row)) for row in range(NPU1.rows)]
    assert kinds == [Kind.SHIM, Kind.MEMORY] + [Kind.CORE] * 4
    assert [t.row for t in NPU1.cores()] == [2] * 4 + [3] * 4 + [4] * 4 + [5] * 4
    assert Grid(8, 8, 2).kind(Tile(7, 2)) is Kind.MEMORY


@pytest.mark.parametrize("kind", Kind)
def test_registers_are_apart_and_every_word_has_its_own_name(kind: Kind) -> None:
    taken: set[int] = set()
    for group in groups(kind):
        assert group.source
        for i in range(group.count):
            words = set(range(group.base + i * group.stride, group.base + i * group.stride + group.size, 4))
            assert not taken & words and max(words) < 1 << 20
            taken |= words
    names = {offset: register_name(kind, offset) for offset in taken}
    assert len(set(names.values())) == len(names)
    assert all(register(kind, name) == offset for offset, name in names.items())


@pytest.mark.parametrize(("kind", "masters", "slaves"), [(Kind.SHIM, 22, 23), (Kind.MEMORY, 17, 18), (Kind.CORE, 23, 25)])
def test_switches_have_so_many_ports(kind: Kind, masters: int, slaves: int) -> None:
    assert (len(ports(kind, True)), len(ports(kind, False))) == (masters, slaves)
    assert DMAS[kind].locks % LOCKS[kind] == 0


@given(st.integers(0, 127), st.integers(0, 31), st.integers(0, (1 << 20) - 1))
def test_an_address_splits_into_what_it_was_made_of(column: int, row: int, offset: int) -> None:
    assert split(address(Tile(column, row), offset)) == (Tile(column, row), offset)


@given(st.integers(0, (1 << 32) - 1))
def test_any_address_is_read_back_from_its_text(at: int) -> None:
    assert parse_address(NPU1, describe(NPU1, at)) == at


@given(st.sampled_from(sorted(NPU1.tiles())), st.integers(0, (1 << 20) - 1))
def test_addresses_of_the_array_are_read_back_too(tile: Tile, offset: int) -> None:
    text = describe(NPU1, address(tile, offset))
    assert text.startswith(f"{NPU1.kind(tile).value}{tile}.")
    assert parse_address(NPU1, text) == address(tile, offset)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("core(0,2)", "is not an address: expected one as"),
        ("core(0,1).bd0", r"tile \(0,1\) is a memory tile"),
        ("core(4,2).bd0", r"there is no tile \(4,2\): the array has columns 0 to 3 and rows 0 to 5"),
        ("core(0,2).bd16", "a core tile has no register 'bd16'"),
        ("core(0,2).bd0.6", "a core tile has no register 'bd0.6'"),
        ("core(0,2).lock16", "a core tile has no register 'lock16'"),
        ("core(0,2).data+0x10000", "a core tile has no register"),
        ("shim(0,0).data+0x0", "a shim tile has no register"),
        ("memory(0,1).master.east0", "a memory tile has no register 'master.east0'"),
    ],
)
def test_addresses_that_are_none(text: str, message: str) -> None:
    with pytest.raises(StreamError, match=message):
        parse_address(NPU1, text)


def test_what_has_no_address() -> None:
    with pytest.raises(UsageError, match=r"tile \(0,2\) offset 0x100000 has no address"):
        address(Tile(0, 2), 1 << 20)
    with pytest.raises(UsageError, match="cannot be addressed: expected 1 to 128 columns"):
        Grid(4, 31)


def test_channels_that_a_tile_has_not() -> None:
    assert check_channel(NPU1, Tile(0, 1), Direction.MM2S, 5).descriptors == 48
    with pytest.raises(
        FitError, match=r"channel S2MM 2 of the core tile \(0,2\) does not fit: .* bound is 2 channels a direction"
    ):
        check_channel(NPU1, Tile(0, 2), Direction.S2MM, 2)
    with pytest.raises(
        FitError, match=r"shim \(1,0\) does not fit: .* bound is columns 2, 3; use a shim of one of these"
    ) as caught:
        check_channel(Grid(4, 4, shim_columns=(2, 3)), Tile(1, 0), Direction.S2MM, 0)
    assert caught.value.remedy == "use a shim of one of these"
