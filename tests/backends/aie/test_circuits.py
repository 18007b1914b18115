"""The circuits of layers that follow one another: what registers say after each change, and what they leave as it was."""

from __future__ import annotations

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from sparsec.backends.aie.lower.circuits import Circuits, keeps_results, keeps_way_out
from sparsec.backends.aie.lower.modes import LEAVING, Cut, Mode, modes
from sparsec.backends.aie.machine import machine_named
from sparsec.backends.aie.registers import Kind, Tile
from sparsec.backends.aie.switch import Channel, Routing, circuits, route
from sparsec.backends.aie.transaction import BlockWrite, MaskWrite, Operation, Write

GRID = machine_named("aie2:npu1").grid
MODES = modes(GRID)


def _apply(values: dict[int, int], operations: list[Operation]) -> None:
    for op in operations:
        if isinstance(op, MaskWrite):
            values[op.address] = values.get(op.address, 0) & ~op.mask | op.value
        elif isinstance(op, BlockWrite):
            values |= {op.address + 4 * i: value for i, value in enumerate(op.values)}
        else:
            assert isinstance(op, Write)
            values[op.address] = op.value


def _ends(values: dict[int, int]) -> dict[Channel, set[Channel]]:
    found: dict[Channel, set[Channel]] = {}
    for circuit in circuits(GRID, values):
        found.setdefault(circuit.source, set()).add(circuit.destination)
    return found


def _mode(cut: Cut, streams: int = 1, chain: int = 1) -> Mode:
    return next(m for m in MODES if (m.cut, m.streams, m.chain) == (cut, streams, chain))


@settings(max_examples=25, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(st.lists(st.sampled_from(MODES), min_size=1, max_size=6))
def test_after_any_changes_streams_go_where_the_mode_wants_them(sequence: list[Mode]) -> None:
    """Each channel of the mode reaches its ends and no others; channels with circuits that were left on are none of its own, and
    reach nothing that the mode has."""
    values: dict[int, int] = {}
    made = Circuits(GRID)
    for mode in sequence:
        near, far = made.change(mode)
        _apply(values, near)
        _apply(values, far)
        found, wanted = _ends(values), {f.source: set(f.destinations) for f in mode.flows()}
        assert {source: ends for source, ends in found.items() if source in wanted} == wanted
        taken = {end for ends in wanted.values() for end in ends}
        assert not any(ends & taken for source, ends in found.items() if source not in wanted)


def test_the_same_mode_changes_nothing() -> None:
    made = Circuits(GRID)
    assert made.change(MODES[0]) != ([], [])
    assert made.change(MODES[0]) == ([], [])


@pytest.mark.parametrize("chain", [2, 4])
def test_circuits_of_results_stay_for_chains_and_behind_them(chain: int) -> None:
    """A chain has fewer results, and leaves the circuits of the others on: no switch on their way changes, there and back."""
    made = Circuits(GRID)
    plain, chained = _mode(Cut.PAIRS), _mode(Cut.PAIRS, chain=chain)
    values: dict[int, int] = {}
    for operations in made.change(plain):
        _apply(values, operations)
    results = {s: e for s, e in _ends(values).items() if GRID.kind(s.tile) is Kind.CORE}
    assert len(results) == 16
    for mode in (chained, plain):
        for operations in made.change(mode):
            _apply(values, operations)
        assert {s: e for s, e in _ends(values).items() if GRID.kind(s.tile) is Kind.CORE} == results


def test_what_leaves_goes_on_where_nothing_is_in_the_way() -> None:
    """The next mode may not use the second channel to DDR: its circuit stays on unless one of that mode's is in the way."""
    for before in MODES:
        for after in MODES:
            values: dict[int, int] = {}
            made = Circuits(GRID)
            for mode in (before, after):
                for operations in made.change(mode):
                    _apply(values, operations)
            out = {f.source: set(f.destinations) for f in before.flows() if GRID.kind(f.destinations[0].tile) is Kind.SHIM}
            assert all(source.index in LEAVING for source in out)
            kept = all(_ends(values).get(source) == ends for source, ends in out.items())
            assert kept == keeps_way_out(before, after), (before.told, after.told)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (_mode(Cut.PAIRS, chain=4), _mode(Cut.PAIRS)),
        (_mode(Cut.PAIRS), _mode(Cut.PAIRS, streams=4)),
        (_mode(Cut.HALVES), _mode(Cut.HALVES, streams=2)),
        (_mode(Cut.HALVES, streams=2), _mode(Cut.HALVES, chain=2)),
        (_mode(Cut.BOTH), _mode(Cut.CHANNELS)),
    ],
    ids=lambda m: f"{m.cut.name}-{m.streams}-{m.chain}",
)
def test_results_go_on_leaving_while_registers_are_written(before: Mode, after: Mode) -> None:
    """After every single write cores' results come where they came before, and out of memory tiles where that is said."""
    assert keeps_results(before, after)
    values: dict[int, int] = {}
    made = Circuits(GRID)
    for operations in made.change(before):
        _apply(values, operations)
    kinds = {Kind.CORE, Kind.MEMORY} if keeps_way_out(before, after) else {Kind.CORE}
    results = [f for f in before.flows() if GRID.kind(f.source.tile) in kinds and _out(f.destinations[0].tile)]
    routes = [r for r in route(GRID, before.flows(), route(GRID, before.common_flows()).routes).routes if r.flow in results]
    assert len(routes) == len(results) >= 4
    wanted = {w.address: values[w.address] for w in Routing(GRID, tuple(routes)).writes()}
    near, far = made.change(after)
    assert not near
    for op in far:
        _apply(values, [op])
        assert all(values[address] == value for address, value in wanted.items())


def _out(tile: Tile) -> bool:
    """Whether results come here."""
    return GRID.kind(tile) in (Kind.MEMORY, Kind.SHIM)
