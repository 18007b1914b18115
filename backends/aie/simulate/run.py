"""Run a control stream on the array: values, cycles, and what took them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sparsec.backends.aie.core.instructions import ADDING
from sparsec.backends.aie.machine import Machine
from sparsec.backends.aie.registers import Grid, Tile
from sparsec.backends.aie.simulate.array import ArrayState, ChannelKey
from sparsec.backends.aie.simulate.memory import Ddr, Region, Words
from sparsec.backends.aie.simulate.timeline import Cause
from sparsec.backends.aie.transaction import BlockWrite, MaskWrite, Operation, Patch, Sync, Transaction, Write
from sparsec.compiler.errors import SparsecError, StreamError

_LIMIT = 10**9


@dataclass(frozen=True)
class Finished:
    """A run: all cycles, the cycle at which each operation of the control stream was done, and the array as it was left."""

    cycles: int
    marks: tuple[int, ...]
    array: ArrayState

    def macs(self, tile: Tile) -> int:
        """Products that a core has computed; those with values of a sparse B that are not stored do not count."""
        core = self.array.cores[tile].core
        per = {"mac": 256, "mul": 256, "mace": 32, "mule": 32, "macbf": 128, "macbft": 128, "macebf": 16}
        per |= {"macsp": 256, "mulsp": 256, "macbfsp": 128}
        per |= {name: per[product] for name, product in ADDING.items()}
        counts = core.vector_counts()
        return sum(per.get(name, 0) * n for name, n in counts.items())


def simulate(
    machine: Machine,
    control: Transaction,
    programs: Mapping[Tile, bytes],
    arguments: Sequence[Words],
    limit: int = _LIMIT,
    regions: Sequence[Region] = (),
) -> Finished:
    """Carry out `control` with cores that hold `programs` and DDR buffers `arguments` (which results are written to).

    `regions` give names to parts of the buffers, for reports.

    StreamError, with cycle and tile, for whatever the array cannot do, and for a deadlock: who waits for what.
    """
    if _extent(control.grid) != _extent(machine.grid):
        raise StreamError(
            f"the control stream is for {_extent(control.grid)}: the machine {machine.name} has {_extent(machine.grid)}"
        )
    array = ArrayState(machine, programs, Ddr(arguments, regions))
    controller = _Controller(array, control.operations)
    try:
        array.clock.at(0, controller.step)
        array.clock.run(limit)
    except SparsecError as exc:
        if str(exc).startswith("cycle "):
            raise
        raise StreamError(f"cycle {array.clock.now}: {exc}") from exc
    if controller.at < len(control.operations):
        raise StreamError(f"cycle {array.clock.now}: deadlock: {'; '.join(_waiting(array, controller))}")
    if starved := next((w for c in array.cores.values() if c.coupled and (w := c.waits_for)), None):
        raise StreamError(f"cycle {array.clock.now}: the control stream has ended, and still waits {starved}")
    if lost := array.untaken():
        raise StreamError(lost)
    return Finished(controller.marks[-1] if controller.marks else 0, tuple(controller.marks), array)


def _extent(grid: Grid) -> str:
    return f"{grid.columns} columns of {grid.memory_rows} memory tiles and {grid.core_rows} cores"


def _waiting(array: ArrayState, controller: _Controller) -> list[str]:
    channels = [w for c in array.channels.values() if (w := c.waits_for())]
    return [controller.waits_for(), *(w for c in array.cores.values() if (w := c.waits_for)), *channels]


class _Controller:
    """The control stream's operations one after the other, each for the time that its words take."""

    def __init__(self, array: ArrayState, operations: Sequence[Operation]) -> None:
        self.array, self.operations = array, operations
        self.at = 0
        self._begun = 0
        self.marks: list[int] = []

    def waits_for(self) -> str:
        """In words."""
        return f"the control stream at operation {self.at}, `{self.operations[self.at].text(self.array.grid)}`"

    def step(self) -> None:
        """Carry out the next operation when its words have arrived."""
        if self.at == len(self.operations):
            return
        words = len(self.operations[self.at].words())
        self._begun = self.array.clock.now
        self.array.clock.at(self.array.clock.now + words * self.array.machine.costs.control_word, self._do)

    def _do(self) -> None:
        operation = self.operations[self.at]
        now = self.array.clock.now
        self.array.control.add(self._begun, now, Cause.BUSY, 0, self.at, 1)
        self._begun = now
        try:
            if isinstance(operation, Sync):
                self._sync(operation)
                return
            self._write(operation)
        except SparsecError as exc:
            if str(exc).startswith("cycle "):
                raise
            raise StreamError(f"cycle {now}, operation {self.at}, `{operation.text(self.array.grid)}`: {exc}") from exc
        self._done()

    def _done(self) -> None:
        self.array.control.add(self._begun, self.array.clock.now, Cause.PEER, 0, self.at)
        self.marks.append(self.array.clock.now)
        self.at += 1
        self.step()

    def _write(self, operation: Operation) -> None:
        array = self.array
        if isinstance(operation, Write):
            array.operation = (self.at, operation)
            array.write(operation.address, operation.value)
        elif isinstance(operation, BlockWrite):
            for i, value in enumerate(operation.values):
                array.write(operation.address + 4 * i, value)
        elif isinstance(operation, MaskWrite):
            old = array.registers.get(operation.address, 0)
            array.write(operation.address, (old & ~operation.mask) | (operation.value & operation.mask))
        elif isinstance(operation, Patch):
            base = array.ddr.address(operation.argument, operation.offset)
            array.registers[operation.address] = base & 0xFFFFFFFC
            high = array.registers.get(operation.address + 4, 0)
            array.registers[operation.address + 4] = (high & ~0xFFFF) | base >> 32

    def _sync(self, operation: Sync) -> None:
        keys: list[ChannelKey] = [
            (Tile(operation.tile.column + c, operation.tile.row + r), operation.direction, operation.channel)
            for c in range(operation.columns)
            for r in range(operation.rows)
        ]

        def attempt() -> None:
            missing = [k for k in keys if not self.array.tokens[k]]
            if missing:
                self.array.on_token.setdefault(missing[0], []).append(attempt)
                return
            for k in keys:
                self.array.tokens[k] -= 1
            self._done()

        attempt()
