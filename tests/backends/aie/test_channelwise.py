"""Depthwise layers whose cores have channels, and weights, of their own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from models.byte_layer import conv_graph
from sparsec.backends.aie.lower.choose import candidates
from sparsec.backends.aie.lower.control import LayerControl
from sparsec.backends.aie.lower.fitting import Fitting
from sparsec.backends.aie.lower.layer import ConvLayer
from sparsec.backends.aie.lower.layout import images_of
from sparsec.backends.aie.lower.modes import Cut, Mode, modes
from sparsec.backends.aie.lower.network import lower_with
from sparsec.backends.aie.lower.plan import kinds_of, plan_layer
from sparsec.backends.aie.lower.reading import layer_of
from sparsec.backends.aie.lower.shim_control import _joined, _Piece
from sparsec.backends.aie.lower.tile_control import Traffic
from sparsec.backends.aie.lower.tiling import Tiling
from sparsec.backends.aie.machine import Machine, machine_named
from sparsec.backends.aie.program import ArrayPart, ArrayProgram
from sparsec.backends.aie.registers import Kind, Tile
from sparsec.compiler.errors import InternalError
from sparsec.compiler.graph import Graph
from tests.backends.aie.bfloat16_layers import convolution
from tests.backends.aie.networks import check_run, compile_for

NPU = machine_named("aie2:npu1")


def _layer(graph: Graph) -> ConvLayer:
    layer = layer_of(graph, graph.nodes[0])
    assert isinstance(layer, ConvLayer)
    return layer


def _channelwise(machine: Machine) -> Mode:
    (mode,) = (m for m in modes(machine.grid) if m.channelwise)
    return mode


def _ways(graph: Graph, machine: Machine, fan: int) -> list[Tiling]:
    layer, (height, width) = _layer(graph), graph.types["y"].shape[2:]
    return list(candidates(machine, layer.fanned_channelwise(fan), (_channelwise(machine),), height, width))


def _depthwise(channels: int, size: int, stride: int = 1) -> Graph:
    rng = np.random.default_rng(channels + size)
    return conv_graph(rng, (channels, channels), (size, size), (3, 3), stride=stride, pads=(1, 1, 1, 1), depthwise=True)


def _cycles(program: ArrayProgram, graph: Graph, machine: Machine = NPU) -> int:
    run = check_run(program, graph, np.random.default_rng(1))
    return sum(layer.cycles for part in run.parts for layer in part.cycles(machine).layers)


def _part(program: ArrayProgram) -> ArrayPart:
    (part,) = program.parts
    assert isinstance(part, ArrayPart)
    return part


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_any_layer_is_exact(data: st.DataObject) -> None:
    """Any number of parts, which overlap where they do not divide the channels, with bands of their own, of whose last tiles
    only some rows are valid, on arrays of odd and even numbers of rows; pages differ in length where weights are pruned."""
    draw = data.draw
    machine = machine_named(draw(st.sampled_from(["aie2:2x2", "aie2:3x3", "aie2:4x4", "aie2:npu1"])))
    kernel = draw(st.integers(1, 5)), draw(st.integers(2, 5))
    pads = tuple(draw(st.integers(0, k - 1)) for k in (*kernel, *kernel))
    size = draw(st.integers(kernel[0], 24)), draw(st.integers(kernel[1], 24))
    channels, rng = draw(st.integers(9, 160)), np.random.default_rng(draw(st.integers(0, 999)))
    graph = conv_graph(
        rng,
        (channels, channels),
        size,
        kernel,
        stride=draw(st.integers(1, 2)),
        pads=pads,
        depthwise=True,  # type: ignore[arg-type]
    )
    if draw(st.booleans()):
        weights = graph.constants["w"].copy()
        weights[: channels // 2, :, 0] = 0
        graph = replace(graph, constants=graph.constants | {"w": weights})
    parts = _channelwise(machine).position_parts
    fan = draw(st.sampled_from([n for n in range(2, parts + 1) if parts % n == 0 and n <= -(-channels // 8)] or [0]))
    ways = _ways(graph, machine, fan) if fan else []
    assume(ways)
    check_run(lower_with(graph, machine, {graph.nodes[0].name: draw(st.sampled_from(ways))}), graph, rng)


@pytest.mark.parametrize(
    ("channels", "size", "stride", "fan"), [(576, 14, 1, 16), (200, 14, 1, 16), (32, 56, 1, 4), (96, 56, 2, 4), (144, 28, 1, 8)]
)
def test_a_layer_takes_less_time_with_channels_of_its_cores_own(channels: int, size: int, stride: int, fan: int) -> None:
    """As the compiler chooses by itself, and as it would without: rows come to cores of the other channels there."""
    graph = _depthwise(channels, size, stride)
    program, layer = compile_for(graph), _layer(graph)
    (plan,) = _part(program).plans
    assert (plan.layer.fan, plan.tiling.mode.channelwise) == (fan, True)
    whole = Fitting(graph, NPU, tuple(m for m in modes(NPU.grid) if not m.channelwise)).first(layer)
    assert not isinstance(whole, str)
    assert all(t.layer.fan == 1 for t in whole)
    assert _cycles(program, graph) < 0.85 * _cycles(lower_with(graph, NPU, {layer.node: whole}), graph)


def test_each_core_gets_weights_of_its_own_channels() -> None:
    """25 blocks of channels in 8 parts of 4, the last of which have some in common: products are counted once."""
    graph = _depthwise(200, 14)
    layer, way = _layer(graph), _ways(graph, NPU, 8)[0]
    firsts = [way.first_block(p) for p in range(16)]
    assert sorted(set(firsts)) == [0, 4, 8, 12, 16, 20, 21]
    assert [list(way.counts_of(p)) for p in range(16)] == [list(range(first, first + 4)) for first in firsts]
    assert {(way.first_block(p), way.first_row(p)) for p in range(16)} == {(f, r) for f in firsts for r in (0, 7)}
    assert (way.layer.macs(graph), way.layer.part_of(graph)) == (layer.macs(graph), None)
    plan = plan_layer(NPU, way, kinds_of(way))
    alike = [[plan.pages[p] == plan.pages[q] for p in range(16)] for q in range(16)]
    assert alike == [[p == q for p in firsts] for q in firsts]
    told = "in place of positions: positions over all cores, their own weights before data"
    assert way.told == f"channels in 8 parts, rows of each in 2 bands, {told}"
    assert _ways(graph, NPU, 16)[0].told == f"channels in 16 parts, {told}"


def test_no_other_layers_have_them() -> None:
    """Maxima, scaled bytes and sums with residuals share weights, and dense layers read all channels."""
    for graph in (
        conv_graph(np.random.default_rng(0), (64, 64), (14, 14), (3, 3), pads=(1, 1, 1, 1), depthwise=True, residual=True),
        conv_graph(np.random.default_rng(0), (64, 64), (14, 14), (3, 3), pads=(1, 1, 1, 1)),
        conv_graph(np.random.default_rng(0), (64, 64), (14, 14), (1, 1), depthwise=True),
    ):
        assert not any(plan.tiling.mode.channelwise for plan in _part(compile_for(graph)).plans)


def test_which_way_has_them() -> None:
    """That of positions over all cores: each stream brings one core's weights and data, and a column has two for results."""
    mode = _channelwise(NPU)
    assert (mode.cut, mode.weights_first, mode.weight_parts) == (Cut.POSITIONS, True, 16)
    assert [s.part for s in mode.weights()] == [mode.weight_part(s.memory.column, s.channel) for s in mode.weights()]
    assert {mode.leaving(c) for c in range(4)} == {2}


def test_bfloat16_has_them_too() -> None:
    rng = np.random.default_rng(2)
    graph = convolution(rng, (320, 320), (14, 14), (3, 3), pads=(1, 1, 1, 1), depthwise=True)
    program = compile_for(graph)
    assert [plan.tiling.mode.channelwise for plan in _part(program).plans] == [True]
    check_run(program, graph, rng)


def _control(graph: Graph, way: Tiling) -> LayerControl:
    images, _ = images_of(graph, [way], {})
    return LayerControl(NPU.grid, plan_layer(NPU, way, kinds_of(way)), Traffic.of(way.layer, images, 0))


def test_descriptors_serve_two_cores() -> None:
    """Of parts whose channels follow one another: a shim's for the data, and the results, of the two cores whose streams come
    through one channel, and a memory tile's for their weights, where pages are of one size."""
    graph = _depthwise(256, 14)
    ways = [t for t in _ways(graph, NPU, 16) if (t.tiles, t.rows) == (7, 2)]
    control = _control(graph, ways[0])
    shim, memory = Tile(0, 0), Tile(0, 1)
    assert NPU.grid.kind(shim) is Kind.SHIM
    assert sum(control.arrived[shim].values()) == 2 + 2  # data, weights
    assert sum(control.arrived[memory].values()) == 4 + 2
    weights = graph.constants["w"].copy()
    weights[:16, :, 1:] = 0  # the first core's page is shorter
    pruned = replace(graph, constants=graph.constants | {"w": weights})
    other = replace(ways[0], layer=_layer(pruned).fanned_channelwise(16))
    assert sum(_control(pruned, other).arrived[memory].values()) == 4 + 3


def test_pieces_of_an_image_that_follow_one_another_are_one() -> None:
    def pieces(*of: tuple[int, int, int, int]) -> list[_Piece]:
        return [_Piece(*p) for p in of]

    assert _joined(pieces((0, 3, 2, 4), (4, 3, 2, 1), (5, 3, 2, 2))) == pieces((0, 3, 2, 7))
    for apart in (pieces((0, 3, 2, 4), (5, 3, 2, 1)), pieces((0, 3, 2, 4), (4, 5, 2, 4)), pieces((0, 3, 2, 4), (4, 3, 1, 4))):
        assert _joined(apart) == apart
    steps = [_Piece(0, 0, 2, 4, step=2), _Piece(4, 0, 2, 4, step=2)]
    assert _joined(steps) == steps


def test_ways_make_all_channels_of_a_layer() -> None:
    graph = _depthwise(64, 14)
    (way, *_) = _ways(graph, NPU, 8)
    some = replace(way, layer=_layer(graph).part(0, 4).fanned_channelwise(4))
    message = "the ways of layer 'conv' make 4 of its 8 blocks of channels"
    with pytest.raises(InternalError, match=message):
        lower_with(graph, NPU, {"conv": some})
    with pytest.raises(InternalError, match=message):
        lower_with(graph, NPU, {"conv": (replace(way, layer=_layer(graph).part(4, 8).fanned_channelwise(4)),)})
