"""Writes descriptors and starts tasks: numbers of descriptors, chains of them, and queues."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace

from sparsec.backends.aie.descriptors import Descriptor
from sparsec.backends.aie.registers import DMAS, Direction, Grid, Kind, Tile, register_address, register_name, split
from sparsec.backends.aie.transaction import Operation, Patch, Task, Write, start, write_descriptor
from sparsec.compiler.errors import FitError

Part = tuple[Descriptor, int | None, int]  # a descriptor; for a shim the argument and offset of its base
Parts = list[Part]
Taken = dict[Tile, Counter[int]]
S2MM, MM2S = Direction.S2MM, Direction.MM2S
_REPEATS = 256  # that one task does


@dataclass
class _Descriptors:
    """Gives out the numbers of a tile's descriptors, from the first or from the last on."""

    grid: Grid
    tile: Tile
    node: str
    backwards: bool
    used: Counter[int] = field(default_factory=Counter)

    def take(self, channel: int) -> int:
        """A descriptor that a channel can run: in a memory tile, even and odd channels have half of them each."""
        kind = self.grid.kind(self.tile)
        halves = 2 if kind is Kind.MEMORY else 1
        each, half = DMAS[kind].descriptors // halves, channel % halves
        if self.used[half] == each:
            raise FitError(
                f"layer {self.node!r} in {kind.value} tile {self.tile}",
                demand=f"more than {each} descriptors",
                bound=f"{each} for its {'even and odd channels each' if halves == 2 else 'channels'}",
                remedy="cut the layer in another way",
                node=self.node,
            )
        self.used[half] += 1
        own = self.used[half]
        return half * each + (each - own if self.backwards else own - 1)


class Writer:
    """Writes the descriptors and tasks of one layer. `turn` counts the layers before: numbers come from both ends in turns."""

    def __init__(self, grid: Grid, node: str, turn: int) -> None:
        self.grid, self.node, self.turn = grid, node, turn
        self._descriptors: dict[Tile, _Descriptors] = {}

    def chain(
        self,
        tile: Tile,
        direction: Direction,
        channel: int,
        parts: Sequence[Part],
        repeat: int,
        *,
        token: bool = False,
    ) -> Iterator[Operation]:
        """Descriptors one after the other, the whole chain `repeat` times. A part is a descriptor, and for a shim the
        argument and offset of its base."""
        if not repeat:
            return
        first = yield from self.write(tile, channel, parts)
        yield from self.start(tile, direction, channel, first, repeat, token=token)

    def write(self, tile: Tile, channel: int, parts: Sequence[Part]) -> Generator[Operation, None, int]:
        """Write a chain; returns the number of its first descriptor."""
        numbers = [self._take(tile, channel) for _ in parts]
        for i, (made, argument, offset) in enumerate(parts):
            following = numbers[i + 1] if i + 1 < len(numbers) else None
            yield write_descriptor(self.grid, tile, numbers[i], replace(made, next=following))
            if argument is not None:
                yield Patch(register_address(self.grid, tile, f"bd{numbers[i]}.1"), argument, offset)
        return numbers[0]

    def start(
        self, tile: Tile, direction: Direction, channel: int, first: int, repeat: int, *, token: bool = False
    ) -> Iterator[Operation]:
        """Queue a chain that is written, in as many tasks as that takes; the last one gives the token."""
        while repeat:
            times = min(repeat, _REPEATS)
            repeat -= times
            yield start(self.grid, tile, direction, channel, Task(first, times, token and not repeat))

    def _take(self, tile: Tile, channel: int) -> int:
        made = self._descriptors.setdefault(tile, _Descriptors(self.grid, tile, self.node, self.turn % 2 == 1))
        return made.take(channel)

    def taken(self) -> Taken:
        """How many descriptors are given out, by tile and by half of a memory tile."""
        return {tile: Counter(d.used) for tile, d in self._descriptors.items()}


def without_room(grid: Grid, some: Taken, others: Taken) -> str:
    """The first tile that has too few descriptors for both, in words; "" where there is none."""
    for tile, own in some.items():
        kind = grid.kind(tile)
        each = DMAS[kind].descriptors // (2 if kind is Kind.MEMORY else 1)
        for half, count in own.items():
            both = count + others.get(tile, Counter())[half]
            if both > each:
                return f"{kind.value} tile {tile} has {each} descriptors, and both layers want {both}"
    return ""


def queue_of(grid: Grid, operation: Operation) -> tuple[Tile, Direction, int] | None:
    """The channel whose queue an operation puts a task into, None where it does something else."""
    if not isinstance(operation, Write):
        return None
    tile, offset = split(operation.address)
    name = register_name(grid.kind(tile), offset)
    if not name.endswith(".queue"):
        return None
    channel = name.removesuffix(".queue")
    return tile, Direction[channel[:4].upper()], int(channel[4:])
