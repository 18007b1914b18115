"""Ways of layers that follow one another: the chosen path against others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from models.byte_layer import conv_graph
from sparsec.backends.aie.lower.choose import ranked
from sparsec.backends.aie.lower.cost import ALONE, Context
from sparsec.backends.aie.lower.layer import ConvLayer, conv_layer
from sparsec.backends.aie.lower.modes import modes
from sparsec.backends.aie.lower.succession import Way, along
from sparsec.backends.aie.lower.tiling import Tiling
from sparsec.backends.aie.machine import machine_named

NPU = machine_named("aie2:npu1")


def _ways(channels: tuple[int, int]) -> list[Way]:
    graph = conv_graph(np.random.default_rng(0), channels, (14, 14), (1, 1), shift=12)
    layer = conv_layer(graph, graph.nodes[0])
    assert isinstance(layer, ConvLayer)
    return [Way(NPU, t, cost) for cost, t in ranked(NPU, layer, modes(NPU.grid), 14, 14)]


def _never(_: Tiling, __: Tiling) -> tuple[bool, bool]:
    return False, True


def test_the_first_layer_counts_by_itself() -> None:
    ways = _ways((128, 64))
    assert along([ways[::-1]], _never) == [len(ways) - 1]
    assert along([], _never) == []


def test_results_stay_where_that_is_cheaper_than_the_cheapest_ways() -> None:
    """Of two ways of each layer, the second ones are a little dearer, but go together."""
    first, second = _ways((64, 256))[0], _ways((256, 64))[0]

    def dearer(way: Way) -> Way:
        return replace(way, tiling=replace(way.tiling, tight=True), cost=replace(way.cost, compute=way.cost.compute + 10))

    def stays(one: Tiling, other: Tiling) -> tuple[bool, bool]:
        return one.tight and other.tight, False

    layers: Sequence[Sequence[Way]] = [[first, dearer(first)], [second, dearer(second)]]
    assert along(layers, stays) == [1, 1]
    assert along(layers, _never) == [0, 0]


def test_contexts_only_make_layers_cheaper() -> None:
    """Data or weights that are there, and results that stay, never cost; a layer by itself waits to be configured."""
    for way in _ways((256, 64)):
        found = [Context(here=here, early=early, follows=True) for here in (False, True) for early in (0.0, 500.0, 1e9)]
        for context in found:
            assert way.cost.within(context) <= way.cost.within(ALONE)
            assert way.cost.within(replace(context, leaves=False)) <= way.cost.within(context)
        assert way.cost.within(found[2]) <= way.cost.within(found[0])
