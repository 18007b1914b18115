"""Which results stay in memory tiles for the next layer, and which of them DDR needs as well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from sparsec.backends.aie.lower.circuits import keeps_way_out
from sparsec.backends.aie.lower.geometry import BFLOAT16, Window
from sparsec.backends.aie.lower.plan import LayerPlan
from sparsec.backends.aie.lower.tiling import LOCK_MAXIMUM, Tiling
from sparsec.backends.aie.lower.views import View
from sparsec.compiler.graph import Graph


def apart(before: Tiling, after: Tiling) -> str:
    """Why a layer's results cannot stay for the next one, "" where they can: it has to read them alone, position by position, in
    tiles of the same rows, from memory tiles that the results reach."""
    one, other = before.layer, after.layer
    whole = one.output_blocks == other.input_blocks and one.first_block == other.first_block == 0
    if other.x != one.y or one.y in (other.residual, other.computed and other.computed.value) or not whole:
        return "the next layer reads something else"
    if other.window != Window():
        return "the next layer reads rows or columns around each position"
    if one.element is not other.element or one.wide:
        return "the next layer reads other elements"
    if before.mode.chain > 1:
        return "sums go from core to core, and results to few"
    if before.mode.cut is not after.mode.cut or after.mode.chain > 1:
        return f"the next layer has {after.mode.told}"
    if before.rows != after.rows:
        return f"the next layer has tiles of {after.rows} rows"
    return _without_count(before, after)


def _without_count(before: Tiling, after: Tiling) -> str:
    """What descriptors and locks cannot count, or reach."""
    parts, blocks = before.mode.channel_parts, before.layer.output_blocks
    grid = before.mode.grid
    sent = {s.part: s.memory.column for s in before.mode.data()}
    if any(abs(c - sent[before.mode.parts(c, r)[0]]) > 1 for c in range(grid.columns) for r in range(grid.core_rows)):
        return "memory tiles reach only their neighbours"
    if blocks < parts:
        return "not all cores have results"
    if blocks % parts and before.tiles > 1:
        return "cores have unequal numbers of results in each tile"
    if before.most_results * before.tiles > LOCK_MAXIMUM or after.tiles * after.parts > LOCK_MAXIMUM:
        return "there are more of its parts than locks count"
    return ""


def only_next(graph: Graph, views: Mapping[str, View], before: Tiling, after: Tiling) -> bool:
    """Whether nobody but the next layer reads a layer's results. What is bfloat16 is always kept, as it is checked by layer."""
    y = before.layer.y
    if before.layer.element is BFLOAT16 or y in {p.value for p in graph.outputs}:
        return False
    shared = {v for view in views.values() for v in (*view.inputs, view.output)}
    return y not in shared and {n.name for n in graph.users[y]} == {after.layer.node}


def in_ddr_before(views: Mapping[str, View], before: Tiling, after: Tiling) -> bool:
    """Whether the data of a layer are in DDR when the layer before begins, and may come by themselves: residuals come between its
    tiles if there are several."""
    x = after.layer.x
    shared = {v for view in views.values() for v in (*view.inputs, view.output)}
    return x != before.layer.y and x not in shared and (after.layer.residual is None or after.tiles == 1)


def in_ddr_but_last(views: Mapping[str, View], before: Tiling, after: LayerPlan) -> bool:
    """Whether the first tiles of a layer's data, and their residual, are in DDR when the layer before has but the last tile of
    each part of the positions left to bring there."""
    one, other = before.layer, after.layer
    shared = {v for view in views.values() for v in (*view.inputs, view.output)}
    apart = one.fan == other.fan == 1 and other.computed is None and other.residual != one.y
    if other.x != one.y or other.x in shared or not apart or before.tiles == 1:
        return False
    late: set[int] = set()
    for part in range(before.mode.position_parts):
        first, valid = before.first_row(part), before.valid_rows(part)
        late |= {first + row for row in range((valid - 1) // before.rows * before.rows, valid)}
    t, stride = after.tiling, other.window.stride
    tiles = min(t.tiles, max(a.before for places in after.memory for a in places.arrivals))
    for part in range(t.mode.position_parts):
        first = t.first_row(part) * stride - other.window.pads[0]
        if not late.isdisjoint(range(first, first + (tiles - 1) * t.rows * stride + t.source.source_reach)):
            return False
    return True


def handed(graph: Graph, views: Mapping[str, View], before: Tiling, after: Tiling) -> tuple[str, bool]:
    """Why a layer's results cannot stay for the next one ("": they can), and whether they then leave the array as well."""
    why = apart(before, after)
    if why:
        return why, True
    leaves = not only_next(graph, views, before, after)
    if leaves and not keeps_way_out(before.mode, after.mode):
        return "they leave for DDR as well, through circuits that the next layer changes", True
    return "", leaves


def handed_over(graph: Graph, views: Mapping[str, View], tilings: Sequence[Tiling]) -> list[tuple[str, bool]]:
    """The same for each layer of a part."""
    last = [("it is the last layer of its part", True)] if tilings else []
    return [handed(graph, views, before, after) for before, after in pairwise(tilings)] + last
