from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.backends.aie.registers import NPU1, Grid, Kind, Tile, register_address
from sparsec.backends.aie.switch import Channel, Circuit, Flow, Routing, circuits, masters_of, route
from sparsec.backends.aie.transaction import MaskWrite, Write
from sparsec.compiler.errors import FitError, StreamError, UsageError


def at(column: int, row: int, index: int) -> Channel:
    return Channel(Tile(column, row), index)


def held(writes: Iterable[Write | MaskWrite]) -> dict[int, int]:
    """Registers, all 0 before, after some writes."""
    values: dict[int, int] = {}
    for w in writes:
        values[w.address] = values.get(w.address, 0) & ~w.mask | w.value & w.mask if isinstance(w, MaskWrite) else w.value
    return values


def in_and_out(g: Grid) -> list[Flow]:
    """Both MM2S channels of every shim into its memory tile, one stream back, and the lowest four cores' outputs into it."""
    shims = [c for c in range(g.columns) if g.has_dma(Tile(c, 0))]
    inputs = [Flow(at(c, 0, i), (at(c, 1, 4 + i),)) for c in shims for i in (0, 1)]
    outputs = [Flow(at(c, g.first_core_row + k, 0), (at(c, 1, k),)) for c in range(g.columns) for k in range(min(4, g.core_rows))]
    return inputs + outputs + [Flow(at(c, 1, 5), (at(c, 0, 0),)) for c in shims]


def columns(g: Grid) -> list[Flow]:
    """Memory tile c to the first receiver of all cores above it."""
    return [Flow(at(c, 1, 0), tuple(at(c, r, 0) for r in range(g.first_core_row, g.rows))) for c in range(g.columns)]


def rows_of_their_own(g: Grid) -> list[Flow]:
    """Memory tile k to the second receiver of all cores of row k."""
    return [
        Flow(at(k, 1, 1), tuple(at(c, g.first_core_row + k, 1) for c in range(g.columns)))
        for k in range(min(g.columns, g.core_rows))
    ]


def rows_of_one(g: Grid) -> list[Flow]:
    """Four channels of the first memory tile to four rows."""
    return [
        Flow(at(0, 1, 1 + k), tuple(at(c, g.first_core_row + k, 1) for c in range(g.columns))) for k in range(min(4, g.core_rows))
    ]


def one_each(g: Grid) -> list[Flow]:
    """Memory tile c, channel k, to the first receiver of core k above."""
    return [Flow(at(c, 1, k), (at(c, g.first_core_row + k, 0),)) for c in range(g.columns) for k in range(min(4, g.core_rows))]


def all_cores(g: Grid) -> list[Flow]:
    """One memory tile to the second receiver of all cores."""
    return [Flow(at(g.columns // 2, 1, 4), tuple(Channel(t, 1) for t in g.cores()))]


CASES = {
    "columns and rows": lambda g: columns(g) + rows_of_their_own(g) + in_and_out(g),
    "columns, rows of one tile": lambda g: columns(g) + rows_of_one(g) + in_and_out(g),
    "one each, all": lambda g: one_each(g) + all_cores(g) + in_and_out(g),
}
GRIDS = [Grid(2, 2), NPU1, Grid(8, 8), Grid(8, 8, 2), Grid(6, 8, 2, (2, 3))]


def check(grid: Grid, flows: list[Flow]) -> Routing:
    """The routing joins what it should, and no port serves two flows."""
    made = route(grid, flows)
    joined = circuits(grid, held(made.writes()))
    assert Counter((c.source, c.destination) for c in joined) == Counter((f.source, d) for f in flows for d in f.destinations)
    masters = Counter((c.tile, c.master) for r in made.routes for c in r.connections)
    assert set(masters.values()) == {1}
    for c in (c for r in made.routes for c in r.connections):
        assert c.master in masters_of(grid.kind(c.tile), c.slave)
    return made


@pytest.mark.parametrize("grid", GRIDS, ids=lambda g: f"{g.columns}x{g.core_rows}+{g.memory_rows}")
@pytest.mark.parametrize("case", CASES)
def test_what_schedules_need_is_routed_at_once(grid: Grid, case: str) -> None:
    flows = CASES[case](grid)
    assert check(grid, flows) == route(grid, flows)


def test_registers_of_a_shims_input_by_hand() -> None:
    made = route(NPU1, [Flow(at(1, 0, 0), (at(1, 1, 4),))])
    shim, memory = 1 << 25, 1 << 25 | 1 << 20
    assert held(made.writes()) == {
        shim | 0x3F100 + 4 * 5: 0x80000000,  # slave port south 3, which the DMA drives
        shim | 0x3F000 + 4 * 12: 0x80000005,  # master port north 0
        memory | 0xB0100 + 4 * 7: 0x80000000,  # slave port south 0
        memory | 0xB0000 + 4 * 4: 0x80000007,  # master port DMA 4
        shim | 0x1F000: 0x400,
    }
    assert made.writes()[-1] == MaskWrite(shim | 0x1F000, 0x400, 0xC00)


def test_registers_of_a_shims_output_by_hand() -> None:
    made = route(NPU1, [Flow(at(0, 1, 5), (at(0, 0, 1),))])
    assert held(made.writes()) == {
        0x001B0100 + 4 * 5: 0x80000000,
        0x001B0000 + 4 * 7: 0x80000005,  # master port south 0
        0x0003F100 + 4 * 14: 0x80000000,  # slave port north 0
        0x0003F000 + 4 * 5: 0x8000000E,  # master port south 3, which drives channel 1
        0x0001F004: 0x40,
    }


def test_hops_count_the_switches_on_the_way() -> None:
    flows = [Flow(at(0, 1, 0), tuple(at(0, r, 0) for r in (2, 3, 5))), Flow(at(3, 5, 1), (at(0, 1, 2),))]
    joined = circuits(NPU1, held(route(NPU1, flows).writes()))
    assert [(c.destination.tile.row, c.hops) for c in joined if c.source == at(0, 1, 0)] == [(2, 2), (3, 3), (5, 5)]
    assert Circuit(at(3, 5, 1), at(0, 1, 2), 8) in joined


@given(st.permutations(sorted(NPU1.cores())), st.integers(0, 1), st.integers(0, 1))
def test_a_circuit_alone_takes_the_shortest_way(tiles: list[Tile], i: int, j: int) -> None:
    a, b = tiles[:2]
    (one,) = circuits(NPU1, held(route(NPU1, [Flow(Channel(a, i), (Channel(b, j),))]).writes()))
    assert one.hops == abs(a.column - b.column) + abs(a.row - b.row) + 1


def test_a_broadcast_shares_wires() -> None:
    (made,) = route(NPU1, [Flow(at(0, 1, 0), tuple(Channel(t, 0) for t in NPU1.cores()))]).routes
    assert len(made.connections) == 16 + 16  # into 16 receivers, and one wire into each core's switch


@given(st.data())
@settings(max_examples=30)
def test_any_few_circuits_are_joined_as_asked(data: st.DataObject) -> None:
    sources = [Channel(t, i) for t in NPU1.tiles() for i in range(6 if NPU1.kind(t) is Kind.MEMORY else 2)]
    used = data.draw(st.lists(st.sampled_from(sources), min_size=1, max_size=6, unique=True))
    ends = data.draw(st.lists(st.sampled_from(sources), min_size=len(used), max_size=12, unique=True))
    flows = [Flow(s, tuple(ends[i :: len(used)])) for i, s in enumerate(used)]
    check(NPU1, flows)


def test_a_core_may_send_to_its_own_channel_of_the_same_number() -> None:
    check(NPU1, [Flow(at(0, 2, 1), (at(0, 2, 1),))])


def outputs(grid: Grid, each: int) -> list[Flow]:
    return [Flow(at(c, 2 + k, 0), (at(c, 1, k),)) for c in range(grid.columns) for k in range(each)]


def test_more_outputs_than_wires_name_the_border() -> None:
    with pytest.raises(
        FitError, match=r"the routing into rows 0 to 1 does not fit: it is 40 circuits, the bound is 32 wires"
    ) as caught:
        route(Grid(8, 8), outputs(Grid(8, 8), 5))
    assert (caught.value.demand, caught.value.bound) == ("40 circuits", "32 wires that lead into it")
    assert "join streams" in caught.value.remedy


def test_outputs_of_a_full_column_go_round_by_others() -> None:
    check(Grid(8, 8), outputs(Grid(1, 8), 6))


def test_too_many_ends_in_a_column_of_one_are_refused() -> None:
    with pytest.raises(FitError, match="it is 5 circuits, the bound is 4 wires"):
        route(Grid(1, 8), outputs(Grid(1, 8), 5))


def test_ports_that_no_border_counts_are_refused_after_negotiation() -> None:
    grid = Grid(2, 4, 2)  # eight wires lead into the memory tiles and the shim of column 0 together
    into = [at(0, 2 - i // 6, i % 6) for i in range(9)]
    cores = [Channel(t, 0) for t in grid.cores()]
    check(grid, [Flow(c, (d,)) for c, d in zip(cores, into[:8], strict=True)])
    with pytest.raises(FitError, match=r"the routing at .* circuits out of its (south|west) side, the bound is 4 ports there"):
        route(grid, [Flow(c, (d,)) for c, d in zip([*cores[:7], at(1, 1, 0), at(1, 2, 0)], into, strict=True)])


@pytest.mark.parametrize(
    ("flows", "error", "message"),
    [
        ([Flow(at(0, 1, 0), ())], UsageError, r"the circuit from \(0,1\) channel 0 has no destination"),
        (
            [Flow(at(0, 1, 0), (at(0, 2, 0),)), Flow(at(0, 1, 0), (at(0, 3, 0),))],
            UsageError,
            "among the sources of circuits more",
        ),
        (
            [Flow(at(0, 1, 0), (at(0, 2, 0),)), Flow(at(0, 1, 1), (at(0, 2, 0),))],
            UsageError,
            "among the destinations of circuits",
        ),
        ([Flow(at(0, 1, 6), (at(0, 2, 0),))], FitError, r"channel MM2S 6 of the memory tile \(0,1\)"),
        ([Flow(at(0, 1, 0), (at(0, 2, 2),))], FitError, r"channel S2MM 2 of the core tile \(0,2\)"),
        ([Flow(at(0, 1, 0), (at(4, 2, 0),))], StreamError, r"there is no tile \(4,2\)"),
    ],
)
def test_flows_that_cannot_be(flows: list[Flow], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        route(NPU1, flows)


def register_of(tile: Tile, name: str) -> int:
    return register_address(NPU1, tile, name)


@pytest.mark.parametrize(
    ("tile", "name", "value", "message"),
    [
        (Tile(0, 2), "master.dma0", 0xC0000005, "core tile .0,2., master port dma0: it is set to packets"),
        (Tile(0, 2), "master.dma0", 0x80000085, "master port dma0: it has bits 0x80 set, which mean nothing for a circuit"),
        (Tile(0, 2), "master.dma0", 0x80000030, "its switch cannot feed it from slave port number 48"),
        (Tile(0, 2), "master.dma0", 0x80000002, "its switch cannot feed it from slave port dma1"),
        (Tile(0, 2), "master.dma0", 0x80000006, "slave port south1, which feeds it, is off"),
        (Tile(0, 2), "slave.south0", 0xC0000000, "slave port south0, which feeds it, is set to packets"),
        (
            Tile(0, 2),
            "master.dma0",
            0,
            r"the stream of \(0,1\) channel 0 ends at tile \(0,2\), slave port south0, which feeds nothing",
        ),
    ],
)
def test_registers_that_make_no_circuits(tile: Tile, name: str, value: int, message: str) -> None:
    values = held(route(NPU1, [Flow(at(0, 1, 0), (at(0, 2, 0),))]).writes())
    with pytest.raises(StreamError, match=message):
        circuits(NPU1, values | {register_of(tile, name): value})


def test_a_stream_that_runs_in_a_circle_is_refused() -> None:
    values = {}
    for tile, slave, number, master in (
        (Tile(0, 2), "dma0", 1, "east0"),
        (Tile(1, 2), "west0", 11, "north0"),
        (Tile(1, 3), "south0", 5, "west0"),
        (Tile(0, 3), "east0", 19, "south0"),
        (Tile(0, 2), "north0", 15, "east1"),
        (Tile(1, 2), "west1", 12, "dma0"),
    ):
        values[register_of(tile, f"slave.{slave}")] = 0x80000000
        values[register_of(tile, f"master.{master}")] = 0x80000000 | number
    assert circuits(NPU1, values) == (Circuit(at(0, 2, 0), at(1, 2, 0), 6),)
    values[register_of(Tile(0, 3), "master.north0")] = 0x80000000 | 19
    values[register_of(Tile(0, 4), "slave.south0")] = 0x80000000
    values[register_of(Tile(0, 4), "master.east0")] = 0x80000000 | 5
    values[register_of(Tile(1, 4), "slave.west0")] = 0x80000000
    values[register_of(Tile(1, 4), "master.south0")] = 0x80000000 | 11
    values[register_of(Tile(1, 3), "slave.north0")] = 0x80000000
    values[register_of(Tile(1, 3), "master.west0")] = 0x80000000 | 15
    with pytest.raises(StreamError, match=r"ends at|returns to"):
        circuits(NPU1, values)


def test_a_shim_whose_multiplexer_is_elsewhere_joins_nothing() -> None:
    values = held(route(NPU1, [Flow(at(0, 0, 1), (at(0, 1, 4),))]).writes())
    assert len(circuits(NPU1, values)) == 1
    values[register_of(Tile(0, 0), "mux")] = 0
    assert circuits(NPU1, values) == ()
    values = held(route(NPU1, [Flow(at(0, 1, 0), (at(0, 0, 0),))]).writes()) | {register_of(Tile(0, 0), "demux"): 0}
    with pytest.raises(StreamError, match=r"leaves the array at tile \(0,0\), master port south2"):
        circuits(NPU1, values)
