"""The circuits that the switches make, and the writes that change them from one layer to the next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache

from sparsec.backends.aie.lower.modes import Mode
from sparsec.backends.aie.registers import Grid, Kind, Port, Tile
from sparsec.backends.aie.switch import Flow, Route, Routing, route
from sparsec.backends.aie.transaction import BlockWrite, MaskWrite, Operation, Write
from sparsec.compiler.errors import FitError


class Circuits:
    """The circuits that the switches make, and the writes that change them."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self._mode: Mode | None = None
        self._routes: tuple[Route, ...] = ()  # of the mode, and of modes before where nothing is in the way
        self._writes: Mapping[tuple[int, int], Write | MaskWrite] = {}  # by address and mask

    def change(self, mode: Mode) -> tuple[list[Operation], list[Operation]]:
        """Make the circuits of a mode: the writes that data and weights need to come from DDR, and the rest. What a mode before
        needed and this one does not is switched off where ports of this one's circuits are part of it; elsewhere nothing is sent
        through it."""
        if mode == self._mode:
            return [], []
        routing = _routing(mode)
        shims = tuple(r for r in routing.routes if self.grid.kind(r.flow.source.tile) is Kind.SHIM)
        near = {_key(w) for w in Routing(self.grid, shims).writes()}
        wanted = {_key(w): w for w in routing.writes()}
        idle = tuple(r for r in self._routes if r not in routing.routes and not _in_the_way(r, mode))
        left = {_key(w) for w in Routing(self.grid, idle).writes()}
        made: list[Write | MaskWrite] = []
        for key, old in self._writes.items():
            if key not in wanted and key not in left:
                made.append(Write(old.address, 0) if isinstance(old, Write) else MaskWrite(old.address, 0, old.mask))
        changed = [w for key, w in wanted.items() if self._writes.get(key) != w]
        early = [w for w in changed if _key(w) in near]
        again = self._mode is not None and bool(early)  # then circuits of the mode before may be in the way
        self._writes = {key: w for key, w in self._writes.items() if key in left} | wanted
        self._mode, self._routes = mode, (*routing.routes, *idle)
        if again:
            return _merged([*made, *changed]), []
        return _merged(early), _merged([*made, *(w for w in changed if _key(w) not in near)])


def _in_the_way(route: Route, mode: Mode) -> bool:
    """Whether a circuit has ports that those of a mode take."""
    return not route.ports.isdisjoint(_ports(mode))


@cache
def _ports(mode: Mode) -> frozenset[tuple[Tile, Port, bool]]:
    return frozenset(p for r in _routing(mode).routes for p in r.ports)


@cache
def keeps_way_out(before: Mode, after: Mode) -> bool:
    """Whether results of a layer go on leaving memory tiles for DDR while circuits change to those of the next mode."""
    return _keeps(before, after, lambda grid, r: grid.kind(r.flow.destinations[0].tile) is Kind.SHIM)


@cache
def keeps_results(before: Mode, after: Mode) -> bool:
    """Whether results of a layer go on leaving cores while circuits change to those of the next mode."""
    return _keeps(before, after, lambda grid, r: grid.kind(r.flow.source.tile) is Kind.CORE)


def _keeps(before: Mode, after: Mode, wanted: Callable[[Grid, Route], bool]) -> bool:
    routing, kept = _routing(before), set(_routing(after).routes)
    return all(r in kept or not _in_the_way(r, after) for r in routing.routes if wanted(routing.grid, r))


@cache
def _routing(mode: Mode) -> Routing:
    """The circuits of a mode. Those from and to DDR, and of results, are the same in all modes that have them, so that few change
    from one layer to the next, if the others find ways beside them."""
    grid = mode.grid if mode.part is None else mode.part.machine

    def moved(flows: list[Flow]) -> list[Flow]:
        return flows if mode.part is None else mode.part.flows(flows)

    flows, common = moved(mode.flows()), moved(mode.common_flows())
    try:
        return route(grid, flows, route(grid, common).routes)
    except FitError:
        return route(grid, flows)


def _merged(writes: Iterable[Write | MaskWrite]) -> list[Operation]:
    """The same writes with neighbouring registers in one, which takes fewer words."""
    found: list[Operation] = []
    for w in sorted(writes, key=lambda w: w.address):
        last = found[-1] if found else None
        if isinstance(w, Write) and isinstance(last, Write) and w.address == last.address + 4:
            found[-1] = BlockWrite(last.address, (last.value, w.value))
        elif isinstance(w, Write) and isinstance(last, BlockWrite) and w.address == last.address + 4 * len(last.values):
            found[-1] = BlockWrite(last.address, (*last.values, w.value))
        else:
            found.append(w)
    return found


def _key(w: Write | MaskWrite) -> tuple[int, int]:
    return w.address, w.mask if isinstance(w, MaskWrite) else 0
