"""Which ways to compute layers: the cheapest by the cost model that memories, descriptors and the program have room for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from math import inf
from typing import Any

from sparsec.backends.aie.core.program import PARAMETER_BYTES, Kind, core_program
from sparsec.backends.aie.lower.chaining import readers
from sparsec.backends.aie.lower.choose import ranked
from sparsec.backends.aie.lower.control import LayerControl
from sparsec.backends.aie.lower.cost import Context, Estimate, estimate
from sparsec.backends.aie.lower.cutting import LOCK_MAXIMUM
from sparsec.backends.aie.lower.geometry import plane
from sparsec.backends.aie.lower.layer import ConvLayer
from sparsec.backends.aie.lower.layout import images_of
from sparsec.backends.aie.lower.modes import Mode
from sparsec.backends.aie.lower.plan import kinds_of, plan_layer
from sparsec.backends.aie.lower.succession import Begins, Way, along, cycles_along, soon_along
from sparsec.backends.aie.lower.tile_control import Traffic
from sparsec.backends.aie.lower.tiling import Tiling
from sparsec.backends.aie.lower.views import View
from sparsec.backends.aie.machine import Machine
from sparsec.compiler.errors import FitError, LimitError
from sparsec.compiler.graph import Graph

_MOST = 24  # ways to compute a layer that are tried
_CHEAPEST = 12  # and of those that are the cheapest by themselves along a path of layers
_BEHIND = 2  # and of each cut behind other layers, where they are no more than so much dearer than the cheapest
_DEARER = 1.4
_HANDICAP = 1.02  # of ways that are not the cheapest by themselves: the model is about so exact
_MANY = 2 * LOCK_MAXIMUM  # blocks of output channels
_FEW_PARTS = (2, 4)  # of the output channels of a layer that fits as a whole
_UNLIKE = 0.1  # of a part's share of the cycles that there are for all, by which it may be dearer than others
_PARTS = (2, 4, 8, 16, 32)  # of the channels of a depthwise layer that does not
_NEAR = 3  # layers before and behind one, by which it is decided whether it is made as a whole
_FANS = (1, 2, 4)  # layers, one after the other, in which cores get channels of their own


def _parts_of_heads(layer: ConvLayer) -> Iterator[list[ConvLayer]]:
    """A product of computed tensors as several, ever more."""
    assert layer.computed is not None
    heads = layer.computed.heads
    for size in (n for n in range(heads - 1, 0, -1) if heads % n == 0):
        yield [layer.heads(first, first + size) for first in range(0, heads, size)]


@dataclass
class Known:
    """What has been found out about ways of a graph's layers: by shape and blocks the cheapest first (`ranked`); of ways that
    were `tried` why they do not fit, "" where they do; the kinds of product of those that fit; whether the program is `full`."""

    ranked: dict[Any, list[tuple[Estimate, Tiling]]] = field(default_factory=dict)
    tried: dict[Any, str] = field(default_factory=dict)
    kinds: list[Kind] = field(default_factory=list)
    full: bool = False


@dataclass(frozen=True, slots=True)
class _Together:
    """Ways of layers that follow one another, what they take by the model, and results that are better not held."""

    ways: Sequence[Tiling]
    cycles: float
    apart: set[str]


@dataclass
class Fitting:
    """Chooses for one layer after another, with what is `known`; `passed_over` says why cheaper ways were not taken, by node;
    values that are `apart` are better not held in memory tiles until they are added."""

    graph: Graph
    machine: Machine
    ways: tuple[Mode, ...]
    known: Known = field(default_factory=Known)
    passed_over: dict[str, str] = field(default_factory=dict)
    apart: set[str] = field(default_factory=set)
    _late: dict[tuple[Any, Any], Begins] = field(default_factory=dict)  # cuts of which the second does not begin as a whole
    _wholes: dict[str, Tiling] = field(default_factory=dict)  # by node, of layers that by themselves are cheaper otherwise
    _instead: dict[str, tuple[Tiling]] = field(default_factory=dict)  # those of them that are cheaper together with others

    def first(self, layer: ConvLayer) -> tuple[Tiling, ...] | str:
        """The cheapest way that fits; or why none of those that were tried does, as a clause.

        A core gets all channels of its positions. Where these are too many, a depthwise layer is made in parts of its channels,
        as few as fit; or in equal ones, if these take less time. So is another one, whose results locks cannot count, and a
        product of computed tensors in parts of its heads. Cores may get channels of their own instead, with weights of their own,
        or those of one row of results, or maxima, whose channels are computed alike.
        """
        whole = self._whole(layer)
        if layer.computed:
            return self._by_heads(layer, whole)
        found = self._by_themselves(layer, whole)
        if not isinstance(whole, str) and found != (whole,):
            self._wholes[layer.node] = whole
        return found

    def _by_themselves(self, layer: ConvLayer, whole: Tiling | str) -> tuple[Tiling, ...] | str:
        """The cheapest of one way for the whole layer, ways for its parts, and those in which cores have their own channels."""
        passed_over = self.passed_over.pop(layer.node, "")
        fanned = self._fanned(layer)
        if fanned and (isinstance(whole, str) or self._cycles(fanned) < self._cycles((whole,))):
            return fanned
        self.passed_over |= {layer.node: passed_over} if passed_over else {}
        made = self._by_channels(layer, whole) if isinstance(whole, str) else self._in_parts(layer, whole) or (whole,)
        passed_over = self.passed_over.pop(layer.node, "")
        channelwise = self._channelwise(layer)
        self.passed_over.pop(layer.node, "")
        if channelwise and (isinstance(made, str) or self._cycles((channelwise,)) < self._cycles(made)):
            return (channelwise,)
        self.passed_over |= {layer.node: passed_over} if passed_over else {}
        return made

    def _cycles(self, ways: tuple[Tiling, ...]) -> float:
        return sum(estimate(self.machine, t).cycles for t in ways)

    def _by_heads(self, layer: ConvLayer, whole: Tiling | str) -> tuple[Tiling, ...] | str:
        """A product of computed tensors in parts of its heads, as few as fit; or as cost least, where cores would have no
        work."""
        if not isinstance(whole, str) and whole.all_cores:
            return (whole,)
        ways: list[tuple[Tiling, ...]] = [] if isinstance(whole, str) else [(whole,)]
        for parts in _parts_of_heads(layer):
            made = [way for part in parts if not isinstance(way := self._whole(part), str)]
            if len(made) == len(parts):
                ways.append(tuple(made))
                if all(t.all_cores for t in made):
                    break
        return min(ways, key=self._cycles) if ways else str(whole)

    def _by_channels(self, layer: ConvLayer, why: str) -> tuple[Tiling, ...] | str:
        """A depthwise layer in parts of its channels; why the smallest do not fit either, or `why`, where it is none."""
        for count in _PARTS if layer.depthwise else ():
            size = -(-layer.output_blocks // count)
            parts = [layer.part(first, min(first + size, layer.output_blocks)) for first in range(0, layer.output_blocks, size)]
            made = []
            for part in parts:
                way = self._whole(part)
                if isinstance(way, str):
                    why = way
                    break
                made.append(way)
            if len(made) == len(parts):
                return tuple(made)
        return why

    def _fanned(self, layer: ConvLayer) -> tuple[Tiling, ...]:
        """Means of whole images, where there are no rows to cut, and maxima, where parts of the rows would share some: weights
        are alike, so that parts of the channels take the places of parts of the positions; what is left beside equal parts
        becomes layers of its own. () where that does not fit, or cores would have no maxima."""
        extent = plane(self.graph.types[layer.y])
        assert extent is not None
        if (extent[1] > 1 and not layer.maximum) or layer.residual:
            return ()
        counts = self._fans(channelwise=False) if layer.maximum else {m.position_parts for m in self.ways} - {1}
        for count in sorted(counts, reverse=True):
            for each in dict.fromkeys(-(-(layer.alike // count) // n) for n in _FANS):
                way = self._whole(layer.fanned(count, each)) if each else ""
                if isinstance(way, str) or (layer.maximum and not way.all_cores):
                    continue
                if count * each == layer.output_blocks:
                    return (way,)
                left = layer.part(count * each, layer.output_blocks)
                others = self._by_themselves(left, self._whole(left))
                return () if isinstance(others, str) else (way, *others)
        return ()

    def _fans(self, *, channelwise: bool) -> set[int]:
        """In how many parts the channels may be that take places of parts of the positions."""
        counts = {m.position_parts for m in self.ways if m.channelwise == channelwise}
        return {n for count in counts for n in range(2, count + 1) if count % n == 0}

    def _channelwise(self, layer: ConvLayer) -> Tiling | None:
        """A depthwise layer of which cores have channels, and weights, of their own, so that rows come to fewer of them more than
        once; the cheapest number of parts of these."""
        if not layer.depthwise or layer.residual or layer.maximum or layer.window.kernel == (1, 1):
            return None
        found: list[Tiling] = []
        for count in sorted(self._fans(channelwise=True)):
            way = self._whole(layer.fanned_channelwise(count)) if count <= layer.output_blocks else ""
            found += [] if isinstance(way, str) else [way]
        return min(found, key=lambda t: estimate(self.machine, t).cycles, default=None)

    def _in_parts(self, layer: ConvLayer, whole: Tiling) -> tuple[Tiling, ...] | None:
        """A layer of many output channels in parts, or a depthwise one, whose tiles then have more rows, if that is cheaper than
        `whole`."""
        if not layer.depthwise and layer.output_blocks <= _MANY:
            return None
        best, least = None, estimate(self.machine, whole).cycles
        for count in (n for n in _FEW_PARTS if layer.output_blocks % n == 0):
            size = layer.output_blocks // count
            made: list[Tiling] = []
            for first in range(0, layer.output_blocks, size):
                way = self._whole(layer.part(first, first + size), aim=least / count)
                if isinstance(way, str):
                    break
                made.append(way)
                if self._cycles(tuple(made)) * count >= least * min(len(made) + _UNLIKE, count):
                    break
            if len(made) == count and (cycles := self._cycles(tuple(made))) < least:
                best, least = tuple(made), cycles
        return best

    def _whole(self, layer: ConvLayer, aim: float = inf) -> Tiling | str:
        try:
            found = self._ranked(layer, aim)
        except LimitError as exc:
            return str(exc)
        why, tried = "", found[:_MOST]
        for i, (_, tiling) in enumerate(tried):
            made = replace(tiling, layer=layer, tight=True)
            if not (other := self._fits(made)):
                if why:
                    self.passed_over[layer.node] = f"{i} cheaper ways do not fit: {why}"
                return made
            why = why or other
        return f"none of the {len(tried)} cheapest ways to compute it fits: {why}"

    def together(self, views: Mapping[str, View], tilings: Sequence[tuple[Tiling, ...]]) -> list[tuple[Tiling, ...]]:
        """Ways for layers that follow one another, which are the cheapest together; `tilings` are those that each layer takes
        first. Of a layer that is made in parts, or whose cores have channels of their own, these, or one way for the whole, once
        and for all by what it takes with the layers near it."""
        made = [self._instead.get(ways[0].layer.node, ways) for ways in tilings]
        for i, ways in enumerate(tilings):
            whole = self._wholes.pop(ways[0].layer.node, None)
            if whole is not None:
                near = slice(max(0, i - _NEAR), i + _NEAR + 1)
                other = [*made[near.start : i], (whole,), *made[i + 1 : near.stop]]
                if self._together(views, other).cycles < self._together(views, made[near]).cycles:
                    made[i] = self._instead[whole.layer.node] = (whole,)
        best = self._together(views, made)
        self.apart -= {t.layer.y for t in best.ways}
        self.apart |= best.apart
        chosen = iter(best.ways)
        return [tuple(next(chosen) for _ in ways) for ways in made]

    def _together(self, views: Mapping[str, View], tilings: Sequence[tuple[Tiling, ...]]) -> _Together:
        """The cheapest ways along layers of which some are made in parts, which keep these."""
        options: list[list[Way]] = []
        for ways in tilings:
            if len(ways) > 1:
                options += [[Way(self.machine, t, estimate(self.machine, t))] for t in ways]
            else:
                options.append(self._options(ways[0]))
        who = readers(self.graph, views, [ways[0].tiling.layer for ways in options])
        while True:
            chosen = along(options, who, begins=self._begins)
            wrong = [i for i, step in enumerate(chosen) if len(options[i]) > 1 and self._fits(options[i][step.way].tiling)]
            if not wrong:
                break
            for i in wrong:
                del options[i][chosen[i].way]
        made = [ways[step.way].tiling for ways, step in zip(options, chosen, strict=True)]
        apart = {t.layer.y for t, step, r in zip(made, chosen, who, strict=True) if r.adder >= 0 and not step.held}
        return _Together(made, self.cycles(views, made), apart)

    def cycles(self, views: Mapping[str, View], ways: Sequence[Tiling]) -> float:
        """What layers that follow one another take by the model, which knows by now which of them begin late."""
        who = readers(self.graph, views, [t.layer for t in ways])
        return sum(cycles_along([Way(self.machine, t, estimate(self.machine, t)) for t in ways], who, self._begins))

    def soon(self, views: Mapping[str, View], ways: Sequence[Tiling]) -> list[bool]:
        """Of which the first data come to cores, or to memory tiles, while the layer before computes, by the model."""
        who = readers(self.graph, views, [t.layer for t in ways])
        return soon_along([Way(self.machine, t, estimate(self.machine, t)) for t in ways], who, self._begins)

    def begin_late(self, pairs: Iterable[tuple[Tiling, Tiling, Begins]]) -> bool:
        """Note how the second of two ways that follow one another did not begin as a whole while the first computed; whether
        that is new."""
        found = {(_cut(one), _cut(other)): begins for one, other, begins in pairs}
        new = {pair: begins for pair, begins in found.items() if begins > self._late.get(pair, Begins.WHOLE)}
        self._late |= new
        return bool(new)

    def _begins(self, one: Tiling, other: Tiling) -> Begins:
        return self._late.get((_cut(one), _cut(other)), Begins.WHOLE)

    def _options(self, first: Tiling) -> list[Way]:
        """The cheapest ways by themselves, of which the `first` is preferred, and those of each cut behind others, with data and
        residuals in memory tiles or not."""
        layer = first.layer
        found = self._ranked(layer)
        wanted = dict.fromkeys(range(min(len(found), _CHEAPEST)))
        for here, added, leaves in product((False, True), (False, True)[: 1 + bool(layer.residual)], (False, True)):
            context = Context(here, added, early=inf, follows=True, leaves=layer.share_left(all_leave=leaves))
            cycles = [cost.within(context) for cost, _ in found]
            order = sorted(range(len(found)), key=cycles.__getitem__)
            near: dict[Any, int] = {}  # whose data and results are not alike
            for i in order:
                t = found[i][1]
                if cycles[i] < _DEARER * cycles[order[0]]:
                    near.setdefault((t.mode, t.rows, t.splits, t.chunk_blocks, t.groups, t.sparse), i)
            for mode in dict.fromkeys(found[i][1].mode for i in near.values()):
                wanted |= dict.fromkeys([i for i in near.values() if found[i][1].mode == mode][:_BEHIND])
        made = [Way(self.machine, replace(found[i][1], layer=layer, tight=True), found[i][0], _HANDICAP) for i in wanted]
        fitting = [way for way in made if not self.known.tried.get(_key(way.tiling))]
        return [replace(way, handicap=1.0) if _key(way.tiling) == _key(first) else way for way in fitting]

    def _fits(self, tiling: Tiling) -> str:
        """Why a way does not fit by itself, "" where it does."""
        key = _key(tiling)
        if key not in self.known.tried:
            try:
                self._try(tiling)
                self.known.tried[key] = ""
            except LimitError as exc:
                self.known.tried[key] = str(exc)
        return self.known.tried[key]

    def _ranked(self, layer: ConvLayer, aim: float = inf) -> list[tuple[Estimate, Tiling]]:
        """The ways that the model has room for, without those that take much longer than the best or the `aim`; the same for all
        layers of one shape with the same blocks."""
        extent = plane(self.graph.types[layer.y])
        assert extent is not None
        _, height, width, _ = extent
        blocks = layer.weights.any(axis=(1, 3))
        finished = layer.shifts.scaling is not None, layer.shifts.divisor != 1
        turned = layer.computed and (layer.computed.heads, layer.computed.transposed)
        kind = (layer.element, layer.depthwise, layer.maximum, layer.wide, layer.residual is None, layer.two_of_four, finished)
        key = (layer.window, layer.channels, layer.fan, kind, turned, height, width, blocks.shape, blocks.tobytes(), aim)
        if key not in self.known.ranked:
            ways = tuple(m for m in self.ways if m.channelwise == layer.channelwise and m.position_parts % layer.fan == 0)
            self.known.ranked[key] = ranked(self.machine, _whole(layer), ways, height, width, aim)
        return self.known.ranked[key]

    def _try(self, tiling: Tiling) -> None:
        """LimitError when a way does not fit by itself; its kinds of product have a place in the program then."""
        new = [k for k in kinds_of(tiling) if k not in self.known.kinds]
        kinds = [*self.known.kinds, *new]
        if new:
            try:
                core_program(kinds, self.machine.core.data_bytes - 2 * PARAMETER_BYTES, self.machine.core.program_bytes)
            except FitError:
                self.known.full = True
                raise
        tiling = replace(tiling, layer=_whole(tiling.layer))
        plan = plan_layer(self.machine, tiling, kinds)
        images, _ = images_of(self.graph, [tiling], {})
        LayerControl(tiling.mode.grid, plan, Traffic.of(tiling.layer, images, 0))
        self.known.kinds = kinds


def _whole(layer: ConvLayer) -> ConvLayer:
    """The layer as it is where all of its results leave: what does not fit thinned out, may still fit."""
    return replace(layer, thinned=None) if layer.thinned else layer


def _cut(t: Tiling) -> tuple[Any, ...]:
    """What ways have in common of which others begin late alike, for layers of one shape: descriptors and queues are as many."""
    layer = t.layer
    kind = layer.element, layer.depthwise, layer.computed is None, layer.residual is None
    shape = layer.window, layer.channels, layer.first_block, layer.fan, t.height, t.width
    return *kind, *shape, replace(t.mode, narrow=False), t.rows, t.splits


def _key(t: Tiling) -> tuple[Any, ...]:
    """What tells a way from the others for its layer."""
    place = t.layer.node, t.layer.first_block, t.layer.channels, t.layer.fan
    return *place, t.mode, t.rows, t.chunk_blocks, t.kept, t.buffers, t.splits, t.groups, t.sparse
