"""Arrays of which only some shims reach DDR: which columns compute, that values are exact there, and what the streams address."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.byte_layer import conv_graph
from sparsec.backends.aie.lower.modes import modes
from sparsec.backends.aie.machine import machine_named
from sparsec.backends.aie.mlir import device_number
from sparsec.backends.aie.part import Part, part_of, peak
from sparsec.backends.aie.program import ArrayPart
from sparsec.backends.aie.registers import Direction, Grid, Kind, Tile, register_name, split
from sparsec.backends.aie.switch import route
from sparsec.backends.aie.transaction import BlockWrite, MaskWrite, Patch, Sync, Write
from sparsec.compiler.graph import Graph, Port
from sparsec.compiler.interpreter import interpret
from tests.backends.aie.networks import compile_for, random_feeds, run_emitted

VE2802 = machine_named("aie2:ve2802")
SHIMS = (2, 3, 6, 7, 14, 15)


def _part() -> Part:
    part = part_of(VE2802.grid)
    assert part is not None
    return part


def test_six_columns_have_shims_within_reach() -> None:
    part = _part()
    assert (list(part.columns), part.shims, part.whole) == ([4, 5, 6, 7, 8, 9], SHIMS, False)
    assert set(part.cores()) == {Tile(c, r) for c in range(4, 10) for r in range(3, 7)}
    assert (peak(VE2802, "int8"), peak(VE2802, "bf16")) == (24 * 256, 24 * 128)
    assert peak(machine_named("aie2:8x8"), "int8") == 64 * 256


@pytest.mark.parametrize(("shims", "columns"), [((2, 3), 2), ((2, 3, 9, 10), 4), ((0, 37), 2), ((5,), 0), ((1, 2, 3, 4, 5), 5)])
def test_fewer_shims_serve_fewer_columns(shims: tuple[int, ...], columns: int) -> None:
    part = part_of(replace(VE2802.grid, shim_columns=shims))
    assert (part.grid.columns if part else 0) == columns
    assert part is None or part.grid.core_rows == min(4, columns)


@settings(max_examples=40)
@given(st.sets(st.integers(0, 13), min_size=2, max_size=5))
def test_wires_suffice_for_what_shims_serve(shims: set[int]) -> None:
    """All circuits of every cut, routed over the whole array."""
    grid = Grid(14, 4, 2, tuple(sorted(shims)))
    part = part_of(grid)
    assert part is not None
    assert set(part.shims) <= shims and list(part.shims) == sorted(set(part.shims))
    mode = modes(grid)[0]
    routing = route(grid, part.flows(mode.flows()))
    assert {r.flow.source.tile.column for r in routing.routes if r.flow.source.tile.row == 0} == set(part.shims)


def _two() -> Graph:
    """A 3 x 3 convolution with stride 2, and a block-sparse product of what it makes, with a residual."""
    rng = np.random.default_rng(5)
    first = conv_graph(rng, (24, 40), (26, 22), (3, 3), stride=2, pads=(1, 1, 1, 1))
    second = conv_graph(rng, (40, 64), (13, 11), density=0.5)
    names = {"x": "y", "w": "w2", "b": "b2", "y": "z"}
    node = replace(second.nodes[0], name="second", inputs=("y", "w2", "b2"), outputs=("z",))
    types = {**first.types, **{names[v]: t for v, t in second.types.items()}}
    constants = {**first.constants, **{names[v]: c for v, c in second.constants.items()}}
    return Graph("two", ("x",), (Port("z", "z"),), (*first.nodes, node), types, constants)


@pytest.mark.parametrize("graph", [conv_graph(np.random.default_rng(4), (40, 90), (17, 9), (3, 3), residual=True), _two()])
def test_what_ve2802_computes_is_exact(graph: Graph) -> None:
    program = compile_for(graph, VE2802.name)
    feeds = random_feeds(np.random.default_rng(3), graph)
    with tempfile.TemporaryDirectory() as folder:
        run = run_emitted(program, feeds, Path(folder))
        names = {p.name for p in Path(folder).glob("core_*.bin")}
    for name, expected in interpret(graph, feeds).items():
        assert np.array_equal(run.outputs[name], expected)
    cores = set(_part().cores())
    assert names == {f"core_{t.column}_{t.row}.bin" for t in cores}
    array = run.parts[0].finished.array
    assert {t for t, core in array.cores.items() if core.core.products} <= cores
    moved = {k[0] for k, c in array.channels.items() if len(c.timeline)}
    assert {t.column for t in moved if t.row == 0} == set(SHIMS)
    assert {t for t in moved if 0 < t.row} <= cores | {Tile(c, 1) for c in range(4, 10)}
    cycles = run.parts[0].cycles(VE2802)
    assert all(layer.cycles >= layer.bound[1] for layer in cycles.layers)
    assert "over 6,144 a cycle" in cycles.text() and "the whole array's peak is 77,824 a cycle" in cycles.text()


def test_streams_address_the_columns_and_rows_of_the_machine() -> None:
    (made,) = (p for p in compile_for(_two(), VE2802.name).parts if isinstance(p, ArrayPart))
    grid = made.control.grid
    assert (grid.columns, grid.core_rows, grid.memory_rows) == (38, 8, 2)
    used: dict[str, set[Tile]] = {}
    for op in made.control.operations:
        if isinstance(op, (Write, BlockWrite, MaskWrite, Patch)):
            tile, offset = split(op.address)
            kind = grid.kind(tile)
            data = kind is not Kind.SHIM and offset < (VE2802.memory if kind is Kind.MEMORY else VE2802.core).data_bytes
            name = "data" if data else register_name(kind, offset)
            what = "switch" if name.startswith(("master", "slave")) else "mux" if "mux" in name else kind.value
            used.setdefault(what, set()).add(tile)
    cores = set(_part().cores())
    assert used["core"] == cores
    assert used["memory"] == {Tile(c, 1) for c in range(4, 10)}
    assert used["shim"] == used["mux"] == {Tile(c, 0) for c in SHIMS}
    passing = used["switch"] - cores - used["memory"] - used["shim"]
    assert {Tile(c, 2) for c in range(4, 10)} <= passing and {Tile(c, 0) for c in (4, 5, *range(8, 14))} <= passing
    assert all(t.row in (0, 2) for t in passing)
    waits = {(op.tile.column, op.columns) for op in made.control.operations if isinstance(op, Sync) and op.tile.row == 0}
    assert waits <= {(2, 2), (6, 2), (14, 2), *((c, 1) for c in SHIMS)}


def test_one_wait_is_for_neighbours_only() -> None:
    part = _part()
    moved = part.moved([Sync(Tile(0, 0), Direction.S2MM, 1, columns=6), Sync(Tile(1, 3), Direction.MM2S, 0, columns=5, rows=4)])
    assert moved == [
        *(Sync(Tile(c, 0), Direction.S2MM, 1, columns=2) for c in (2, 6, 14)),
        Sync(Tile(5, 3), Direction.MM2S, 0, columns=5, rows=4),
    ]


def test_mlir_knows_the_machine() -> None:
    assert device_number(VE2802) == 3
