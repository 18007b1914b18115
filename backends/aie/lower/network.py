"""A whole graph for the array: images of all its values, a plan for every layer, a control stream for every segment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from itertools import pairwise

from sparsec.backends.aie.core.program import PARAMETER_BYTES, Kind, core_program, core_text
from sparsec.backends.aie.lower.chaining import Neighbours, in_ddr_before, in_ddr_but_last
from sparsec.backends.aie.lower.cost import estimate
from sparsec.backends.aie.lower.fitting import Fitting, Known
from sparsec.backends.aie.lower.geometry import BLOCK, Image, plane
from sparsec.backends.aie.lower.layer import ConvLayer
from sparsec.backends.aie.lower.layout import images_of, surroundings
from sparsec.backends.aie.lower.leaving import every_of
from sparsec.backends.aie.lower.modes import modes
from sparsec.backends.aie.lower.partition import ArraySegment, layers_of, partition
from sparsec.backends.aie.lower.plan import LayerPlan, kinds_of, plan_layer
from sparsec.backends.aie.lower.prefetch import change_early, narrowed, places_along
from sparsec.backends.aie.lower.sequence import BEGINS_LATE, sequence
from sparsec.backends.aie.lower.succession import Begins, Way, cycles_along
from sparsec.backends.aie.lower.sums import with_sums
from sparsec.backends.aie.lower.thinning import AllLeave, ask_for_thinned, with_thinned
from sparsec.backends.aie.lower.tile_control import Traffic
from sparsec.backends.aie.lower.tiling import Tiling
from sparsec.backends.aie.lower.views import View
from sparsec.backends.aie.machine import Machine
from sparsec.backends.aie.part import part_of
from sparsec.backends.aie.program import ArrayPart, ArrayProgram, HostPart, Staying
from sparsec.backends.aie.transaction import Transaction
from sparsec.compiler.errors import FitError, InternalError, LimitError
from sparsec.compiler.graph import Graph

_ROUNDS = 8  # of choosing ways, with what the rounds before have shown
_NO_ROOM = "memory tiles have no room for its results beside the rest"
_NO_CHAINS = "chains of cores take kinds of product that the program has no room for beside the others"


def lower(graph: Graph, machine: Machine) -> ArrayProgram:
    """The program of a graph that the passes have finished: layers for which no way fits are the host's.

    FitError where the array has no circuits for any layer.
    """
    left_whole: set[str] = set()
    known = Known()
    while True:
        try:
            return _lower(graph, machine, left_whole, known)
        except AllLeave as exc:  # as ways turned out, or places
            left_whole.update(exc.values)


def _lower(graph: Graph, machine: Machine, left_whole: set[str], known: Known) -> ArrayProgram:
    """The same with values `left_whole` that are not thinned out; ways that are `known`. AllLeave where another value cannot be
    thinned out."""
    ways = modes(machine.grid)
    if not ways:
        raise FitError(
            f"any layer on {machine.name}",
            demand=f"{machine.rows} rows of cores in {machine.columns} columns, {len(machine.shim.columns)} of which reach DDR, "
            f"with {machine.memory_rows} memory tiles each",
            bound="two or more adjacent columns with a memory tile each, served by as many shims that reach DDR",
            remedy="compile for aie2:npu1 or a square",
        )
    graph, why = with_sums(graph, layers_of(graph)[1])
    graph, thinned = with_thinned(graph, left_whole)
    layers, reasons = layers_of(graph)
    layers |= {node: replace(layers[node], thinned=made) for node, made in thinned.items()}
    reasons |= {node: reason for node, reason in why.items() if node in reasons}
    reasons |= surroundings(graph, layers)[1]
    todo = [layer for layer in layers.values() if layer.node not in reasons]
    todo.sort(key=lambda layer: -layer.macs(graph))  # the program has room for those that count
    fitting = Fitting(graph, machine, ways, known)
    tilings, left = _first_ways(fitting, todo)
    if left and fitting.known.full:
        # chains take kinds of product that are long; layers channel by channel have but one kind each, others can do with fewer
        fewer = Fitting(graph, machine, tuple(w for w in ways if w.chain == 1))
        others, rest = _first_ways(fewer, sorted(todo, key=lambda layer: not layer.depthwise))
        if len(rest) < len(left):
            chained = {node for node, found in tilings.items() if any(t.mode.chain > 1 for t in found)}
            fewer.passed_over |= {node: _NO_CHAINS for node in chained if node in others}
            fitting, tilings, left = fewer, others, rest
    reasons |= left
    first, made = dict(tilings), list[tuple[ArrayProgram, Mapping[str, View]]]()
    for _ in range(_ROUNDS):
        cut = partition(graph, {node: layers[node] for node in tilings}, reasons)
        for segment in cut.segments:
            if isinstance(segment, ArraySegment):
                nodes = [layer.node for layer in segment.layers]
                chosen = fitting.together(cut.views, [first[n] for n in nodes])
                every = [t for each in chosen for t in each]
                ask_for_thinned((t.layer for t in every), Neighbours.of(graph, cut.views, every, fitting.apart).all_leave)
                tilings |= dict(zip(nodes, chosen, strict=True))
        program = _lowered(graph, machine, tilings, reasons, fitting)
        made.append((program, cut.views))
        if not fitting.begin_late(_late(program, fitting, cut.views)):
            break
    return min(made, key=lambda one: _cycles(fitting, *one))[0]  # by what is known now


def _cycles(fitting: Fitting, program: ArrayProgram, views: Mapping[str, View]) -> float:
    """What the parts on the array take by the model."""
    parts = (part for part in program.parts if isinstance(part, ArrayPart))
    return sum(fitting.cycles(views, [p.tiling for p in part.plans]) for part in parts)


def _late(program: ArrayProgram, fitting: Fitting, views: Mapping[str, View]) -> Iterator[tuple[Tiling, Tiling, Begins]]:
    """Ways that follow one another of which the second does not begin, or not with all, while the first computes, but for those
    behind another one that does not, which may be why; or not as soon as the model has it."""
    for part in program.parts:
        if isinstance(part, ArrayPart):
            tilings = [p.tiling for p in part.plans]
            wanted = [begun and not soon for begun, soon in zip(fitting.soon(views, tilings), part.soon, strict=True)]
            behind = zip(pairwise(tilings), pairwise(part.late), wanted[1:], strict=True)
            for (one, other), (before, late), without in behind:
                if late and not before:
                    yield one, other, Begins.LATE if late.startswith(BEGINS_LATE) else Begins.WITHOUT_WEIGHTS
                elif without and not late:
                    yield one, other, Begins.WITHOUT_DATA


def _lowered(
    graph: Graph, machine: Machine, tilings: dict[str, tuple[Tiling, ...]], reasons: dict[str, str], fitting: Fitting
) -> ArrayProgram:
    """The program with given tilings; what does not fit beside the others goes to the host."""
    while True:
        try:
            return lower_with(graph, machine, tilings, reasons, fitting.passed_over, fitting.apart)
        except AllLeave:
            raise
        except LimitError as exc:  # what fits by itself may not fit images that others want larger
            if exc.node not in tilings:
                raise
            del tilings[exc.node]
            reasons[exc.node] = f"it does not fit beside the other layers: {exc}"


def _first_ways(fitting: Fitting, layers: Sequence[ConvLayer]) -> tuple[dict[str, tuple[Tiling, ...]], dict[str, str]]:
    """The ways of layers that find one, one layer after the other, and why the rest find none, by node."""
    tilings: dict[str, tuple[Tiling, ...]] = {}
    left: dict[str, str] = {}
    for layer in layers:
        found = fitting.first(layer)
        if isinstance(found, str):
            left[layer.node] = found
        else:
            tilings[layer.node] = found
    return tilings, left


def lower_with(
    graph: Graph,
    machine: Machine,
    tilings: Mapping[str, Tiling | tuple[Tiling, ...]],
    reasons: Mapping[str, str] | None = None,
    passed_over: Mapping[str, str] | None = None,
    apart: Set[str] = frozenset(),
) -> ArrayProgram:
    """The program with given tilings, by node, for a depthwise layer maybe one for each part of its channels; other nodes are the
    host's, for `reasons`. LimitError where a tiling does not fit.

    `passed_over` says by node why the array computes it in none of the ways that were thought cheaper. Values that are `apart`
    are not held in memory tiles until a later layer adds them, though they might be. InternalError where tilings do not make all
    channels of a node.
    """
    ways = {node: t if isinstance(t, tuple) else (t,) for node, t in tilings.items()}
    for node, found in ways.items():
        extent, made = plane(graph.types[found[0].layer.y]), sum(t.layer.made_blocks for t in found)
        assert extent is not None
        if made != (blocks := -(-extent[0] // BLOCK)):
            raise InternalError(f"the ways of layer {node!r} make {made} of its {blocks} blocks of channels")
    layers = {node: parts[0].layer for node, parts in ways.items()}
    cut = partition(graph, layers, layers_of(graph)[1] if reasons is None else reasons)
    used = [t for s in cut.segments if isinstance(s, ArraySegment) for layer in s.layers for t in ways[layer.node]]
    kinds = list(dict.fromkeys(k for t in used for k in kinds_of(t)))
    images, size = images_of(graph, used, cut.views)
    parts: list[ArrayPart | HostPart] = []
    for segment in cut.segments:
        if isinstance(segment, ArraySegment):
            own = [t for layer in segment.layers for t in ways[layer.node]]
            parts.append(_array_part(machine, segment, own, kinds, images, graph, cut.views, apart))
        else:
            parts.append(HostPart(segment.graph))
    parameters = machine.core.data_bytes - 2 * PARAMETER_BYTES
    return ArrayProgram(
        graph.name,
        machine,
        graph,
        tuple(parts),
        cut.reasons,
        images,
        surroundings(graph, layers)[0],
        size,
        core_program(kinds, parameters, machine.core.program_bytes) if kinds else b"",
        core_text(kinds, parameters) if kinds else "",
        passed_over or {},
    )


def _array_part(
    machine: Machine,
    segment: ArraySegment,
    tilings: Sequence[Tiling],
    kinds: Sequence[Kind],
    images: Mapping[str, Image],
    graph: Graph,
    views: Mapping[str, View],
    apart: Set[str],
) -> ArrayPart:
    weights = bytearray()
    tilings = [*(narrowed(machine, one, other) for one, other in pairwise(tilings)), *tilings[-1:]]
    neighbours = Neighbours.of(graph, views, tilings, apart)
    leaves = neighbours.leave
    layers: list[tuple[LayerPlan, Traffic]] = []
    early = [False, *(change_early(*pair, out, more=True) for pair, out in zip(pairwise(tilings), leaves, strict=False))]
    for tiling, core in zip(tilings, places_along(machine, tilings, early), strict=True):
        plan = plan_layer(machine, tiling, kinds, core)
        layers.append((plan, Traffic.of(plan.layer, images, len(weights))))
        weights += plan.weights
    there = [i > 0 and in_ddr_before(views, tilings[i - 1], t) for i, t in enumerate(tilings)]
    shared = [who.shared for who in neighbours.readers]
    follow = [
        i > 0 and in_ddr_but_last(tilings[i - 1], plan.tiling, plan.memory, shared=shared[i - 1])
        for i, (plan, _) in enumerate(layers)
    ]
    cycles = cycles_along([Way(machine, t, estimate(machine, t)) for t in tilings], neighbours.readers)
    part = part_of(machine.grid)
    assert part is not None, "there are ways to cut layers"
    made = sequence(part, layers, cycles, neighbours, there, follow)
    plans = tuple(plan for plan, _ in layers)
    stays = tuple(
        Staying(placed.joined, links.leaves, "" if placed.joined else why or _NO_ROOM, placed.held, every_of(placed.plan.tiling))
        for placed, links, why in zip(made.places, made.links, neighbours.why, strict=True)
    )
    begun = tuple(links.prefetch[0] and (links.here or links.follow or links.ahead) for links in made.links)
    stream = Transaction(machine.grid, made.operations)
    return ArrayPart(plans, segment.views, stream, bytes(weights), made.ends, made.late, stays, begun)
