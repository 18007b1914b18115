"""The circuits that the switches make, and the writes that change them from one layer to the next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache

from sparsec.backends.aie.lower.modes import Mode
from sparsec.backends.aie.registers import Grid, Kind
from sparsec.backends.aie.switch import Routing, route
from sparsec.backends.aie.transaction import BlockWrite, MaskWrite, Operation, Write


class Circuits:
    """The circuits that the switches make, and the writes that change them."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self._mode: Mode | None = None
        self._writes: Mapping[tuple[int, int], Write | MaskWrite] = {}  # by address and mask

    def change(self, mode: Mode) -> tuple[list[Operation], list[Operation]]:
        """Make the circuits of a mode: the writes that data and weights need to come from DDR, and the rest. What the mode before
        needed and this one does not is switched off."""
        if mode == self._mode:
            return [], []
        routing = _routing(mode)
        shims = tuple(r for r in routing.routes if self.grid.kind(r.flow.source.tile) is Kind.SHIM)
        near = {_key(w) for w in Routing(self.grid, shims).writes()}
        wanted = {_key(w): w for w in routing.writes()}
        made: list[Write | MaskWrite] = []
        for key, old in self._writes.items():
            if key not in wanted:
                made.append(Write(old.address, 0) if isinstance(old, Write) else MaskWrite(old.address, 0, old.mask))
        changed = [w for key, w in wanted.items() if self._writes.get(key) != w]
        early = [w for w in changed if _key(w) in near]
        again = self._mode is not None and bool(early)  # then circuits of the mode before may be in the way
        self._mode, self._writes = mode, wanted
        if again:
            return _merged([*made, *changed]), []
        return _merged(early), _merged([*made, *(w for w in changed if _key(w) not in near)])


@cache
def keeps_way_out(before: Mode, after: Mode) -> bool:
    """Whether results of a layer go on leaving memory tiles for DDR while circuits change to those of the next mode."""
    routing = _routing(before)
    kinds = routing.grid.kind
    out = tuple(r for r in routing.routes if kinds(r.flow.destinations[0].tile) is Kind.SHIM)
    wanted = {_key(w): w for w in _routing(after).writes()}
    return before == after or all(wanted.get(_key(w)) == w for w in Routing(routing.grid, out).writes())


@cache
def _routing(mode: Mode) -> Routing:
    if mode.part is None:
        return route(mode.grid, mode.flows())
    return route(mode.part.machine, mode.part.flows(mode.flows()))


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
