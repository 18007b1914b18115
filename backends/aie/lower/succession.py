"""Which ways to compute layers that follow one another go together best.

What a layer takes depends on the way of the one before: whether results stay in memory tiles for it, how many of its weights
come early, whether they leave for DDR. So ways are chosen along the layers as a shortest path (Viterbi, IEEE Transactions on
Information Theory 13, 1967, section III): the state is a layer's way, and what a state costs is the cheapest path to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from sparsec.backends.aie.lower.cost import BEGUN, USED, Context, Estimate
from sparsec.backends.aie.lower.memory_places import in_memory
from sparsec.backends.aie.lower.placement import Wanted
from sparsec.backends.aie.lower.tiling import Tiling
from sparsec.backends.aie.machine import Machine


@dataclass(frozen=True)
class Way:
    """A way to compute a layer, and what it takes; with a `handicap`, by which others have to be better than the one that is
    the cheapest by itself."""

    machine: Machine
    tiling: Tiling
    cost: Estimate
    handicap: float = 1.0

    def within(self, context: Context) -> float:
        """What it counts as in a context."""
        return self.handicap * self.cost.within(context)

    @cached_property
    def held(self) -> tuple[dict[str, int], ...]:
        """Bytes of a memory tile by what it holds, by column; `staying` results where they stay, `results` where they do not."""
        found = []
        for column, places in enumerate(in_memory(self.machine, self.tiling)):
            alone, stays = (Wanted.of(self.tiling, places, column, here=False, stays=s) for s in (False, True))
            found.append(
                {
                    "weights": sum(alone.weights),
                    "data": sum(alone.data),
                    "residual": sum(alone.residual),
                    "results": sum(alone.results),
                    "staying": sum(stays.staying),
                }
            )
        return tuple(found)


@dataclass(frozen=True, slots=True)
class _State:
    """The cheapest path to a way: its cycles before the last layer, that layer's context, and the way before (-1: none)."""

    before: float
    context: Context
    last: float
    way: int

    @property
    def cycles(self) -> float:
        return self.before + self.last


def along(layers: Sequence[Sequence[Way]], stays: Callable[[Tiling, Tiling], tuple[bool, bool]]) -> list[int]:
    """The number of each layer's way on the cheapest path. `stays` says of two ways whether results of the first may stay for the
    second, and whether they leave nevertheless."""
    paths: list[list[_State]] = []
    for i, ways in enumerate(layers):
        if not i:
            paths.append([_State(0.0, Context(), w.within(Context()), -1) for w in ways])
            continue
        paths.append([_cheapest(layers[i - 1], paths[-1], way, stays) for way in ways])
    if not paths:
        return []
    best = min(range(len(paths[-1])), key=lambda n: paths[-1][n].cycles)
    found = [best]
    for states in reversed(paths[1:]):
        found.append(states[found[-1]].way)
    return found[::-1]


def _cheapest(
    before: Sequence[Way], paths: Sequence[_State], way: Way, stays: Callable[[Tiling, Tiling], tuple[bool, bool]]
) -> _State:
    """The cheapest path to a way."""
    found: _State | None = None
    for n, (one, path) in enumerate(zip(before, paths, strict=True)):
        for made in _steps(one, path, n, way, stays(one.tiling, way.tiling)):
            if found is None or made.cycles < found.cycles:
                found = made
    assert found is not None
    return found


def _steps(one: Way, path: _State, number: int, way: Way, staying: tuple[bool, bool]) -> list[_State]:
    """From a way to one of the next layer: through DDR, and by results that stay if they can."""
    found = []
    for here, leaves in ((False, True), *([(True, staying[1])] if staying[0] else [])):
        if here and not _fits(one, path.context, way):
            continue
        last = path.last
        if not leaves:
            context = Context(path.context.here, path.context.early, path.context.follows, leaves=False)
            last = one.within(context)
        busy = max(BEGUN, one.cost.ddr_in(path.context))
        early = max(0.0, USED * last - busy) if _beside(one, path.context, way, here=here) else 0.0
        context = Context(here, early, follows=True)
        found.append(_State(path.before + last, context, way.within(context), number))
    return found


def _fits(one: Way, context: Context, way: Way) -> bool:
    """Whether memory tiles have room for results that stay while either layer runs."""
    limit = one.machine.memory.data_bytes
    first = (_sum(h, "weights", "staying", "residual", *_arriving(context.here)) for h in one.held)
    then = (a["staying"] + _sum(b, "weights", "residual", "results") for a, b in zip(one.held, way.held, strict=True))
    return max([*first, *then]) <= limit


def _beside(one: Way, context: Context, way: Way, *, here: bool) -> bool:
    """Whether memory tiles have room for the weights of the second layer beside the first."""
    kept = "staying" if here else "results"
    held = (_sum(h, "weights", kept, "residual", *_arriving(context.here)) for h in one.held)
    wanted = (h["weights"] for h in way.held)
    return max(a + b for a, b in zip(held, wanted, strict=True)) <= one.machine.memory.data_bytes


def _arriving(here: bool) -> tuple[str, ...]:
    return () if here else ("data",)


def _sum(held: dict[str, int], *kinds: str) -> int:
    return sum(held[kind] for kind in kinds)
