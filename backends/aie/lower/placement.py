"""Where layers lie in memory tiles so that the weights of one have places beside all that the layer before holds.

Layers take turns: one lies at the bottom of a memory tile, its neighbours at the top, the weights of each outermost.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate

from sparsec.backends.aie.lower.plan import LayerPlan, MemoryPlaces, data_streams, weight_streams
from sparsec.backends.aie.lower.tiling import Tiling


def placed(plan: LayerPlan, turn: int) -> LayerPlan:
    """A plan whose memory places are at the bottom in even turns, at the top in odd ones."""
    return replace(plan, memory=tuple(_placed(plan.tiling, c, places, turn) for c, places in enumerate(plan.memory)))


def _placed(tiling: Tiling, column: int, places: MemoryPlaces, turn: int) -> MemoryPlaces:
    weights, data, results = _sizes(tiling, column, places)
    whole = sum(weights) + sum(data) + sum(results)
    first = places.discarded - whole if turn % 2 else 0
    inner = first if turn % 2 else sum(weights)
    outer = places.discarded - sum(weights) if turn % 2 else 0
    return replace(
        places,
        weights=_one_after_another(outer, weights),
        data=_one_after_another(inner, data),
        results=_one_after_another(inner + sum(data), results),
    )


def _one_after_another(first: int, sizes: list[int]) -> tuple[int, ...]:
    return tuple(accumulate(sizes, initial=first))[: len(sizes)]


def _sizes(tiling: Tiling, column: int, places: MemoryPlaces) -> tuple[list[int], list[int], list[int]]:
    """Bytes of each stream of weights, each stream of data, and the results of each row of cores."""
    streams, mode = weight_streams(tiling, column), tiling.mode
    weights = [(places.slots or tiling.chunks(s.part)) * tiling.chunk_bytes for s in streams]
    tile = tiling.source_bytes + tiling.residual_source_bytes
    data = [places.ring * tile] * len(data_streams(tiling, column))
    blocks = [len(tiling.output_blocks(mode.parts(column, r)[1])) for r in range(mode.grid.core_rows)]
    return weights, data, [tiling.result_ring * n * tiling.stored_bytes for n in blocks]


def weights_beside(plan: LayerPlan, before: LayerPlan) -> bool:
    """Whether all weights of a layer have places beside those of the layer before."""
    for column, (own, theirs) in enumerate(zip(plan.memory, before.memory, strict=True)):
        held = sum(map(sum, _sizes(before.tiling, column, theirs)))
        if held + sum(_sizes(plan.tiling, column, own)[0]) > own.discarded:
            return False
    return True


def weights_before_data(plan: LayerPlan) -> bool:
    """Whether weights can come before all data: where both share a channel, cores or memory tiles have to take all of them
    without computing."""
    return all(plan.tiling.kept or not m.slots or not (a.data and a.weights) for m in plan.memory for a in m.arrivals)
