"""Ways that are chosen together, against those that layers take first."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.byte_layer import ByteConv, chain_graph, conv_graph
from sparsec.backends.aie.lower.choose import candidates
from sparsec.backends.aie.lower.cost import estimate
from sparsec.backends.aie.lower.fitting import Fitting
from sparsec.backends.aie.lower.layer import ConvLayer
from sparsec.backends.aie.lower.modes import modes
from sparsec.backends.aie.lower.reading import conv_layer
from sparsec.backends.aie.lower.succession import Begins
from sparsec.backends.aie.lower.tiling import Tiling
from sparsec.backends.aie.machine import machine_named

NPU = machine_named("aie2:npu1")


def test_a_layer_that_is_cheaper_in_parts_by_itself_is_whole_where_that_is_cheaper_along_the_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """1,280 output channels, which are cheaper in parts by themselves if these count a fifth less; whole, their results stay."""
    convs = [ByteConv(0, 256, 3), ByteConv(1, 1280), ByteConv(2, 256)]
    graph = chain_graph(np.random.default_rng(8), 256, (14, 14), convs)
    fitting, usual = Fitting(graph, NPU, modes(NPU.grid)), Fitting._cycles
    monkeypatch.setattr(Fitting, "_cycles", lambda self, ways: 0.8 * usual(self, ways))
    first: list[tuple[Tiling, ...]] = []
    for node in graph.nodes:
        layer = conv_layer(graph, node)
        assert isinstance(layer, ConvLayer)
        ways = fitting.first(layer)
        assert not isinstance(ways, str)
        first.append(ways)
    assert [len(ways) for ways in first] == [1, 2, 1]
    alone = Fitting(graph, NPU, modes(NPU.grid), fitting.known)  # knows no way for the whole
    parts, chosen = alone.together({}, first), fitting.together({}, first)
    assert [len(ways) for ways in parts] == [1, 2, 1]
    assert [len(ways) for ways in chosen] == [1, 1, 1]
    assert fitting.cycles({}, [t for ways in chosen for t in ways]) < fitting.cycles({}, [t for ways in parts for t in ways])


@pytest.mark.parametrize(("channels", "size", "parts"), [(96, 112, 2), (96, 28, 1), (24, 112, 1)])
def test_a_depthwise_layer_is_made_in_parts_where_that_is_cheaper(channels: int, size: int, parts: int) -> None:
    """Every second row of 96 channels at 112 x 112: in halves of the channels, cores have room for two buffers of a row, where
    they have no channels of their own. Three blocks of channels have no halves."""
    rng, pads = np.random.default_rng(5), (1, 1, 1, 1)
    graph = conv_graph(rng, (channels, channels), (size, size), (3, 3), stride=2, pads=pads, depthwise=True)
    layer = conv_layer(graph, graph.nodes[0])
    assert isinstance(layer, ConvLayer)
    fitting = Fitting(graph, NPU, tuple(m for m in modes(NPU.grid) if not m.channelwise))
    ways = fitting.first(layer)
    assert not isinstance(ways, str)
    each = channels // 8 // parts
    assert [(t.layer.first_block, t.layer.output_blocks) for t in ways] == [(n * each, each) for n in range(parts)]
    whole = fitting._whole(layer)
    assert isinstance(whole, Tiling)
    assert whole in ways or sum(estimate(NPU, t).cycles for t in ways) < estimate(NPU, whole).cycles


def test_what_one_pair_of_ways_shows_is_known_of_others_of_their_shape() -> None:
    """How late a layer begins behind another one; the latest of what is seen counts."""
    graph = chain_graph(np.random.default_rng(3), 64, (14, 14), [ByteConv(i, 64) for i in range(3)])
    ways = []
    for node in graph.nodes:
        layer = conv_layer(graph, node)
        assert isinstance(layer, ConvLayer)
        ways.append(next(iter(candidates(NPU, layer, modes(NPU.grid), 14, 14))))
    fitting = Fitting(graph, NPU, modes(NPU.grid))
    first, second, third = ways
    assert fitting.begin_late([(first, second, Begins.WITHOUT_DATA)])
    assert not fitting.begin_late([(second, third, Begins.WITHOUT_DATA)]), "of the same shape, in the same ways"
    assert fitting.begin_late([(second, third, Begins.LATE)])
    assert not fitting.begin_late([(first, second, Begins.WITHOUT_WEIGHTS), (first, second, Begins.LATE)])
    assert fitting.begin_late([(first, replace(second, rows=second.rows + 1), Begins.WITHOUT_DATA)])
