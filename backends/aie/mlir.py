"""The emitted streams of an array part as a module of mlir-aie's `aie` and `aiex` dialects, in generic form.

Everything is read back from the streams: the control stream's operations and the cores' bundles, no plan of the lowering.

- `aie.flow`: circuits that the switches make when the first task starts; their register writes are left out of the sequence, as
  mlir-aie routes flows itself. Where the stream writes to switches later, which builds on ports that are in use by then,
  `aie.switchbox` and `aie.shim_mux` have these ports instead of flows, and later writes stay writes.
- `aie.lock`: locks that the stream sets, descriptors name, or cores' instructions use.
- `aie.buffer`: disjoint ranges of data memory that descriptors walk through or the stream writes.
- `aie.core`: the file with the core's bundles. Their encoding is ours, so mlir-aie cannot load them.
- `aie.runtime_sequence`: one operation of `aiex` for each of the stream, in its order. Descriptors are written while the
  program runs, several times under one number, so they are `aiex.npu.writebd`; `aie.mem` would start them once at load.

Operations, operands and attributes are those of mlir-aie's AIEOps.td and AIEX.td (development of version 1.4, 2026: values that
may be known only at run time are operands). `aiex.npu.writebd` stores no wrap of dimension 2 and no step of dimension 3 of a
memory tile, no compression and no AXI settings beside the burst (AIEDmaToNpu.cpp): descriptors with these are
`aiex.npu.blockwrite`. Comments say what descriptors do. What mlir-aie itself says to the text is not verified here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from sparsec.backends.aie.core.instructions import BUNDLE_BYTES, Slot, decode_bundle
from sparsec.backends.aie.descriptor_forms import OWN_WORDS, WORD_BYTES
from sparsec.backends.aie.descriptors import CLASSES, OWN_LOCKS, Descriptor
from sparsec.backends.aie.machine import Machine, machine_named
from sparsec.backends.aie.mlir_routes import flow_lines, switch_lines
from sparsec.backends.aie.mlir_sequence import Sequencer
from sparsec.backends.aie.mlir_text import INDEX, Region, Value, i32, memref, operation, quoted
from sparsec.backends.aie.registers import DATA_BYTES, DMAS, Grid, Kind, Tile, register_name, split
from sparsec.backends.aie.switch import Circuit, circuits
from sparsec.backends.aie.transaction import BlockWrite, MaskWrite, Patch, Sync, Transaction, Write, descriptor_at
from sparsec.compiler.errors import StreamError

_SWITCH = re.compile(r"(master|slave)\..*|mux|demux")


@dataclass(frozen=True, slots=True)
class CoreFile:
    """The program of a core: its file's path as seen from the module's, and its bundles."""

    path: str
    bundles: bytes


def part_text(machine: Machine, control: Transaction, arguments: Sequence[int], cores: Mapping[Tile, CoreFile]) -> str | None:
    """The module of a control stream; None where mlir-aie has no device that the array is, or is a part of.

    `arguments` are the bytes of the host's buffers, in the order of their numbers. Raises StreamError where the stream asks for
    another one, or sets switches to what is no circuit.
    """
    device = device_number(machine)
    if device is None:
        return None
    for op in control.operations:
        if isinstance(op, Patch) and op.argument >= len(arguments):
            raise StreamError(f"the control stream asks for argument {op.argument}: there are {len(arguments)}")
    grid = control.grid
    first = len(control.operations) if _wired_once(control) else _first_start(control)
    held = _registers(control, first)
    joined = circuits(grid, held)
    locks, ranges = _used(grid, control, cores)
    tiles = _tiles(grid, control, joined, locks, ranges, cores)
    names = {t: Value(f"tile_{t.column}_{t.row}", INDEX) for t in tiles}
    lock_values = {(t, n): Value(f"lock_{t.column}_{t.row}_{n}", INDEX) for t, n in locks}
    sequence = Sequencer(grid, lock_values)
    for i, op in enumerate(control.operations):
        if i >= first or not _sets_switch(grid, op):
            sequence.add(op)
    body = [line for t in tiles for line in operation("aie.tile", (), {"col": i32(t.column), "row": i32(t.row)}, names[t])]
    body += _lock_lines(names, lock_values)
    body += _buffer_lines(names, ranges)
    rewired = any(_sets_switch(grid, op) for op in control.operations[first:])
    body += switch_lines(grid, names, held) if rewired else flow_lines(names, joined)
    body += _core_lines(names, cores)
    body += [*sequence.globals(), *sequence.region(arguments), *operation("aie.end")]
    inner = operation("aie.device", (), {"device": i32(device), "sym_name": quoted("main")}, None, Region(body))
    return "".join(f"{line}\n" for line in operation("builtin.module", region=Region([*inner])))


def device_number(machine: Machine) -> int | None:
    """The number in mlir-aie's `AIEDevice` of the smallest device that the array is, or is a part of.

    npu1 (4 columns) is 4, its parts of 1 to 3 columns are 5 to 7, xcve2802 is 3.
    """
    npu, versal = machine_named("aie2:npu1"), machine_named("aie2:ve2802")
    if _within(machine, npu):
        return 4 + machine.columns % npu.columns
    return 3 if _within(machine, versal) else None


def _within(machine: Machine, whole: Machine) -> bool:
    return (
        machine.columns <= whole.columns
        and machine.rows <= whole.rows
        and machine.memory_rows == whole.memory_rows
        and set(machine.shim.columns) <= set(whole.shim.columns)
    )


def _wired_once(control: Transaction) -> bool:
    """Whether switches are set to circuits that stay: no register, or bits of it, is written twice."""
    keys: list[tuple[int, int]] = []
    for op in control.operations:
        if not _sets_switch(control.grid, op):
            continue
        if isinstance(op, BlockWrite):
            keys += [(op.address + WORD_BYTES * i, 0) for i in range(len(op.values))]
        elif isinstance(op, Write | MaskWrite):
            keys.append((op.address, op.mask if isinstance(op, MaskWrite) else 0))
    return len(set(keys)) == len(keys)


def _first_start(control: Transaction) -> int:
    """The index of the first operation that starts a task; the number of operations where none does."""
    for i, op in enumerate(control.operations):
        if isinstance(op, Write) and _name(control.grid, op.address).endswith(".queue"):
            return i
    return len(control.operations)


def _name(grid: Grid, address: int) -> str:
    tile, offset = split(address)
    return register_name(grid.kind(tile), offset) if grid.has(tile) else ""


def _sets_switch(grid: Grid, op: object) -> bool:
    """Whether an operation writes registers of switches, and nothing else."""
    if isinstance(op, BlockWrite):
        return all(_SWITCH.fullmatch(_name(grid, op.address + WORD_BYTES * i)) for i in range(len(op.values)))
    return isinstance(op, (Write, MaskWrite)) and bool(_SWITCH.fullmatch(_name(grid, op.address)))


def _registers(control: Transaction, end: int) -> dict[int, int]:
    """What the first `end` operations leave in registers, by address."""
    found: dict[int, int] = {}
    for op in control.operations[:end]:
        if isinstance(op, Write):
            found[op.address] = op.value
        elif isinstance(op, MaskWrite):
            found[op.address] = found.get(op.address, 0) & ~op.mask | op.value & op.mask
        elif isinstance(op, BlockWrite):
            found.update((op.address + WORD_BYTES * i, value) for i, value in enumerate(op.values))
    return found


_Locks = list[tuple[Tile, int]]
_Ranges = dict[Tile, list[tuple[int, int]]]


def _used(grid: Grid, control: Transaction, cores: Mapping[Tile, CoreFile]) -> tuple[_Locks, _Ranges]:
    """Locks by tile and number, and disjoint ranges (first word, end) of each tile's data memory."""
    locks = {(tile, n) for tile, core in cores.items() for n in _core_locks(core.bundles)}
    ranges: _Ranges = {}
    for op in dict.fromkeys(op for op in control.operations if isinstance(op, (Write, BlockWrite))):
        tile, offset = split(op.address)
        if not grid.has(tile):
            continue
        kind = grid.kind(tile)
        words = len(op.values) if isinstance(op, BlockWrite) else 1
        if isinstance(op, Write) and (lock := re.fullmatch(r"lock(\d+)", register_name(kind, offset))):
            locks.add((tile, int(lock[1])))
        elif offset < DATA_BYTES[kind]:
            ranges.setdefault(tile, []).append((offset // WORD_BYTES, offset // WORD_BYTES + words))
        elif (descriptor := _descriptor(grid, op)) is not None:
            locks |= set(_named_locks(grid, tile, descriptor))
            for owner, part in _walked(grid, tile, descriptor):
                ranges.setdefault(owner, []).append(part)
    return sorted(locks), {tile: _joined(parts) for tile, parts in sorted(ranges.items())}


def _descriptor(grid: Grid, op: Write | BlockWrite) -> Descriptor | None:
    """The descriptor that an operation writes as a whole, None where it writes none."""
    kind = grid.kind(split(op.address)[0])
    if not isinstance(op, BlockWrite) or descriptor_at(grid, op.address) is None or len(op.values) != DMAS[kind].words:
        return None
    try:
        return CLASSES[kind].decode(op.values)
    except StreamError:
        return None  # the words still stand in the sequence


@lru_cache(maxsize=64)
def _core_locks(bundles: bytes) -> frozenset[int]:
    """The locks that a core's instructions take and give."""
    found = set()
    for at in range(0, len(bundles), BUNDLE_BYTES):
        instruction = decode_bundle(bundles[at : at + BUNDLE_BYTES]).get(Slot.SCALAR)
        if instruction and instruction.form.name in ("acq", "rel"):
            found.add(instruction.operands[0])
    return frozenset(found)


def _owner(grid: Grid, tile: Tile, number: int, own: int) -> tuple[Tile, int]:
    """The tile, and the number in it, of what a descriptor counts through neighbouring memory tiles, `own` in each."""
    if grid.kind(tile) is not Kind.MEMORY:
        return tile, number
    side, rest = divmod(number, own)
    return Tile(tile.column + side - 1, tile.row), rest


def _named_locks(grid: Grid, tile: Tile, descriptor: Descriptor) -> Iterator[tuple[Tile, int]]:
    for use in (descriptor.acquire, descriptor.release):
        if use is not None and grid.has((found := _owner(grid, tile, use.lock, OWN_LOCKS))[0]):
            yield found


def _walked(grid: Grid, tile: Tile, descriptor: Descriptor) -> Iterator[tuple[Tile, tuple[int, int]]]:
    """The range of words between the first and the last that a descriptor moves, by owner."""
    if grid.kind(tile) is Kind.SHIM or not descriptor.length:
        return
    first, iteration = descriptor.base, descriptor.iteration
    end = first + int(descriptor.offsets().max()) + iteration.step * (iteration.wrap - 1) + 1
    if grid.kind(tile) is Kind.CORE:
        yield tile, (first, end)
        return
    while first < end:
        owner, own = _owner(grid, tile, first, OWN_WORDS)
        count = min(end - first, OWN_WORDS - own)
        if grid.has(owner):
            yield owner, (own, own + count)
        first += count


def _joined(parts: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges joined where they overlap."""
    found: list[tuple[int, int]] = []
    for first, end in sorted(parts):
        if found and first < found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((first, end))
    return found


def _tiles(
    grid: Grid,
    control: Transaction,
    joined: Sequence[Circuit],
    locks: _Locks,
    ranges: _Ranges,
    cores: Mapping[Tile, CoreFile],
) -> list[Tile]:
    """All tiles that anything names."""
    tiles = {end.tile for c in joined for end in (c.source, c.destination)} | {tile for tile, _ in locks} | {*ranges, *cores}
    for op in control.operations:
        tiles.add(op.tile if isinstance(op, Sync) else split(op.address)[0])
    return sorted(t for t in tiles if grid.has(t))


def _lock_lines(tiles: Mapping[Tile, Value], locks: Mapping[tuple[Tile, int], Value]) -> Iterator[str]:
    for (tile, number), value in locks.items():
        yield from operation("aie.lock", (tiles[tile],), {"init": i32(0), "lockID": i32(number)}, value)


def _buffer_lines(tiles: Mapping[Tile, Value], ranges: _Ranges) -> Iterator[str]:
    for tile, parts in ranges.items():
        for i, (first, end) in enumerate(parts):
            name = f"buffer_{tile.column}_{tile.row}_{i}"
            properties = {"address": i32(WORD_BYTES * first), "sym_name": quoted(name)}
            yield from operation("aie.buffer", (tiles[tile],), properties, Value(name, memref(end - first)))


def _core_lines(tiles: Mapping[Tile, Value], cores: Mapping[Tile, CoreFile]) -> Iterator[str]:
    for tile, core in sorted(cores.items()):
        value = Value(f"core_{tile.column}_{tile.row}", INDEX)
        region = Region([*operation("aie.end")])
        yield from operation("aie.core", (tiles[tile],), {"elf_file": quoted(core.path)}, value, region)
