"""The array as the control stream sees it: registers that mean descriptors, queues, locks, switches and cores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from sparsec.backends.aie.descriptor_forms import OWN_WORDS
from sparsec.backends.aie.descriptors import CLASSES, OWN_LOCKS, Descriptor, check_channel_descriptor
from sparsec.backends.aie.machine import Machine
from sparsec.backends.aie.registers import (
    BD_STRIDE,
    CASCADE_INPUT,
    CASCADE_OUTPUT,
    CORE_ENABLE,
    DMAS,
    LOCK_STRIDE,
    LOCKS,
    Direction,
    Kind,
    Tile,
    address,
    cascade_side,
    register,
    register_address,
    register_name,
    split,
)
from sparsec.backends.aie.simulate.cascade import Link
from sparsec.backends.aie.simulate.cores import CoreProcess
from sparsec.backends.aie.simulate.dma import Channel, Surroundings
from sparsec.backends.aie.simulate.events import Clock, Lock
from sparsec.backends.aie.simulate.memory import Ddr, Words
from sparsec.backends.aie.simulate.timeline import Cause, Timeline
from sparsec.backends.aie.switch import circuits
from sparsec.backends.aie.transaction import Write, task_of
from sparsec.compiler.errors import FitError, StreamError

Array = np.ndarray[Any, Any]
ChannelKey = tuple[Tile, Direction, int]


class ArrayState:
    """Every tile with its registers, memory, locks and channels; cores run programs."""

    def __init__(self, machine: Machine, programs: Mapping[Tile, bytes], ddr: Ddr) -> None:
        self.machine, self.grid, self.ddr = machine, machine.grid, ddr
        self.clock = Clock()
        self.registers: dict[int, int] = {}
        self.tokens: Counter[ChannelKey] = Counter()
        self.on_token: dict[ChannelKey, list[Any]] = {}
        self.memories: dict[Tile, Words] = {}
        self.locks: dict[Tile, list[Lock]] = {}
        self.channels: dict[ChannelKey, Channel] = {}
        self.cores: dict[Tile, CoreProcess] = {}
        self.links: dict[tuple[Tile, Tile], Link] = {}
        self.control = Timeline()
        self.operation: tuple[int, Write] | None = None
        self._advanced: dict[int, tuple[int, ...]] = {}  # by the identity of one that is in `_decoded`
        self._rewire = True
        self._decoded: dict[tuple[Kind, tuple[int, ...]], Descriptor] = {}
        for tile in self.grid.tiles():
            self._add(tile, programs)

    def _add(self, tile: Tile, programs: Mapping[Tile, bytes]) -> None:
        kind, m = self.grid.kind(tile), self.machine
        maximum = {Kind.SHIM: m.shim.lock_maximum, Kind.MEMORY: m.memory.lock_maximum, Kind.CORE: m.core.lock_maximum}[kind]
        self.locks[tile] = [Lock(f"{kind.value}{tile}.lock{i}", maximum) for i in range(LOCKS[kind])]
        if kind is Kind.MEMORY:
            self.memories[tile] = Words.empty(f"{kind.value}{tile}", m.memory.data_bytes)
        if kind is Kind.CORE and tile in programs:
            link = partial(self.link, tile)
            self.cores[tile] = CoreProcess(m, self.clock, tile, programs[tile], self.locks[tile], link)
        if self.grid.has_dma(tile):
            for direction in Direction:
                for i in range(DMAS[kind].channels):
                    self.channels[tile, direction, i] = self._channel(tile, kind, direction, i)

    def _channel(self, tile: Tile, kind: Kind, direction: Direction, index: int) -> Channel:
        def token() -> None:
            self.tokens[tile, direction, index] += 1
            for action in self.on_token.pop((tile, direction, index), []):
                action()

        around = Surroundings(
            kind,
            lambda n: self.descriptor(tile, n),
            lambda n, d: self.advance_descriptor(tile, n, d),
            lambda n: self.lock(tile, n),
            lambda words: self.place(tile, words),
            lambda begin, end, words: self.cores[tile].touch(begin, end, words),
            token,
            self._cause,
        )
        rate = 1.0
        if kind is Kind.SHIM:
            shims = len(self.machine.shim.columns)
            per_column = (
                self.machine.shim.read_bytes_per_cycle if direction is Direction.MM2S else self.machine.shim.write_bytes_per_cycle
            )
            share = min(per_column, self.machine.costs.ddr_bytes_per_cycle / shims) / DMAS[kind].channels
            rate = min(1.0, share / self.machine.streams.bytes_per_cycle)
        name = f"{kind.value}{tile}.{direction.name.lower()}{index}"
        return Channel(name, direction, self.clock, self.machine.costs, around, self.machine.streams.queue_depth, rate)

    def _cause(self, direction: Direction, tag: int) -> Cause:
        """What a core lost time to that waited for a channel which moved words with a tag."""
        if direction is Direction.MM2S:
            return Cause.RESULTS
        region = self.ddr.regions.get(tag)
        return Cause.WEIGHTS if region and region.weights else Cause.DATA

    def link(self, tile: Tile, puts: bool) -> tuple[Link, CoreProcess]:
        """The cascade to the neighbour that a core puts words to, or from the one it gets them from, and that neighbour.
        StreamError when its registers lead nowhere, or to a neighbour whose registers do not lead back."""
        side, (column, row) = cascade_side(self._accumulators(tile), puts=puts)
        other = Tile(tile.column + column, tile.row + row)
        what = f"its cascade {'goes' if puts else 'comes from'} {side}"
        if not self.grid.has(other) or self.grid.kind(other) is not Kind.CORE:
            raise StreamError(f"{what}, where the array has no core")
        if other not in self.cores:
            raise StreamError(f"{what}, where core{other} has no program")
        back, step = cascade_side(self._accumulators(other), puts=not puts)
        if (step[0] + column, step[1] + row) != (0, 0):
            raise StreamError(f"{what}, where the cascade of core{other} {'comes from' if puts else 'goes'} {back}")
        ends = (tile, other) if puts else (other, tile)
        if ends not in self.links:
            words, costs = self.machine.streams.cascade_words, self.machine.costs
            self.links[ends] = Link(f"core{ends[0]}", f"core{ends[1]}", words, costs.cascade)
        return self.links[ends], self.cores[other]

    def _accumulators(self, tile: Tile) -> int:
        return self.registers.get(register_address(self.grid, tile, "accumulators"), 0)

    def untaken(self) -> str | None:
        """The first word in a cascade that nobody has taken, in words; None when there is none."""
        for (source, _), link in self.links.items():
            if (i := len(link.gets)) < len(link.puts):
                where = self.cores[source].core.told(link.bundles[i])
                return (
                    f"cycle {link.puts[i]}, {link.source}, {where}: {link.destination} never takes this word out of the cascade"
                )
        return None

    def lock(self, tile: Tile, number: int) -> Lock:
        """A lock as descriptors of the tile number it: a memory tile's own follow its western neighbour's."""
        if self.grid.kind(tile) is Kind.MEMORY:
            side, number = divmod(number, OWN_LOCKS)
            tile = Tile(tile.column + side - 1, tile.row)
            if not self.grid.has(tile):
                raise StreamError(f"lock {number} of the neighbour {tile}, which the array does not have")
        if number >= len(self.locks[tile]):
            raise StreamError(f"there is no lock {number}: the tile has {len(self.locks[tile])}")
        return self.locks[tile][number]

    def place(self, tile: Tile, words: Array) -> Sequence[tuple[Words, Array, Array]]:
        """(memory, places, which) of word addresses as descriptors of the tile count them."""
        kind = self.grid.kind(tile)
        everything = np.arange(words.size)
        if kind is Kind.SHIM:
            memory, places = self.ddr.place(words)
            return [(memory, places, everything)]
        if kind is Kind.CORE:
            if tile not in self.cores:
                raise StreamError(f"core{tile} has no program, so its memory is not there")
            return [(self.cores[tile].memory, words, everything)]
        low, high = int(words.min()) // OWN_WORDS, int(words.max()) // OWN_WORDS
        found = []
        for side in (low,) if low == high else np.unique(words // OWN_WORDS):
            owner = Tile(tile.column + int(side) - 1, tile.row)
            if owner not in self.memories:
                raise StreamError(
                    f"memory{tile}: the word at {4 * int(words.min()):#x} is a neighbour's that the array does not have"
                )
            chosen = everything if low == high else np.flatnonzero(words // OWN_WORDS == side)
            found.append((self.memories[owner], words[chosen] - int(side) * OWN_WORDS, chosen))
        return found

    def descriptor(self, tile: Tile, number: int) -> Descriptor:
        """The descriptor that the tile's registers hold."""
        kind = self.grid.kind(tile)
        base = address(tile, DMAS[kind].bd_base + number * BD_STRIDE)
        words = tuple(self.registers.get(base + 4 * i, 0) for i in range(DMAS[kind].words))
        if (kind, words) not in self._decoded:
            self._decoded[kind, words] = CLASSES[kind].decode(words)
        return self._decoded[kind, words]

    def advance_descriptor(self, tile: Tile, number: int, descriptor: Descriptor) -> None:
        """Write a descriptor back that has been carried out, as its iteration moves on."""
        if descriptor.iteration.wrap == 1:
            return
        kind = self.grid.kind(tile)
        base = address(tile, DMAS[kind].bd_base + number * BD_STRIDE)
        if id(descriptor) not in self._advanced:
            advanced = descriptor.advanced()
            words = self._advanced[id(descriptor)] = advanced.encode()
            self._decoded.setdefault((kind, words), advanced)
        for i, word in enumerate(self._advanced[id(descriptor)]):
            self.registers[base + 4 * i] = word

    def write(self, address: int, value: int) -> None:
        """Set a register, and do what that does. StreamError where nothing is at the address."""
        tile, offset = split(address)
        kind = self.grid.kind(tile)
        if kind is not Kind.SHIM and offset < self._data_bytes(kind):
            if tile not in self.memories and tile not in self.cores:
                raise StreamError(f"core{tile} has no program, so its memory is not there")
            memory = self.memories.get(tile) or self.cores[tile].memory
            memory.write(np.array([offset // 4]), np.array([value], np.uint32))
            return
        name = register_name(kind, offset)
        if name.startswith(("0x", "data+", "program+")):
            raise StreamError(f"{kind.value}{tile} has nothing at offset {offset:#x} that a control stream can write here")
        self.registers[address] = value
        if name == "accumulators" and value & ~(CASCADE_INPUT.mask | CASCADE_OUTPUT.mask):
            raise StreamError(f"{kind.value}{tile} has no bits {value:#x} to say where its cascade comes from and goes")
        first = register(kind, "lock0")
        if first <= offset < first + LOCK_STRIDE * LOCKS[kind]:
            self.locks[tile][(offset - first) // LOCK_STRIDE].set(value)
        for direction, base in DMAS[kind].control.items():
            index, part = divmod(offset - base, 8)
            if part == 4 and 0 <= index < DMAS[kind].channels:
                self.connect()
                if (tile, direction, index) not in self.channels:
                    raise StreamError(f"{kind.value}{tile} has no DMA: its column does not reach DDR")
                task = task_of(kind, value)
                try:
                    check_channel_descriptor(kind, index, task.descriptor)
                except FitError as exc:
                    raise StreamError(str(exc)) from exc
                self.channels[tile, direction, index].push(task, self._origin())
        if kind is Kind.CORE and offset == register(kind, "core.control") and CORE_ENABLE.get(value):
            if tile not in self.cores:
                raise StreamError(f"core{tile} is enabled and has no program")
            self.cores[tile].start()
        if name.startswith(("master.", "slave.", "mux", "demux")):
            self._rewire = True

    def _origin(self) -> str:
        if self.operation is None:
            return ""
        number, operation = self.operation
        return f"operation {number}, `{operation.text(self.grid)}`"

    def _data_bytes(self, kind: Kind) -> int:
        return self.machine.memory.data_bytes if kind is Kind.MEMORY else self.machine.core.data_bytes

    def connect(self) -> None:
        """Join channels by the circuits that the switches' registers make, if these have changed."""
        if not self._rewire:
            return
        self._rewire = False
        before = {key: list(channel.peers) for key, channel in self.channels.items() if channel.moving}
        for channel in self.channels.values():
            channel.peers.clear()
        for c in circuits(self.grid, self.registers):
            source = self.channels[c.source.tile, Direction.MM2S, c.source.index]
            end = self.channels[c.destination.tile, Direction.S2MM, c.destination.index]
            source.peers.append((end, c.hops))
            end.peers.append((source, c.hops))
        for key, peers in before.items():
            if {id(p) for p, _ in peers} != {id(p) for p, _ in self.channels[key].peers}:
                raise StreamError(f"the circuits of {self.channels[key].name} have changed while words come through them")
