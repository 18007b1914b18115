"""Circuits through the stream switches: a router over free ports, the register writes of its routes, and the way back.

A circuit joins one MM2S channel to one or more S2MM channels. In every switch on its way each master port (an exit) names the
slave port (an entrance) that feeds it, so a slave port may feed many masters, and a master port serves one circuit. Ports and the
connections that a switch can make are those of mlir-aie's `AIE2TargetModel` (`getNumDestSwitchboxConnections`,
`isLegalTileConnection`).

The router is PathFinder (McMurchie and Ebeling, FPGA 1995): circuits take their cheapest trees one after the other, and ports
that several want grow dearer until none is shared. It is deterministic.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from heapq import heappop, heappush

from sparsec.backends.aie.registers import (
    DEMUX,
    MASTER_ENABLE,
    MASTER_PACKET,
    MASTER_SLAVE,
    MUX,
    MUX_DMA,
    SHIM_MASTER,
    SHIM_SLAVE,
    SLAVE_ENABLE,
    SLAVE_PACKET,
    Direction,
    Grid,
    Kind,
    Port,
    Tile,
    check_channel,
    ports,
    register_address,
)
from sparsec.backends.aie.transaction import MaskWrite, Write, write
from sparsec.compiler.errors import FitError, InternalError, StreamError, UsageError

_SIDES = {"north": (0, 1, "south"), "south": (0, -1, "north"), "east": (1, 0, "west"), "west": (-1, 0, "east")}
_PATIENCE = 12  # rounds of negotiation that bring nothing, before circuits are said not to fit
_REMEDY = "send to several destinations at once, join streams before they get there, or use fewer channels"
_PRESENT, _GROWTH, _HISTORY = 0.5, 1.3, 0.4  # how fast shared ports grow dearer


@dataclass(frozen=True, slots=True, order=True)
class Channel:
    """A DMA channel of a tile; which direction follows from where it stands."""

    tile: Tile
    index: int

    def __str__(self) -> str:
        return f"{self.tile} channel {self.index}"


@dataclass(frozen=True, slots=True)
class Flow:
    """What is to be joined: the words of one MM2S channel go to all of some S2MM channels."""

    source: Channel
    destinations: tuple[Channel, ...]


@dataclass(frozen=True, slots=True, order=True)
class Wire:
    """A master port of a switch, and what it leads to."""

    tile: Tile
    port: Port


@dataclass(frozen=True, slots=True)
class Connection:
    """In a tile's switch: the master port takes what the slave port brings."""

    tile: Tile
    slave: Port
    master: Port


@dataclass(frozen=True, slots=True)
class Circuit:
    """One source and one destination. `hops` counts the switches on the way, both ends' included."""

    source: Channel
    destination: Channel
    hops: int


@dataclass(frozen=True, slots=True)
class Route:
    """A flow and the connections that make it, from the source on."""

    flow: Flow
    connections: tuple[Connection, ...]

    @property
    def ports(self) -> frozenset[tuple[Tile, Port, bool]]:
        """The ports that it takes: tile, port, and whether that is a master."""
        return frozenset(p for c in self.connections for p in ((c.tile, c.slave, False), (c.tile, c.master, True)))


@dataclass(frozen=True, slots=True)
class Routing:
    """Routes that share no port."""

    grid: Grid
    routes: tuple[Route, ...]

    def writes(self) -> tuple[Write | MaskWrite, ...]:
        """The register writes that make all circuits, in the order of routes. Registers are 0 (off) before."""
        found: dict[int, Write | MaskWrite] = {}
        for route in self.routes:
            for c in route.connections:
                slave = ports(self.grid.kind(c.tile), False).index(c.slave)
                made = write(self.grid, c.tile, f"slave.{c.slave}", SLAVE_ENABLE.put(1))
                found[made.address] = made
                made = write(self.grid, c.tile, f"master.{c.master}", MASTER_ENABLE.put(1) | MASTER_SLAVE.put(slave))
                found[made.address] = made
        return (*found.values(), *self._multiplexers())

    def _multiplexers(self) -> Iterable[MaskWrite]:
        """What joins shims' DMAs to their switches."""
        for route in self.routes:
            if self.grid.kind(route.flow.source.tile) is Kind.SHIM:
                field = MUX[SHIM_SLAVE[route.flow.source.index]]
                yield MaskWrite(register_address(self.grid, route.flow.source.tile, "mux"), field.put(MUX_DMA), field.mask)
            for end in route.flow.destinations:
                if self.grid.kind(end.tile) is Kind.SHIM:
                    field = DEMUX[SHIM_MASTER[end.index]]
                    yield MaskWrite(register_address(self.grid, end.tile, "demux"), field.put(MUX_DMA), field.mask)


@cache
def masters_of(kind: Kind, slave: Port) -> tuple[Port, ...]:
    """The master ports that a switch can feed from a slave port, in the order of their numbers."""
    return tuple(m for m in ports(kind, True) if _legal(kind, slave, m))


def _legal(kind: Kind, slave: Port, master: Port) -> bool:
    """mlir-aie's `isLegalTileConnection` of AIE2, for circuits between DMA channels."""
    same = slave.index == master.index
    source, target = slave.bundle, master.bundle
    if source in ("trace", "ctrl", "core") or target in ("ctrl", "core", "fifo"):
        return False
    if kind is Kind.MEMORY:
        if source == "dma":
            return target != "dma" or same
        return target == "dma" or same
    if kind is Kind.SHIM:
        return source in ("fifo", "south") or source != target or same
    return source != target or same


def route(grid: Grid, flows: Sequence[Flow], kept: Sequence[Route] = ()) -> Routing:
    """Routes for all flows at once, beside those of `kept`, which flows that have one take.

    Raises UsageError where a channel is used twice, FitError where it does not exist or where the ports do not suffice: demand
    and bound are those of a border that too many circuits cross, or of the side of a switch that most want.
    """
    _check(grid, flows)
    _check_cuts(grid, flows)
    nets = [_Net(_entrance(grid, f.source), tuple(_exit(grid, d) for d in f.destinations)) for f in flows]
    history: Counter[Wire] = Counter()
    given = {r.flow: {Wire(c.tile, c.master): _Position(c.tile, c.slave) for c in r.connections} for r in kept}
    others = [tree for f, tree in given.items() if f not in flows]
    trees: list[dict[Wire, _Position]] = [*(given.get(f, {}) for f in flows), *others]
    free = [i for i, f in enumerate(flows) if f not in given]
    present, again = _PRESENT, free
    fewest, patience = len(nets) * grid.columns * grid.rows, _PATIENCE
    while patience:
        for i in again:
            trees[i] = {}
            users = Counter(w for tree in trees for w in tree)
            trees[i] = _tree(grid, nets[i], users, history, present)
        users = Counter(w for tree in trees for w in tree)
        shared = {w for w, n in users.items() if n > 1}
        if not shared:
            return Routing(grid, tuple(Route(f, _connections(t)) for f, t in zip(flows, trees[: len(flows)], strict=True)))
        history.update(shared)
        fewest, patience = (len(shared), _PATIENCE) if len(shared) < fewest else (fewest, patience - 1)
        present *= _GROWTH
        again = [i for i in free if shared & trees[i].keys()]
    raise _congestion(grid, trees, shared)


def circuits(grid: Grid, values: Mapping[int, int]) -> tuple[Circuit, ...]:
    """Which channels are joined when registers hold `values` (by address, 0 where absent), in the order of sources.

    Raises StreamError where a switch is set to packets, names a slave port that it has not, that cannot feed the master or is
    off, or where a stream ends at a port that leads nowhere.
    """
    feeds = _feeds(grid, values)
    found = []
    for tile in sorted(grid.tiles()):
        for channel, slave in _sources(grid, tile, values):
            found += _follow(grid, values, feeds, Channel(tile, channel), slave)
    return tuple(found)


@dataclass(frozen=True, slots=True, order=True)
class _Position:
    """Where a stream enters a switch."""

    tile: Tile
    port: Port


@dataclass(frozen=True, slots=True)
class _Net:
    start: _Position
    ends: tuple[Wire, ...]


def _entrance(grid: Grid, source: Channel) -> _Position:
    """The slave port that an MM2S channel drives."""
    if grid.kind(source.tile) is Kind.SHIM:
        return _Position(source.tile, Port("south", SHIM_SLAVE[source.index]))
    return _Position(source.tile, Port("dma", source.index))


def _exit(grid: Grid, end: Channel) -> Wire:
    """The master port that drives an S2MM channel."""
    if grid.kind(end.tile) is Kind.SHIM:
        return Wire(end.tile, Port("south", SHIM_MASTER[end.index]))
    return Wire(end.tile, Port("dma", end.index))


def _arrival(grid: Grid, wire: Wire) -> _Position | None:
    """Where a master port's wire enters the neighbour's switch; None for what leaves the network."""
    side = _SIDES.get(wire.port.bundle)
    if side is None:
        return None
    tile = Tile(wire.tile.column + side[0], wire.tile.row + side[1])
    port = Port(side[2], wire.port.index)
    return _Position(tile, port) if grid.has(tile) and port in ports(grid.kind(tile), False) else None


def _check(grid: Grid, flows: Sequence[Flow]) -> None:
    """Channels exist and are used once."""
    for flow in flows:
        check_channel(grid, flow.source.tile, Direction.MM2S, flow.source.index)
        if not flow.destinations:
            raise UsageError(f"the circuit from {flow.source} has no destination: give one")
        for end in flow.destinations:
            check_channel(grid, end.tile, Direction.S2MM, end.index)
    for name, used in (("sources", [f.source for f in flows]), ("destinations", [d for f in flows for d in f.destinations])):
        twice = next((c for c, n in Counter(used).items() if n > 1), None)
        if twice:
            raise UsageError(f"{twice} is among the {name} of circuits more than once: a channel takes part in one circuit")


def _check_cuts(grid: Grid, flows: Sequence[Flow]) -> None:
    """FitError where more circuits have to cross a line between rows or columns, or to enter or leave a tile, than wires do."""
    ends = [(f.source.tile, {d.tile for d in f.destinations}) for f in flows]
    for name, inside in _regions(grid):
        for way, demand, wires in (
            ("out of", sum(s in inside and not e <= inside for s, e in ends), _crossing(grid, inside, outwards=True)),
            ("into", sum(s not in inside and bool(e & inside) for s, e in ends), _crossing(grid, inside, outwards=False)),
        ):
            if demand > wires:
                raise FitError(
                    f"the routing {way} {name}",
                    demand=f"{demand} circuits",
                    bound=f"{wires} wires that lead {way} it",
                    remedy=_REMEDY,
                )


@cache
def _regions(grid: Grid) -> tuple[tuple[str, frozenset[Tile]], ...]:
    """Parts of the array whose borders are counted: single tiles, lowest rows, western columns."""
    tiles = tuple(grid.tiles())
    return (
        *((f"{grid.kind(t).value} tile {t}", frozenset({t})) for t in tiles),
        *((f"rows 0 to {r}", frozenset(t for t in tiles if t.row <= r)) for r in range(grid.rows - 1)),
        *((f"columns 0 to {c}", frozenset(t for t in tiles if t.column <= c)) for c in range(grid.columns - 1)),
    )


@cache
def _crossing(grid: Grid, inside: frozenset[Tile], outwards: bool) -> int:
    """Wires that cross a region's border one way."""
    count = 0
    for tile in inside:
        for bundle, (column, row, opposite) in _SIDES.items():
            other = Tile(tile.column + column, tile.row + row)
            if other not in inside and grid.has(other):
                near, far = grid.kind(tile), grid.kind(other)
                count += _width(near, far, bundle, opposite) if outwards else _width(far, near, opposite, bundle)
    return count


@cache
def _width(source: Kind, target: Kind, leaving: str, entering: str) -> int:
    """Wires from one tile to its neighbour."""
    return min(sum(p.bundle == leaving for p in ports(source, True)), sum(p.bundle == entering for p in ports(target, False)))


def _tree(grid: Grid, net: _Net, users: Mapping[Wire, int], history: Mapping[Wire, int], present: float) -> dict[Wire, _Position]:
    """The wires of a net, each with the position that feeds it; the nearest ends first."""
    tree: dict[Wire, _Position] = {}
    for end in sorted(net.ends, key=lambda w: (_distance(net.start.tile, w.tile), w)):
        tree.update(_path(grid, net.start, tree, end, users, history, present))
    return tree


def _distance(a: Tile, b: Tile) -> int:
    return abs(a.column - b.column) + abs(a.row - b.row)


def _path(
    grid: Grid,
    start: _Position,
    tree: Mapping[Wire, _Position],
    end: Wire,
    users: Mapping[Wire, int],
    history: Mapping[Wire, int],
    present: float,
) -> dict[Wire, _Position]:
    """The cheapest new wires from the start or a place that the tree already reaches to `end`, by A* (Manhattan distance)."""
    reached = [start, *(p for w in tree if (p := _arrival(grid, w)))]
    heap: list[tuple[float, float, int, _Position]] = []
    best = dict.fromkeys(reached, 0.0)
    via: dict[_Position, tuple[Wire, _Position]] = {}
    for count, position in enumerate(reached):
        heappush(heap, (_distance(position.tile, end.tile) + 1.0, 0.0, count, position))
    pushed = len(reached)
    while heap:
        _, cost, _, position = heappop(heap)
        cost = -cost
        if cost > best[position]:
            continue
        for master in masters_of(grid.kind(position.tile), position.port):
            wire = Wire(position.tile, master)
            if wire == end:
                return _unwind(via, wire, position)
            after = _arrival(grid, wire)
            if after is None:
                continue
            total = cost + (1 + _HISTORY * history.get(wire, 0)) * (1 + present * users.get(wire, 0))
            if total < best.get(after, float("inf")):
                best[after], via[after] = total, (wire, position)
                heappush(heap, (total + _distance(after.tile, end.tile) + 1.0, -total, pushed, after))
                pushed += 1
    raise InternalError(f"no wires lead from tile {start.tile} to tile {end.tile}, port {end.port}")


def _unwind(via: Mapping[_Position, tuple[Wire, _Position]], wire: Wire, position: _Position) -> dict[Wire, _Position]:
    """The wires of a path in order, each with what feeds it."""
    path = [(wire, position)]
    while position in via:
        wire, position = via[position]
        path.append((wire, position))
    return dict(reversed(path))


def _connections(tree: Mapping[Wire, _Position]) -> tuple[Connection, ...]:
    return tuple(Connection(wire.tile, position.port, wire.port) for wire, position in tree.items())


def _congestion(grid: Grid, trees: Sequence[Mapping[Wire, _Position]], shared: set[Wire]) -> FitError:
    """The side of a switch that most circuits want, of those where ports are shared."""
    wanted = {(w.tile, w.port.bundle) for w in shared}
    counts = {side: sum(any((w.tile, w.port.bundle) == side for w in tree) for tree in trees) for side in sorted(wanted)}
    (tile, bundle), count = max(counts.items(), key=lambda item: item[1])
    kind = grid.kind(tile)
    bound = sum(p.bundle == bundle for p in ports(kind, True))
    return FitError(
        f"the routing at {kind.value} tile {tile}",
        demand=f"{count} circuits out of its {bundle} side",
        bound=f"{bound} ports there",
        remedy=_REMEDY,
    )


def _feeds(grid: Grid, values: Mapping[int, int]) -> dict[_Position, list[Wire]]:
    """The masters that each slave port feeds, by what the registers hold."""
    feeds: dict[_Position, list[Wire]] = {}
    for tile in grid.tiles():
        kind = grid.kind(tile)
        slaves = ports(kind, False)
        for master in ports(kind, True):
            value = values.get(register_address(grid, tile, f"master.{master}"), 0)
            if not MASTER_ENABLE.get(value):
                continue
            where = f"{kind.value} tile {tile}, master port {master}"
            if MASTER_PACKET.get(value):
                raise StreamError(f"{where}: it is set to packets ({value:#010x}), and only circuits are executed")
            if rest := value & ~(MASTER_ENABLE.mask | MASTER_SLAVE.mask):
                raise StreamError(f"{where}: it has bits {rest:#x} set, which mean nothing for a circuit")
            number = MASTER_SLAVE.get(value)
            if number >= len(slaves) or master not in masters_of(kind, slaves[number]):
                name = str(slaves[number]) if number < len(slaves) else f"number {number}"
                raise StreamError(f"{where}: its switch cannot feed it from slave port {name}")
            state = values.get(register_address(grid, tile, f"slave.{slaves[number]}"), 0)
            if not SLAVE_ENABLE.get(state) or SLAVE_PACKET.get(state):
                raise StreamError(
                    f"{where}: slave port {slaves[number]}, which feeds it, is {'set to packets' if state else 'off'}"
                )
            feeds.setdefault(_Position(tile, slaves[number]), []).append(Wire(tile, master))
    return feeds


def _sources(grid: Grid, tile: Tile, values: Mapping[int, int]) -> list[tuple[int, Port]]:
    """The MM2S channels of a tile that reach its switch, with their slave ports."""
    if not grid.has_dma(tile):
        return []
    kind = grid.kind(tile)
    if kind is Kind.SHIM:
        mux = values.get(register_address(grid, tile, "mux"), 0)
        return [(c, Port("south", p)) for c, p in SHIM_SLAVE.items() if MUX[p].get(mux) == MUX_DMA]
    return [(p.index, p) for p in ports(kind, False) if p.bundle == "dma"]


def _follow(
    grid: Grid, values: Mapping[int, int], feeds: Mapping[_Position, list[Wire]], source: Channel, slave: Port
) -> list[Circuit]:
    """All ends of the stream of one channel."""
    found, todo, seen = [], [(_Position(source.tile, slave), 1)], set()
    while todo:
        position, hops = todo.pop(0)
        if position in seen:
            raise StreamError(f"the stream of {source} returns to {position.tile}, slave port {position.port}")
        seen.add(position)
        wires = feeds.get(position, [])
        if not wires and hops > 1:
            raise StreamError(
                f"the stream of {source} ends at tile {position.tile}, slave port {position.port}, which feeds nothing"
            )
        for wire in wires:
            if (end := _end(grid, values, wire)) is not None:
                found.append(Circuit(source, Channel(wire.tile, end), hops))
            elif (after := _arrival(grid, wire)) is not None:
                todo.append((after, hops + 1))
            else:
                raise StreamError(f"the stream of {source} leaves the array at tile {wire.tile}, master port {wire.port}")
    return found


def _end(grid: Grid, values: Mapping[int, int], wire: Wire) -> int | None:
    """The S2MM channel that a master port drives, None for other ports."""
    if wire.port.bundle == "dma":
        return wire.port.index
    if grid.kind(wire.tile) is Kind.SHIM and wire.port.bundle == "south" and grid.has_dma(wire.tile):
        demux = values.get(register_address(grid, wire.tile, "demux"), 0)
        return next((c for c, p in SHIM_MASTER.items() if p == wire.port.index and DEMUX[p].get(demux) == MUX_DMA), None)
    return None
