"""Small control streams on a 2 x 2 array for tests of the simulator: circuits, descriptors and tasks in a line each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sparsec.backends.aie.core.assembly import assemble
from sparsec.backends.aie.descriptor_forms import OWN_WORDS
from sparsec.backends.aie.descriptors import OWN_LOCKS, Acquire, Descriptor, Dim, Pad, Release, ShimDescriptor
from sparsec.backends.aie.machine import Machine, machine_named
from sparsec.backends.aie.registers import CORE_ENABLE, Direction, Grid, Tile, register_address
from sparsec.backends.aie.simulate.memory import Region, Words
from sparsec.backends.aie.simulate.run import Finished, simulate
from sparsec.backends.aie.switch import Channel, Flow, route
from sparsec.backends.aie.transaction import Operation, Patch, Sync, Task, Transaction, start, write, write_descriptor

Array = np.ndarray[Any, Any]
MACHINE: Machine = machine_named("aie2:2x2")
GRID: Grid = MACHINE.grid
SHIM, MEMORY, CORE, UPPER = Tile(0, 0), Tile(0, 1), Tile(0, 2), Tile(0, 3)
IN, OUT = Direction.S2MM, Direction.MM2S

# DDR 0 -> memory 0 -> both cores' 0 (one stream); core 0 -> memory 1 -> DDR 0; DDR 1 -> memory 2 -> lower core's 1
FLOWS = (
    Flow(Channel(SHIM, 0), (Channel(MEMORY, 0),)),
    Flow(Channel(MEMORY, 0), (Channel(CORE, 0), Channel(UPPER, 0))),
    Flow(Channel(CORE, 0), (Channel(MEMORY, 1),)),
    Flow(Channel(MEMORY, 1), (Channel(SHIM, 0),)),
    Flow(Channel(SHIM, 1), (Channel(MEMORY, 2),)),
    Flow(Channel(MEMORY, 2), (Channel(CORE, 1),)),
)


@dataclass
class Stream:
    """A control stream that grows. It begins with the circuits."""

    operations: list[Operation] = field(default_factory=lambda: list(route(GRID, list(FLOWS)).writes()))

    def task(
        self,
        tile: Tile,
        direction: Direction,
        channel: int,
        number: int,
        descriptor: Descriptor,
        repeat: int = 1,
        *,
        token: bool = False,
        argument: int | None = None,
    ) -> None:
        """Write a descriptor (a shim's base is then an offset in an argument) and start it."""
        self.operations.append(write_descriptor(GRID, tile, number, descriptor))
        if argument is not None:
            assert isinstance(descriptor, ShimDescriptor)
            self.operations.append(Patch(register_address(GRID, tile, f"bd{number}.1"), argument, descriptor.base))
        self.operations.append(start(GRID, tile, direction, channel, Task(number, repeat, token)))

    def write(self, tile: Tile, name: str, value: int) -> None:
        """Set a register."""
        self.operations.append(write(GRID, tile, name, value))

    def enable(self, tile: Tile) -> None:
        """Start a core."""
        self.write(tile, "core.control", CORE_ENABLE.put(1))

    def sync(self, tile: Tile = SHIM, channel: int = 0) -> None:
        """Wait for the token of an S2MM channel."""
        self.operations.append(Sync(tile, IN, channel))

    def run(
        self,
        arguments: Sequence[Array],
        programs: Mapping[Tile, str] | None = None,
        names: Sequence[str] = ("activations", "weights"),
        machine: Machine = MACHINE,
        regions: Sequence[Region] = (),
    ) -> Finished:
        """Simulate what the stream's bytes say; cores without a text have a program that stops."""
        texts = dict.fromkeys(GRID.cores(), "done") | dict(programs or {})
        control = Transaction.decode(Transaction(GRID, tuple(self.operations)).encode())
        buffers = [Words.full(n, a.view(np.uint8).reshape(-1)) for n, a in zip(names, arguments, strict=False)]
        return simulate(machine, control, {t: assemble(s) for t, s in texts.items()}, buffers, 10**6, regions)


def own(word: int) -> int:
    """A word of a memory tile as its descriptors count."""
    return OWN_WORDS + word


def acquire(lock: int, value: int = 1) -> Acquire:
    """A memory tile's own lock."""
    return Acquire(OWN_LOCKS + lock, value)


def release(lock: int, value: int = 1) -> Release:
    """A memory tile's own lock."""
    return Release(OWN_LOCKS + lock, value)


def walk(length: int, dims: Sequence[Dim], pads: Sequence[Pad] = ()) -> Iterator[int | None]:
    """Offsets of a descriptor's words one by one, None for zeros: counters that carry, as a machine would have them."""
    pads = [*pads, *[Pad()] * (len(dims) - len(pads))]
    counters = [0] * len(dims)
    for _ in range(length):
        places = [n - pad.before for n, pad in zip(counters, pads, strict=True)]
        inside = all(0 <= p and (not d.wrap or p < d.wrap) for p, d in zip(places, dims, strict=True))
        yield sum(p * d.step for p, d in zip(places, dims, strict=True)) if inside else None
        for i, (dim, pad) in enumerate(zip(dims, pads, strict=True)):
            counters[i] += 1
            if not dim.wrap or counters[i] < pad.before + dim.wrap + pad.after:
                break
            counters[i] = 0
