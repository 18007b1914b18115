"""Ways of layers that follow one another: the chosen path against others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from models.byte_layer import conv_graph
from sparsec.backends.aie.lower.chaining import Readers
from sparsec.backends.aie.lower.choose import ranked
from sparsec.backends.aie.lower.cost import ALONE, Context
from sparsec.backends.aie.lower.layer import ConvLayer, conv_layer
from sparsec.backends.aie.lower.modes import modes
from sparsec.backends.aie.lower.succession import Way, along
from sparsec.backends.aie.lower.tiling import Tiling
from sparsec.backends.aie.machine import machine_named

NPU = machine_named("aie2:npu1")


def _ways(channels: tuple[int, int], *, residual: bool = False) -> list[Way]:
    graph = conv_graph(np.random.default_rng(0), channels, (14, 14), (1, 1), shift=12, residual=residual)
    layer = conv_layer(graph, graph.nodes[0])
    assert isinstance(layer, ConvLayer)
    return [Way(NPU, t, cost) for cost, t in ranked(NPU, layer, modes(NPU.grid), 14, 14)]


def _never(_: Readers, __: Tiling, ___: Tiling, held: bool) -> bool:
    assert not held, "nothing can be held"
    return False


def _never_stays(_: Readers, __: Tiling, ___: Tiling, held: bool) -> bool:
    return False


def _next(count: int) -> list[Readers]:
    """Layers whose results the next one reads, and nobody else."""
    return [Readers(next=True, adder=-1, others=False)] * (count - 1) + [Readers(next=False, adder=-1, others=True)]


def test_the_first_layer_counts_by_itself() -> None:
    ways = _ways((128, 64))
    assert along([ways[::-1]], _next(1), _never) == [len(ways) - 1]
    assert along([], [], _never) == []


def test_results_stay_where_that_is_cheaper_than_the_cheapest_ways() -> None:
    """Of two ways of each layer, the second ones are a little dearer, but go together."""
    first, second = _ways((64, 256))[0], _ways((256, 64))[0]

    def dearer(way: Way) -> Way:
        return replace(way, tiling=replace(way.tiling, tight=True), cost=replace(way.cost, compute=way.cost.compute + 10))

    def stays(_: Readers, one: Tiling, other: Tiling, held: bool) -> bool:
        return one.tight and other.tight and not held

    layers: Sequence[Sequence[Way]] = [[first, dearer(first)], [second, dearer(second)]]
    assert along(layers, _next(2), stays) == [1, 1]
    assert along(layers, _next(2), _never) == [0, 0]


@pytest.mark.parametrize("room", [True, False])
def test_results_are_held_until_they_are_added(room: bool) -> None:
    """The last of three layers adds the first one's results. Both have a way that is cheaper by itself: the dearer ones, in which
    results can be held, are taken where memory tiles have room for these while the layer between runs."""
    first, middle, last = _ways((64, 256))[0], _ways((256, 64))[0], _ways((64, 256), residual=True)[0]
    free = NPU.memory.data_bytes

    def dearer(way: Way) -> Way:
        return replace(way, tiling=replace(way.tiling, tight=True), cost=replace(way.cost, late=way.cost.late + 10))

    def filled(way: Way) -> Way:
        made = Way(way.machine, way.tiling, way.cost)
        held = tuple({**h, "weights": h["weights"] if room else free} for h in way.held)
        made.__dict__["held"] = held
        return made

    layers = [[first, dearer(first)], [filled(middle)], [last, dearer(last)]]
    who = [Readers(next=True, adder=2, others=False), *_next(2)]
    assert along(layers, who, _never_stays, lambda one, other: one.tight and other.tight) == ([1, 0, 1] if room else [0, 0, 0])


def test_contexts_only_make_layers_cheaper() -> None:
    """Data or weights that are there, and results that stay, never cost; a layer by itself waits to be configured."""
    for way in _ways((256, 64)):
        found = [Context(here=here, early=early, follows=True) for here in (False, True) for early in (0.0, 500.0, 1e9)]
        found += [replace(context, added=True) for context in found]
        for context in found:
            assert way.cost.within(context) <= way.cost.within(ALONE)
            assert way.cost.within(replace(context, leaves=False)) <= way.cost.within(context)
        assert way.cost.within(found[2]) <= way.cost.within(found[0])
