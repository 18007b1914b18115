"""Writes descriptors and starts tasks: numbers of descriptors, chains of them, and queues."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace

from sparsec.backends.aie.descriptors import Descriptor
from sparsec.backends.aie.registers import DMAS, Direction, Grid, Kind, Tile, register_address
from sparsec.backends.aie.transaction import Operation, Patch, Task, start, write_descriptor
from sparsec.compiler.errors import FitError

Part = tuple[Descriptor, int | None, int]  # a descriptor; for a shim the argument and offset of its base
Parts = list[Part]
S2MM, MM2S = Direction.S2MM, Direction.MM2S
_REPEATS = 256  # that one task does


@dataclass
class _Descriptors:
    """Gives out the numbers of a tile's descriptors."""

    grid: Grid
    tile: Tile
    node: str
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
        return half * each + self.used[half] - 1


class Writer:
    """Writes the descriptors and tasks of one layer."""

    def __init__(self, grid: Grid, node: str) -> None:
        self.grid, self.node = grid, node
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
        made = self._descriptors.setdefault(tile, _Descriptors(self.grid, tile, self.node))
        return made.take(channel)
