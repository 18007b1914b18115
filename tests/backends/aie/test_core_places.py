"""Where things are in a core: within its memory, apart, and in banks of their own where there is room."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, permutations, product

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models.byte_layer import ByteConv, chain_graph, conv_graph
from sparsec.backends.aie.lower import network
from sparsec.backends.aie.lower.choose import candidates
from sparsec.backends.aie.lower.core_places import CorePlaces, Used, comes_beside, in_core, likely_places
from sparsec.backends.aie.lower.layer import ConvLayer
from sparsec.backends.aie.lower.modes import modes
from sparsec.backends.aie.lower.prefetch import places_along
from sparsec.backends.aie.lower.reading import conv_layer
from sparsec.backends.aie.lower.tiling import SUM_BYTES, Tiling
from sparsec.backends.aie.machine import Machine, machine_named
from sparsec.backends.aie.program import ArrayPart
from sparsec.compiler.errors import FitError
from tests.backends.aie.networks import check_run

NPU = machine_named("aie2:npu1")
BANK = NPU.core.data_bytes // NPU.core.data_banks


def _spans(t: Tiling, core: CorePlaces | None = None) -> dict[str, tuple[int, int]]:
    """First byte and end of what is in a core; what the first stores of a chunk write before results and sums is of these."""
    core, demand = core or in_core(NPU, t), t.core_demand
    spans = {
        f"data {i}": (core.data + i * core.data_step, core.data + i * core.data_step + t.unit_bytes) for i in range(t.buffers)
    }
    residual = core.residual - t.residual_lead  # words of other parts of it land in front of the first
    spans["residual"] = (residual, residual + demand["residual"])
    spans["weights"] = (core.weights, core.weights + demand["weights"])
    spans["results"] = (core.results - t.result_quad, core.results - t.result_quad + demand["results"])
    spans["parameters"] = (core.parameters, core.parameters + demand["parameters"])
    for i, at in enumerate(core.partial if t.half_sums else ()):
        spans[f"sums {i}"] = (at - SUM_BYTES // 2, at - SUM_BYTES // 2 + t.half_sums)
    return {name: span for name, span in spans.items() if span[1] > span[0]}


@settings(max_examples=15, deadline=None)
@given(
    channels=st.tuples(st.sampled_from([16, 32, 64, 256]), st.sampled_from([16, 64, 256])),
    size=st.tuples(st.integers(4, 30), st.integers(4, 30)),
    kernel=st.sampled_from([1, 3]),
    residual=st.booleans(),
    part=st.integers(0, 19),
)
@example(channels=(256, 16), size=(4, 17), kernel=3, residual=True, part=0)
def test_nothing_overlaps(channels: tuple[int, int], size: tuple[int, int], kernel: int, residual: bool, part: int) -> None:
    rng = np.random.default_rng(1)
    graph = conv_graph(rng, channels, size, (kernel,) * 2, pads=(kernel // 2,) * 4, residual=residual, density=0.5)
    layer = conv_layer(graph, graph.nodes[0])
    assert not isinstance(layer, str)
    for t in list(candidates(NPU, layer, modes(NPU.grid), *graph.types[layer.y].shape[2:]))[part::20]:
        try:
            spans = sorted(_spans(t).values())
        except FitError:
            continue
        assert all(end <= first for (_, end), (first, _) in pairwise(spans))
        assert spans[-1][1] <= NPU.core.data_bytes


@pytest.mark.parametrize(("channels", "kernel", "residual"), [((64, 64), 3, False), ((64, 256), 1, False), ((64, 256), 1, True)])
def test_what_is_loaded_and_what_comes_meanwhile_share_no_bank(channels: tuple[int, int], kernel: int, residual: bool) -> None:
    """Of layers that leave room: both buffers of data, the residual, weights that stay (half of a ring may share one), and
    results."""
    rng, pads = np.random.default_rng(2), (kernel // 2,) * 4
    graph = conv_graph(rng, channels, (56, 56), (kernel,) * 2, pads=pads, residual=residual, density=0.5)
    layer = conv_layer(graph, graph.nodes[0])
    assert not isinstance(layer, str)
    ways = [t for t in candidates(NPU, layer, modes(NPU.grid), 56, 56) if t.buffers == 2 and t.kept]
    roomy = [t for t in ways if sum(t.core_demand.values()) + (4 + residual) * BANK <= NPU.core.data_bytes]
    assert roomy
    for t in roomy[::10]:
        spans = _spans(t)
        names = ["data 0", "data 1", "weights", "results", *(["residual"] if residual else [])]
        banks = [set(range(spans[n][0] // BANK, (spans[n][1] - 1) // BANK + 1)) for n in names]
        assert len(set().union(*banks)) == sum(map(len, banks))


@settings(max_examples=25, deadline=None)
@given(
    first=st.tuples(st.sampled_from([64, 128, 256]), st.sampled_from([64, 256]), st.sampled_from([1, 3]), st.booleans()),
    then=st.tuples(st.sampled_from([64, 128, 256]), st.sampled_from([64, 256]), st.sampled_from([1, 3]), st.booleans()),
    part=st.tuples(st.integers(0, 999), st.integers(0, 999)),
)
def test_what_comes_early_meets_nothing_that_is_used(
    first: tuple[int, int, int, bool], then: tuple[int, int, int, bool], part: tuple[int, int]
) -> None:
    """Wherever a layer is put behind another one: things are within memory and apart, share no more banks than where they are
    usually, and what is said to come early is not where the layer before has something."""
    one, other = (_some(*layer, n) for layer, n in zip((first, then), part, strict=True))
    before = in_core(NPU, one)
    used = Used.of(one, before)
    there = {name: span for name, span in _spans(one, before).items() if name != "parameters"}
    for at in (None, used):
        core = next(likely_places(NPU, other, at))
        spans = _spans(other, core)
        ordered = sorted(spans.values())
        assert all(end <= begin for (_, end), (begin, _) in pairwise(ordered))
        assert ordered[0][0] >= 0
        assert ordered[-1][1] <= NPU.core.data_bytes
        assert spans["weights"][0] >= 32, "a step before the first chunk's is loaded, too"
        data, weights, residual = comes_beside(other, core, used)
        idle = f"data {one.units % 2}" if one.buffers == 2 else ""
        if data and one.buffers == 2:
            assert not any(_met(spans["data 0"], span) for name, span in there.items() if name != idle)
        if data and other.buffers == one.buffers == 2:
            assert not _met(spans["data 1"], there["results"])
        page = spans["weights"][0], spans["weights"][0] + max(other.page_bytes)
        if weights:
            assert not any(_met(page, span) for span in there.values())
        if residual and other.layer.residual:
            assert not any(_met(spans["residual"], span) for span in there.values())
    assert _shared(_spans(other, core)) <= _shared(_spans(other, in_core(NPU, other)))


@pytest.mark.parametrize("kernel", [1, 3])
def test_halves_of_a_ring_stay_apart(kernel: int) -> None:
    """One comes while the other is read: where they have banks of their own usually, they have in every other order."""
    rng, pads = np.random.default_rng(6), (kernel // 2,) * 4
    graph = conv_graph(rng, (512, 512), (7, 7), (kernel,) * 2, pads=pads, density=0.5)
    layer = conv_layer(graph, graph.nodes[0])
    assert not isinstance(layer, str)
    ways = [t for t in candidates(NPU, layer, modes(NPU.grid), 7, 7) if t.paging.ring and not t.half_sums]
    found = 0
    for t in [t for t in ways if sum(t.core_demand.values()) <= NPU.core.data_bytes][:20]:
        places = list(likely_places(NPU, t, None))
        if not _halves(t, places[0].weights):
            assert not any(_halves(t, core.weights) for core in places)
            found += len(places)
    assert found > 40


def _halves(t: Tiling, at: int) -> bool:
    """Whether both halves of a ring of weights have bytes in one bank."""
    between = at + t.paging.first_half
    return (between - 1) // BANK == between // BANK


def test_places_change_for_what_comes_early() -> None:
    """Of two layers that have the same places by themselves, the second is put where the first has nothing."""
    one = _some(64, 256, 1, False, 0)
    usual = in_core(NPU, one)
    used = Used.of(one, usual)
    assert not all(comes_beside(one, usual, used))
    made = next(likely_places(NPU, one, used))
    assert made != usual
    assert all(comes_beside(one, made, used))


def _some(channels: int, outputs: int, kernel: int, residual: bool, number: int) -> Tiling:
    """One of the ways to compute a layer that fit."""
    rng = np.random.default_rng(5)
    graph = conv_graph(rng, (channels, outputs), (28, 28), (kernel,) * 2, pads=(kernel // 2,) * 4, residual=residual, density=0.5)
    layer = conv_layer(graph, graph.nodes[0])
    assert not isinstance(layer, str)
    ways = list(candidates(NPU, layer, modes(NPU.grid), 28, 28))
    fitting = [t for t in ways[number % 7 :: 7] if sum(t.core_demand.values()) <= NPU.core.data_bytes]
    return fitting[number % len(fitting)]


def _met(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def _shared(spans: dict[str, tuple[int, int]]) -> set[frozenset[str]]:
    """Pairs of things that have bytes in one bank and are used at a time; a ring of weights may share one by its first half."""
    banks = {n: set(range(a // BANK, (b - 1) // BANK + 1)) for n, (a, b) in spans.items()}
    pairs = [
        ("data 0", "data 1"),
        *((d, o) for d in ("data 0", "data 1") for o in ("residual", "results")),
        ("weights", "results"),
    ]
    return {frozenset(p) for p in pairs if all(n in banks for n in p) and banks[p[0]] & banks[p[1]]}


def test_the_second_buffer_may_lie_before_the_first() -> None:
    """Where that leaves a place for the first unit: descriptors begin with the second step then, and go back to the first."""
    rng = np.random.default_rng(7)
    graph = chain_graph(rng, 64, (28, 14), [ByteConv(0, 64), ByteConv(1, 64, 3)], density=0.5)
    one, two = (conv_layer(graph, node) for node in graph.nodes)
    assert not isinstance(one, str)
    assert not isinstance(two, str)
    found = 0
    for before, after in product(*(_two_buffers(layer) for layer in (one, two))):
        used = Used.of(before, in_core(NPU, before))
        turned = [core for core in likely_places(NPU, after, used) if core.data_step < 0]
        for core in turned[:1]:
            spans = sorted(_spans(after, core).values())
            assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))
            assert comes_beside(after, core, used)[0]
            found += 1
    assert found > 10


@pytest.mark.parametrize("lower_first", [True, False])
def test_values_with_buffers_in_either_order(lower_first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(8)
    graph = chain_graph(rng, 64, (28, 14), [ByteConv(0, 64), ByteConv(1, 64, 3), ByteConv(2, 64)], density=0.5)
    ways = {}
    for node in graph.nodes:
        layer = conv_layer(graph, node)
        assert not isinstance(layer, str)
        ways[node.name] = _two_buffers(layer)[0]

    def along(machine: Machine, tilings: Sequence[Tiling], early: Sequence[bool]) -> list[CorePlaces]:
        every = (likely_places(machine, t, None) for t in tilings)
        return [next(core for core in places if (core.data_step > 0) is lower_first) for places in every]

    monkeypatch.setattr(network, "places_along", along)
    program = network.lower_with(graph, NPU, ways)
    (part,) = program.parts
    assert isinstance(part, ArrayPart)
    assert all((plan.core.data_step > 0) is lower_first for plan in part.plans)
    check_run(program, graph, rng)


def test_places_along_layers_leave_room_for_the_next() -> None:
    """Layers one by one take the first places that suit them; along the layers as much comes early or more, and of some more."""
    ways = [
        _some(channels, outputs, kernel, False, n)
        for channels, outputs, kernel, n in product((64, 128), (64, 256), (1, 3), (0, 9))
    ]
    ways = [t for t in ways if t.buffers == 2 and t.kept and not t.half_sums]
    better = 0
    for row in permutations((*ways[:4:3], ways[5]), 3):
        early = [False, True, True]
        first = [in_core(NPU, row[0])]
        for one, other in pairwise(row):
            first.append(next(likely_places(NPU, other, Used.of(one, first[-1]))))
        one_by_one, along = _come(row, first), _come(row, places_along(NPU, row, early))
        assert along >= one_by_one
        better += along > one_by_one
    assert better


def _come(row: Sequence[Tiling], cores: Sequence[CorePlaces]) -> int:
    """How much comes early: data, weights."""
    pairs = zip(pairwise(row), pairwise(cores), strict=True)
    return sum(sum(comes_beside(b, core, Used.of(a, before))[:2]) for (a, b), (before, core) in pairs)


def _two_buffers(layer: ConvLayer) -> list[Tiling]:
    """Ways of a layer with rows of 14 that fit, whose weights stay."""
    ways = candidates(NPU, layer, modes(NPU.grid), 28, 14)
    found = (t for t in ways if t.buffers == 2 and t.kept and not t.half_sums)
    return [t for t in found if sum(t.core_demand.values()) <= NPU.core.data_bytes][::9]
