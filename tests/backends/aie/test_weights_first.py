"""Weights that come before data, through the same streams, so that all columns have two channels for results; and data that are
parts of those of the layer before."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from models.byte_layer import ByteConv, chain_graph, conv_graph
from sparsec.backends.aie.lower.chaining import apart, parts_of_one
from sparsec.backends.aie.lower.choose import candidates
from sparsec.backends.aie.lower.cost import Context, estimate
from sparsec.backends.aie.lower.modes import Cut, Mode, modes
from sparsec.backends.aie.lower.network import lower_with
from sparsec.backends.aie.lower.prefetch import first_is_there, prefetched, taken
from sparsec.backends.aie.lower.reading import conv_layer
from sparsec.backends.aie.lower.tile_control import NONE_QUEUED
from sparsec.backends.aie.lower.tiling import Tiling
from sparsec.backends.aie.machine import machine_named
from sparsec.backends.aie.program import ArrayPart, ArrayProgram
from sparsec.compiler.graph import Graph
from tests.backends.aie.networks import check_run, first_lowered

NPU = machine_named("aie2:npu1")
FIRST = [m for m in modes(NPU.grid) if m.weights_first and not m.channelwise]


def _ways(graph: Graph, node: int, mode: Mode) -> list[Tiling]:
    layer = conv_layer(graph, graph.nodes[node])
    assert not isinstance(layer, str)
    return list(candidates(NPU, layer, (mode,), *graph.types[layer.y].shape[2:]))


def _part(program: ArrayProgram) -> ArrayPart:
    (part,) = program.parts
    assert isinstance(part, ArrayPart)
    return part


def _cut(cut: Cut) -> Mode:
    return next(m for m in modes(NPU.grid) if (m.cut, m.streams, m.chain, m.own) == (cut, 1, 1, False))


def test_which_ways_have_them() -> None:
    """Those in which each stream of data is one core's, and a column has several cores with results but one channel for these,
    as the other one is for weights."""
    assert [(m.cut, m.chain) for m in FIRST] == [(Cut.POSITIONS, 1), (Cut.HALVES, 2)]
    for mode in FIRST:
        usual = replace(mode, weights_first=False)
        assert {mode.leaving(c) for c in range(4)} == {2}
        assert min(usual.leaving(c) for c in range(4)) == 1
        assert all(len(s.cores) == 1 for s in mode.data())
        assert {(s.memory, s.channel) for s in mode.weights()} == {(s.memory, s.channel) for s in mode.data()}
        assert mode.told == f"{usual.told}, weights before data"


@settings(max_examples=10, deadline=None)
@given(
    mode=st.sampled_from(FIRST),
    kernel=st.sampled_from([1, 3]),
    stride=st.sampled_from([1, 2]),
    channels=st.tuples(st.sampled_from([16, 32, 64, 128]), st.sampled_from([32, 64, 128])),
    size=st.tuples(st.integers(16, 40), st.integers(8, 40)),
    number=st.integers(0, 999),
    density=st.sampled_from([0.5, 1.0]),
)
def test_any_layer_is_exact(
    mode: Mode, kernel: int, stride: int, channels: tuple[int, int], size: tuple[int, int], number: int, density: float
) -> None:
    rng = np.random.default_rng(number)
    graph = conv_graph(rng, channels, size, (kernel,) * 2, stride=stride, pads=(kernel // 2,) * 4, density=density)
    found = _ways(graph, 0, mode)
    assume(found)
    assert all(t.kept and t.paging.counts == (1,) * mode.weight_parts for t in found), "all weights of a core are one page"
    first = number % len(found)
    check_run(first_lowered(graph, [*found[first:], *found[:first]]), graph, rng)


def test_results_leave_sooner() -> None:
    """256 > 128 1x1 @56x56, whose results take as long as the data of two cores through one stream: the model knows, and weights
    count as what comes before the first data."""
    rng = np.random.default_rng(3)
    graph = conv_graph(rng, (256, 128), (56, 56), density=0.25)
    found = [t for t in _ways(graph, 0, FIRST[1]) if t.rows == 1]
    (first,) = found
    usual = replace(first, mode=replace(first.mode, weights_first=False))
    one, other = estimate(NPU, usual), estimate(NPU, first)
    assert other.ddr_out == one.ddr_out / 2
    assert other.weights == 0
    assert 0 < other.data - one.data == other.unit - one.unit < one.weights, "in one page"
    context = Context(here=True, follows=True, early=1e9)
    assert other.within(context) < 0.8 * one.within(context)


def test_weights_and_data_come_early_together_or_not_at_all() -> None:
    """Cores take weights first, so that data cannot come while weights have no place yet."""
    rng = np.random.default_rng(4)
    graph = chain_graph(rng, 32, (32, 20), [ByteConv(0, 64), ByteConv(1, 32)], density=0.5)
    one, other = _ways(graph, 0, FIRST[0]), _ways(graph, 1, FIRST[0])
    found = set()
    for a in [t for t in one if t.rows == 1][:2]:
        for b in other[:6]:
            program = lower_with(graph, NPU, {a.layer.node: a, b.layer.node: b})
            plans = _part(program).plans
            early = prefetched(*plans, here=False)
            found.add((early[:2], taken(a, b, early) != NONE_QUEUED))
            check_run(program, graph, rng)
    assert found <= {((True, True), True), ((False, False), False)}
    assert ((True, True), True) in found


def test_parts_of_one() -> None:
    """Parts of the positions of HALVES are halves of those of BOTH, and those of POSITIONS quarters, if bands are whole tiles."""
    rng = np.random.default_rng(5)
    graph = chain_graph(rng, 32, (32, 12), [ByteConv(0, 64), ByteConv(1, 64)])
    both = {t.rows: t for t in _ways(graph, 0, _cut(Cut.BOTH)) if t.splits == 1 and t.buffers == 2}
    halves, positions = ({t.rows: t for t in _ways(graph, 1, _cut(c)) if t.splits == 1} for c in (Cut.HALVES, Cut.POSITIONS))
    pairs = {t.rows: t for t in _ways(graph, 1, _cut(Cut.PAIRS)) if t.splits == 1}
    assert parts_of_one(both[1], halves[1]) == parts_of_one(both[2], halves[1]) == parts_of_one(both[4], halves[2]) == 2
    assert parts_of_one(both[1], positions[1]) == 4
    assert parts_of_one(both[3], halves[1]) == 0, "bands of 8 rows are no whole tiles of 3"
    assert parts_of_one(both[1], pairs[1]) == 0
    assert not apart(both[1], halves[1])
    assert first_is_there(both[1], both[1])
    assert first_is_there(both[1], halves[1]), "of 8 tiles 5, as results of a sixth fill buffers; 4 are before"
    assert not first_is_there(both[2], halves[1]), "of 4 tiles 2, which are all before"
    assert apart(both[3], halves[1]) == f"the next layer has {halves[1].mode.told}"


@pytest.mark.parametrize(
    ("cut", "rows", "then", "height", "stays"),
    [
        (Cut.BOTH, 1, FIRST[1], 24, True),
        (Cut.BOTH, 2, FIRST[1], 24, True),
        (Cut.BOTH, 1, FIRST[0], 32, True),
        (Cut.BOTH, 4, _cut(Cut.HALVES), 32, True),
        (Cut.HALVES, 1, FIRST[0], 32, True),
        (Cut.BOTH, 1, FIRST[1], 20, False),  # bands of 5 rows are no two of 3
    ],
)
def test_results_stay_for_parts_of_them(cut: Cut, rows: int, then: Mode, height: int, stays: bool) -> None:
    """Results in bands of columns are the data of halves and quarters of these, where they are, with a layer behind them."""
    rng = np.random.default_rng(rows)
    graph = chain_graph(rng, 32, (height, 13), [ByteConv(0, 128), ByteConv(1, 64), ByteConv(2, 32)], density=0.6)
    one = next(t for t in _ways(graph, 0, _cut(cut)) if t.rows == rows and t.splits == 1)
    two = next(t for t in _ways(graph, 1, then) if t.rows == 1 and t.splits == 1)
    three = next(t for t in _ways(graph, 2, _cut(Cut.BOTH)) if t.splits == 1)
    program = lower_with(graph, NPU, {t.layer.node: t for t in (one, two, three)})
    assert _part(program).staying[0].stays is stays
    check_run(program, graph, rng)
