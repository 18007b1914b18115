"""Ways of layers that follow one another: the chosen path against others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf
from typing import Any

import numpy as np
import pytest

from models.byte_layer import conv_graph
from sparsec.backends.aie.lower.chaining import Readers
from sparsec.backends.aie.lower.choose import ranked
from sparsec.backends.aie.lower.cost import ALONE, BEGUN, TAIL, USED, Context, at_least
from sparsec.backends.aie.lower.layer import ConvLayer
from sparsec.backends.aie.lower.modes import modes
from sparsec.backends.aie.lower.reading import conv_layer
from sparsec.backends.aie.lower.succession import _IN_ONE_PIECE, Begins, Way, _Around, along, cycles_along, soon_along
from sparsec.backends.aie.lower.tiling import Tiling
from sparsec.backends.aie.machine import machine_named

NPU = machine_named("aie2:npu1")


def _ways(channels: tuple[int, int], *, residual: bool = False) -> list[Way]:
    graph = conv_graph(np.random.default_rng(0), channels, (14, 14), (1, 1), shift=12, residual=residual)
    layer = conv_layer(graph, graph.nodes[0])
    assert isinstance(layer, ConvLayer)
    return [Way(NPU, t, cost) for cost, t in ranked(NPU, layer, modes(NPU.grid), 14, 14)]


def _chosen(*arguments: Any, **named: Any) -> list[int]:
    """The ways on the cheapest path."""
    return [step.way for step in along(*arguments, **named)]


def _never(_: Readers, __: Tiling, ___: Tiling, held: bool) -> bool:
    assert not held, "nothing can be held"
    return False


def _never_stays(_: Readers, __: Tiling, ___: Tiling, held: bool) -> bool:
    return False


def _next(count: int) -> list[Readers]:
    """Layers whose results the next one reads, and nobody else."""
    return [Readers(next=True, adder=-1, others=False)] * (count - 1) + [Readers(next=False, adder=-1, others=True)]


def _making(way: Way, value: str) -> Way:
    return replace(way, tiling=replace(way.tiling, layer=replace(way.tiling.layer, y=value)))


def _reading(way: Way, value: str) -> Way:
    return replace(way, tiling=replace(way.tiling, layer=replace(way.tiling.layer, x=value)))


def test_the_first_layer_counts_by_itself() -> None:
    ways = _ways((128, 64))
    assert _chosen([ways[::-1]], _next(1), _never) == [len(ways) - 1]
    assert _chosen([], [], _never) == []


def test_results_stay_where_that_is_cheaper_than_the_cheapest_ways() -> None:
    """Of two ways of each layer, the second ones are a little dearer, but go together."""
    first, second = _ways((64, 256))[0], _ways((256, 64))[0]

    def dearer(way: Way) -> Way:
        return replace(way, tiling=replace(way.tiling, tight=True), cost=replace(way.cost, compute=way.cost.compute + 10))

    def stays(_: Readers, one: Tiling, other: Tiling, held: bool) -> bool:
        return one.tight and other.tight and not held

    layers: Sequence[Sequence[Way]] = [[first, dearer(first)], [second, dearer(second)]]
    assert _chosen(layers, _next(2), stays) == [1, 1]
    assert _chosen(layers, _next(2), _never) == [0, 0]


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
    steps = along(layers, who, _never_stays, lambda one, other: one.tight and other.tight)
    assert [step.way for step in steps] == ([1, 0, 1] if room else [0, 0, 0])
    assert [step.held for step in steps] == [room, False, False]


@pytest.mark.parametrize("residual", [False, True])
def test_contexts_only_make_layers_cheaper(residual: bool) -> None:
    """Data or weights that are there, and results that stay, never cost; a layer by itself waits to be configured. Nothing is
    cheaper than to have it all."""
    for way in _ways((256, 64), residual=residual):
        found = [Context(here=here, early=early, follows=True) for here in (False, True) for early in (0.0, 500.0, 1e9)]
        found += [replace(context, added=True) for context in found]
        found += [replace(context, ready=not context.here, soon=soon) for context in found for soon in (0.0, 400.0, 1e9)]
        least = Context(here=True, added=True, early=inf, follows=True, soon=inf)
        for context in found:
            assert way.cost.within(context) <= way.cost.within(ALONE)
            assert way.cost.within(replace(context, leaves=0.0)) <= way.cost.within(context)
            assert way.cost.within(replace(context, stays=True)) <= way.cost.within(context)
            assert way.least == way.cost.within(least) <= way.cost.within(context)
            assert way.cost.within(replace(context, ready=not context.here, soon=1e9)) <= way.cost.within(context)
        assert way.cost.within(found[2]) <= way.cost.within(found[0])


def test_nothing_takes_less_than_what_it_takes_at_least() -> None:
    ways = [*_ways((256, 64)), *_ways((64, 256), residual=True)]
    assert len(ways) > 100
    for way in ways:
        assert at_least(NPU, way.tiling) <= way.cost.cycles


def test_paths_that_are_left_out_are_not_the_cheapest() -> None:
    """The same ways are chosen where nothing is known of what they take at least."""
    rng = np.random.default_rng(5)
    shapes = [((64, 256), False), ((256, 64), False), ((64, 256), True), ((256, 64), False)]
    who = [Readers(next=True, adder=2, others=False), *_next(3)]
    for _ in range(5):
        layers = []
        for channels, residual in shapes:
            ways = _ways(channels, residual=residual)
            layers.append([ways[i] for i in rng.choice(len(ways), 8, replace=False)])
        unknown = [[Way(w.machine, w.tiling, w.cost) for w in ways] for ways in layers]
        for way in (w for ways in unknown for w in ways):
            way.__dict__["least"] = -inf
        assert _chosen(layers, who) == _chosen(unknown, who)


def test_rings_that_are_made_smaller_bring_less_early() -> None:
    """As much as is left beside the first layer, when rings of weights have been made smaller for it, a quarter at a time."""
    limit = int(_IN_ONE_PIECE * NPU.memory.data_bytes)
    one = _ways((64, 256))[0]
    way = next(w for w in _ways((1024, 512)) if min(m.slots for m in w.places) == 16)
    assert way.shares == (1.0, 12 / 16, 9 / 16, 6 / 16, 4 / 16)
    ring = max(h["weights"] for h in way.held)
    for free, share in ((ring, 1.0), (ring - 4, 0.75), (ring // 2, 0.375), (ring // 4, 0.25), (0, 0.0)):
        filled = Way(NPU, one.tiling, one.cost)
        filled.__dict__["held"] = tuple({**dict.fromkeys(h, 0), "weights": limit - free} for h in one.held)
        around = _Around(here=False, begins=False, added=False, own=None, held=None)
        assert around.beside(filled, Context(), way) == share


@pytest.mark.parametrize("begins", list(Begins))
def test_a_way_that_begins_late_has_to_be_much_cheaper(begins: Begins) -> None:
    """A way that would be taken is not behind another one with which it begins when that one has finished."""
    first, second = _ways((64, 256))[0], _ways((256, 64))[0]
    dearer = replace(
        second, tiling=replace(second.tiling, tight=True), cost=replace(second.cost, compute=second.cost.compute + 1500)
    )

    def found(_: Tiling, other: Tiling) -> Begins:
        return Begins.WHOLE if other.tight else begins

    chosen = _chosen([[first], [second, dearer]], _next(2), _never, begins=found)
    assert chosen == [0, int(begins is Begins.LATE)]
    late, other = (cycles_along([first, way], _next(2), found) for way in (second, dearer))
    assert late[0] == other[0]
    assert (late[1] > other[1]) == (begins is Begins.LATE)


def test_data_come_sooner_unless_that_is_known_not_to_be() -> None:
    """Of ways whose first tiles are in DDR before the layer before has finished, some have their first unit in cores by then."""
    first, second = _ways((64, 256)), [_reading(way, "results") for way in _ways((256, 64))]
    first = [_making(way, "results") for way in first if way.tiling.tiles > 1]
    both = [(one, other) for one in first for other in second[:20] if soon_along([one, other], _next(2)) == [False, True]]
    assert both
    gained = 0
    for pair in both:
        usual, sooner = (
            sum(cycles_along(pair, _next(2), lambda *_, how=how: how)) for how in (Begins.WITHOUT_DATA, Begins.WHOLE)
        )
        assert sooner <= usual
        gained += usual - sooner > 100
        assert not any(soon_along(pair, _next(2), lambda *_: Begins.WITHOUT_DATA))
    assert gained
    one, other = both[0]
    shared = [replace(_next(2)[0], shared=True), _next(1)[0]]
    assert not any(soon_along([one, other], shared)), "whose results are parts of something else"


def test_channels_have_less_to_spare_the_more_they_bring() -> None:
    """Beside their own words, and as long as rings cannot take these; some at the end; nothing while a layer that begins late
    waits for its own."""
    for way in _ways((1024, 512)):
        cost, cycles = way.cost, 4 * way.cost.cycles
        alone, here = (cost.spare(Context(here=here, follows=True), cycles) for here in (False, True))
        assert TAIL <= alone <= here <= max(TAIL, USED * cycles - BEGUN)
        assert alone <= max(TAIL, USED * cycles - cost.ddr_in(Context(follows=True)))
        rings = cycles * max(c.busy for c in cost.channels)
        assert alone <= max(TAIL, USED * cycles - rings)
        assert cost.spare(Context(follows=True), 0.0) == TAIL
        assert cost.spare(Context(follows=True, late=True), cycles) == 0.0
    assert {c.busy > 0 for way in _ways((1024, 512)) for c in way.cost.channels} == {False, True}
