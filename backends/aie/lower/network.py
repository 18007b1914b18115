"""A whole graph for the array: images of all its values, a plan for every layer, a control stream for every segment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sparsec.backends.aie.core.program import PARAMETER_BYTES, Kind, core_program, core_text
from sparsec.backends.aie.lower.choose import ranked
from sparsec.backends.aie.lower.control import Circuits, LayerControl, Traffic, enable, joined
from sparsec.backends.aie.lower.geometry import Image
from sparsec.backends.aie.lower.modes import modes
from sparsec.backends.aie.lower.partition import ArraySegment, partition
from sparsec.backends.aie.lower.plan import kinds_of, plan_layer
from sparsec.backends.aie.lower.tiling import Tiling
from sparsec.backends.aie.machine import Machine
from sparsec.backends.aie.program import ArrayPart, ArrayProgram, HostPart
from sparsec.backends.aie.registers import Grid
from sparsec.backends.aie.transaction import Operation, Transaction
from sparsec.compiler.errors import FitError, InternalError, LimitError
from sparsec.compiler.graph import Graph

_ALIGN = 64


def lower(graph: Graph, machine: Machine) -> ArrayProgram:
    """The program of a graph that the passes have finished. FitError where a layer does not fit the array."""
    grid = machine.grid
    ways = modes(grid)
    if not ways:
        raise FitError(
            f"any layer on {machine.name}",
            demand=f"{machine.rows} rows of cores in {machine.columns} columns",
            bound="up to 4 rows, and as many columns: a memory tile takes the results of its column's cores, one channel each",
            remedy="compile for aie2:npu1 or a smaller square",
        )
    tilings: dict[str, Tiling] = {}
    for segment in partition(graph).segments:
        for layer in segment.layers if isinstance(segment, ArraySegment) else ():
            _, _, height, width = graph.types[layer.y].shape
            tilings[layer.node] = _first_that_fits(graph, machine, ranked(machine, layer, ways, height, width))
    return lower_with(graph, machine, tilings)


def _first_that_fits(graph: Graph, machine: Machine, tilings: Sequence[Tiling]) -> Tiling:
    """The best tiling whose transfers have descriptors enough. FitError of the last one where none has."""
    for tiling in tilings:
        images, _ = images_of(graph, [tiling])
        layer = tiling.layer
        traffic = Traffic(images[layer.x], images[layer.y], images[layer.residual] if layer.residual else None, 0)
        try:
            control = LayerControl(machine.grid, plan_layer(machine, tiling, kinds_of(tiling)), traffic)
            for _ in (*control.arrive(), *control.compute(0)):
                pass
        except (FitError, LimitError):
            if tiling is tilings[-1]:
                raise
        else:
            return tiling
    raise InternalError("no tilings to choose from")


def lower_with(graph: Graph, machine: Machine, tilings: Mapping[str, Tiling]) -> ArrayProgram:
    """The program with given tilings, by node. FitError where one does not fit."""
    grid = machine.grid
    cut = partition(graph)
    kinds = list(dict.fromkeys(k for t in tilings.values() for k in kinds_of(t)))
    images, size = images_of(graph, list(tilings.values()))
    parts: list[ArrayPart | HostPart] = []
    for segment in cut.segments:
        if isinstance(segment, ArraySegment):
            parts.append(_array_part(machine, grid, [tilings[s.node] for s in segment.layers], kinds, images))
        else:
            parts.append(HostPart(segment.graph))
    parameters = machine.core.data_bytes - 2 * PARAMETER_BYTES
    return ArrayProgram(
        graph.name,
        machine,
        graph,
        tuple(parts),
        cut.reasons,
        images,
        {t.layer.x: t.layer.zero for t in tilings.values()},
        size,
        core_program(kinds, parameters, machine.core.program_bytes) if kinds else b"",
        core_text(kinds, parameters) if kinds else "",
    )


def _array_part(
    machine: Machine, grid: Grid, tilings: Sequence[Tiling], kinds: Sequence[Kind], images: Mapping[str, Image]
) -> ArrayPart:
    weights = bytearray()
    circuits = Circuits(grid)
    plans, streams = [], []
    for turn, tiling in enumerate(tilings):
        plan = plan_layer(machine, tiling, kinds)
        layer = plan.layer
        residual = images[layer.residual] if layer.residual else None
        near, far = circuits.change(tiling.mode)
        control = LayerControl(grid, plan, Traffic(images[layer.x], images[layer.y], residual, len(weights)))
        made: list[Operation] = [*(enable(grid) if not turn else ()), *near, *control.arrive(), *far, *control.compute(turn)]
        weights += plan.weights
        plans.append(plan)
        streams.append(made)
    operations, ends = joined(streams)
    return ArrayPart(tuple(plans), Transaction(grid, operations), bytes(weights), (0, *ends))


def images_of(graph: Graph, tilings: Sequence[Tiling]) -> tuple[dict[str, Image], int]:
    """An image for every value of layers, with room for what tiles read around it; and the bytes of all."""
    around: dict[str, list[tuple[int, int, int, int]]] = {}  # rows above, columns left, rows and columns from the first on
    for t in tilings:
        layer, share = t.layer, t.source
        around.setdefault(layer.y, []).append((0, 0, t.height, t.width))
        above, left = layer.window.pads
        last = (t.mode.position_parts - 1) * t.band + (t.tiles - 1) * t.rows  # the first row of the last tile
        below = last * share.window.stride - above + share.source_rows
        around.setdefault(layer.x, []).append((above, left, below, share.source_columns - left))
        if layer.residual:
            around.setdefault(layer.residual, []).append((0, 0, last + share.residual_rows, share.residual_columns))
    images: dict[str, Image] = {}
    at = 0
    for value, needs in around.items():
        _, channels, rows, columns = graph.types[value].shape
        top, left = (max(n[i] for n in needs) for i in range(2))
        bottom, right = (max([extent, *(n[i] for n in needs)]) for i, extent in ((2, rows), (3, columns)))
        images[value] = Image(at, channels, rows, columns, top, left, top + bottom, left + right)
        at += -(-images[value].nbytes // _ALIGN) * _ALIGN
    return images, at
