"""Circuits in mlir-aie's `aie` dialect: as flows, which mlir-aie routes itself, or as the connections of every switch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from sparsec.backends.aie.mlir_text import INDEX, Region, Value, i32, operation
from sparsec.backends.aie.registers import (
    DEMUX,
    MASTER_ENABLE,
    MASTER_SLAVE,
    MUX,
    MUX_DMA,
    SHIM_MASTER,
    SHIM_SLAVE,
    Grid,
    Kind,
    Port,
    Tile,
    ports,
    register_address,
)
from sparsec.backends.aie.switch import Circuit

_BUNDLES = {"core": 0, "dma": 1, "fifo": 2, "south": 3, "west": 4, "north": 5, "east": 6}  # WireBundle of AIEAttrs.td


def flow_lines(tiles: Mapping[Tile, Value], joined: Sequence[Circuit]) -> Iterator[str]:
    """An aie.flow for each source and destination."""
    for c in joined:
        ends = (Port("dma", c.source.index), Port("dma", c.destination.index))
        yield from operation("aie.flow", (tiles[c.source.tile], tiles[c.destination.tile]), _ends(*ends))


def switch_lines(grid: Grid, tiles: Mapping[Tile, Value], values: Mapping[int, int]) -> Iterator[str]:
    """The switches and shims' multiplexers as registers that hold `values` set them; `circuits` has checked these."""
    for tile, value in tiles.items():
        kind = grid.kind(tile)
        joined = [
            (ports(kind, False)[MASTER_SLAVE.get(held)], master)
            for master in ports(kind, True)
            if MASTER_ENABLE.get(held := values.get(register_address(grid, tile, f"master.{master}"), 0))
        ]
        yield from _switch(f"switchbox_{tile.column}_{tile.row}", "aie.switchbox", value, joined)
        if kind is Kind.SHIM:
            mux, demux = (values.get(register_address(grid, tile, name), 0) for name in ("mux", "demux"))
            joined = [(Port("dma", c), Port("north", p)) for c, p in SHIM_SLAVE.items() if MUX[p].get(mux) == MUX_DMA]
            joined += [(Port("north", p), Port("dma", c)) for c, p in SHIM_MASTER.items() if DEMUX[p].get(demux) == MUX_DMA]
            yield from _switch(f"shim_mux_{tile.column}_{tile.row}", "aie.shim_mux", value, joined)


def _switch(name: str, op: str, tile: Value, joined: Sequence[tuple[Port, Port]]) -> Iterator[str]:
    """A switch with its connections; nothing where it has none."""
    if joined:
        body = [line for ends in joined for line in operation("aie.connect", (), _ends(*ends))]
        yield from operation(op, (tile,), {}, Value(name, INDEX), Region([*body, *operation("aie.end")]))


def _ends(source: Port, destination: Port) -> dict[str, str]:
    return {
        "source_bundle": i32(_BUNDLES[source.bundle]),
        "source_channel": i32(source.index),
        "dest_bundle": i32(_BUNDLES[destination.bundle]),
        "dest_channel": i32(destination.index),
    }
