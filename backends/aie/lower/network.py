"""A whole graph for the array: images of all its values, a plan for every layer, a control stream for every segment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sparsec.backends.aie.core.program import core_program, core_text
from sparsec.backends.aie.lower.control import LayerControl, Traffic, prologue
from sparsec.backends.aie.lower.geometry import Image
from sparsec.backends.aie.lower.layer import ConvLayer
from sparsec.backends.aie.lower.partition import ArraySegment, partition
from sparsec.backends.aie.lower.plan import PARAMETER_BYTES, LayerPlan, kind_of, plan_layer, share_of
from sparsec.backends.aie.machine import Machine
from sparsec.backends.aie.program import ArrayPart, ArrayProgram, HostPart
from sparsec.backends.aie.registers import Grid
from sparsec.backends.aie.transaction import Operation, Transaction
from sparsec.compiler.graph import Graph

_ALIGN = 64


def lower(graph: Graph, machine: Machine) -> ArrayProgram:
    """The program of a graph that the passes have finished. FitError where a layer does not fit the array."""
    cut = partition(graph)
    layers = [layer for s in cut.segments if isinstance(s, ArraySegment) for layer in s.layers]
    kinds = list(dict.fromkeys(kind_of(layer) for layer in layers))
    images, size = _images(graph, layers, machine)
    grid = Grid(machine.columns, machine.rows, machine.memory_rows, machine.shim.columns)
    parts: list[ArrayPart | HostPart] = []
    for segment in cut.segments:
        if isinstance(segment, ArraySegment):
            plans = [plan_layer(machine, s, images[s.x], images[s.y], kinds.index(kind_of(s))) for s in segment.layers]
            parts.append(_array_part(grid, plans, images))
        else:
            parts.append(HostPart(segment.graph))
    parameters = machine.core.data_bytes - PARAMETER_BYTES
    return ArrayProgram(
        graph.name,
        machine,
        graph,
        tuple(parts),
        cut.reasons,
        images,
        {layer.x: layer.zero for layer in layers},
        size,
        core_program(kinds, parameters, machine.core.program_bytes) if layers else b"",
        core_text(kinds, parameters) if layers else "",
    )


def _array_part(grid: Grid, plans: Sequence[LayerPlan], images: Mapping[str, Image]) -> ArrayPart:
    weights = bytearray()
    operations: list[Operation] = [*prologue(grid)]
    ends = [len(operations)]
    for plan in plans:
        places = []
        for row in plan.chunks:
            places.append(len(weights))
            weights += b"".join(row)
        layer = plan.layer
        residual = images[layer.residual] if layer.residual else None
        operations += LayerControl(grid, plan, Traffic(images[layer.x], images[layer.y], residual, places)).operations()
        ends.append(len(operations))
    return ArrayPart(tuple(plans), Transaction(grid, tuple(operations)), bytes(weights), tuple(ends))


def _images(graph: Graph, layers: Sequence[ConvLayer], machine: Machine) -> tuple[dict[str, Image], int]:
    """An image for every value of layers, with room for what columns read around it; and the bytes of all."""
    around: dict[str, list[tuple[int, int, int, int]]] = {}  # rows above, columns left, rows and columns from the first on
    for layer in layers:
        _, _, rows, columns = graph.types[layer.y].shape
        around.setdefault(layer.y, []).append((0, 0, rows, columns))
        share = share_of(machine, layer, rows, columns)
        above, left = layer.window.pads
        first = (machine.columns - 1) * share.rows * share.window.stride - above
        around.setdefault(layer.x, []).append((above, left, first + share.source_rows, share.source_columns - left))
        if layer.residual:
            last = (machine.columns - 1) * share.rows
            around.setdefault(layer.residual, []).append((0, 0, last + share.residual_rows, share.residual_columns))
    images: dict[str, Image] = {}
    at = 0
    for value, needs in around.items():
        _, channels, rows, columns = graph.types[value].shape
        top, left = (max(n[i] for n in needs) for i in range(2))
        below, right = (max([extent, *(n[i] for n in needs)]) for i, extent in ((2, rows), (3, columns)))
        images[value] = Image(at, channels, rows, columns, top, left, top + below, left + right)
        at += -(-images[value].nbytes // _ALIGN) * _ALIGN
    return images, at
