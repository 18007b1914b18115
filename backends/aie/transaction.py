"""The NPU transaction binary, version 1.0: register writes, syncs and address patches that a host sends to an array.

Little-endian words of 32 bits. A header of four words (rows, generation and version; memory rows and columns; number of
operations; bytes in all), then the operations. The numbers were checked against mlir-aie (`AIETargetNPU.cpp` and its tests of the
NPU target); the older version 0.1, which aie-rt also writes, has other operation headers and is rejected.

`Transaction.text` writes one line an operation with addresses disassembled and descriptors spelled out behind a semicolon;
`assemble` reads that text back to the same bytes.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Self, TypeVar

from sparsec.backends.aie.descriptors import CLASSES, Descriptor, check_channel_descriptor
from sparsec.backends.aie.registers import (
    BD_STRIDE,
    COLUMNS,
    DMAS,
    QUEUE_REPEAT,
    QUEUE_TOKEN,
    ROWS,
    Direction,
    Grid,
    Kind,
    Tile,
    check_channel,
    describe,
    parse_address,
    register_address,
    split,
)
from sparsec.compiler.errors import FitError, StreamError, UsageError

MAJOR, MINOR = 1, 0
GENERATION = 3  # what mlir-aie writes for npu1
_HEADER_WORDS = 4
_WORD = 1 << 32


@dataclass(frozen=True, slots=True)
class Write:
    """Set the register at `address` to `value`."""

    OPCODE: ClassVar[int] = 0x00
    NAME: ClassVar[str] = "write"

    address: int
    value: int

    def words(self) -> tuple[int, ...]:
        return self.OPCODE, self.address, self.value

    def text(self, grid: Grid) -> str:
        return f"{self.NAME} {describe(grid, self.address)} {self.value:#010x}{_remark(grid, self.address, (self.value,))}"


@dataclass(frozen=True, slots=True)
class BlockWrite:
    """Set consecutive words from `address` on."""

    OPCODE: ClassVar[int] = 0x01
    NAME: ClassVar[str] = "block"

    address: int
    values: tuple[int, ...]

    def words(self) -> tuple[int, ...]:
        return self.OPCODE, self.address, 4 * (3 + len(self.values)), *self.values

    def text(self, grid: Grid) -> str:
        values = " ".join(f"{v:#010x}" for v in self.values)
        return f"{self.NAME} {describe(grid, self.address)} {values}{_remark(grid, self.address, self.values)}"


@dataclass(frozen=True, slots=True)
class MaskWrite:
    """Set those bits of the register at `address` that are 1 in `mask` to those of `value`."""

    OPCODE: ClassVar[int] = 0x03
    NAME: ClassVar[str] = "mask"

    address: int
    value: int
    mask: int

    def words(self) -> tuple[int, ...]:
        return self.OPCODE, self.address, self.value, self.mask

    def text(self, grid: Grid) -> str:
        return f"{self.NAME} {describe(grid, self.address)} {self.value:#010x} {self.mask:#010x}"


@dataclass(frozen=True, slots=True)
class Sync:
    """Wait for a task-complete token of a channel from each of `columns` x `rows` tiles, of which `tile` is the first."""

    OPCODE: ClassVar[int] = 0x80
    NAME: ClassVar[str] = "sync"

    tile: Tile
    direction: Direction
    channel: int
    columns: int = 1
    rows: int = 1

    def words(self) -> tuple[int, ...]:
        place = self.direction.value | self.tile.row << 8 | self.tile.column << 16
        return self.OPCODE, 16, place, self.rows << 8 | self.columns << 16 | self.channel << 24

    def text(self, grid: Grid) -> str:
        kind = f"{grid.kind(self.tile).value}" if grid.has(self.tile) else "tile"
        return f"{self.NAME} {kind}{self.tile}.{self.direction.name.lower()}{self.channel} {self.columns}x{self.rows}"


@dataclass(frozen=True, slots=True)
class Patch:
    """Add the DDR address of host buffer `argument`, and `offset` bytes, to a shim descriptor's base: `address` is its word 1."""

    OPCODE: ClassVar[int] = 0x81
    NAME: ClassVar[str] = "patch"

    address: int
    argument: int
    offset: int = 0

    def words(self) -> tuple[int, ...]:
        return self.OPCODE, 24, self.address, self.argument, self.offset, 0

    def text(self, grid: Grid) -> str:
        return f"{self.NAME} {describe(grid, self.address)} argument {self.argument} offset {self.offset}"


Operation = Write | BlockWrite | MaskWrite | Sync | Patch
_T = TypeVar("_T", Write, BlockWrite, MaskWrite, Patch)


@dataclass(frozen=True, slots=True)
class Transaction:
    """What one file holds: the array it is for, and the operations in order. A decoded grid has DMAs in all shims."""

    grid: Grid
    operations: tuple[Operation, ...]
    generation: int = GENERATION

    def encode(self) -> bytes:
        """The file's bytes. Raises UsageError, naming the operation, where a number has no place in it."""
        words = [0] * _HEADER_WORDS
        for i, operation in enumerate(self.operations):
            _check(operation, i)
            words += operation.words()
        words[0] = self.grid.rows << 24 | self.generation << 16 | MINOR << 8 | MAJOR
        words[1] = self.grid.memory_rows << 8 | self.grid.columns
        words[2:4] = len(self.operations), 4 * len(words)
        return struct.pack(f"<{len(words)}I", *words)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The transaction that `encode` made these bytes of; StreamError, with the byte offset, where they are not one."""
        if len(data) < 4 * _HEADER_WORDS or len(data) % 4:
            raise StreamError(f"a transaction of {len(data)} bytes is truncated: expected a header of 16 and whole words")
        words = struct.unpack(f"<{len(data) // 4}I", data)
        grid = _grid(words)
        if words[3] != len(data):
            raise StreamError(f"at byte 12: the transaction says that it has {words[3]} bytes, and there are {len(data)}")
        operations: list[Operation] = []
        at = _HEADER_WORDS
        while at < len(words):
            operation, at = _operation(words, at)
            operations.append(operation)
        if words[2] != len(operations):
            raise StreamError(
                f"at byte 8: the transaction says that it has {words[2]} operations, and there are {len(operations)}"
            )
        return cls(grid, tuple(operations), words[0] >> 16 & 0xFF)

    def text(self) -> str:
        """One line an operation; `assemble` reads it back."""
        grid = self.grid
        extent = f"columns {grid.columns} rows {grid.core_rows} memory {grid.memory_rows}"
        head = f"npu {MAJOR}.{MINOR} generation {self.generation} {extent}"
        return "".join(f"{line}\n" for line in (head, *(operation.text(grid) for operation in self.operations)))


def assemble(text: str) -> Transaction:
    """The transaction that a text means; StreamError, naming the line, where it does not mean one.

    What follows a semicolon is a remark; empty lines mean nothing.
    """
    grid: Grid | None = None
    generation, operations = GENERATION, list[Operation]()
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition(";")[0].split()
        if not words:
            continue
        try:
            if grid is None:
                grid, generation = _parse_head(words)
            else:
                operation = _parse(grid, words)
                _check(operation, len(operations))
                operations.append(operation)
        except (StreamError, UsageError) as exc:
            raise StreamError(f"line {number}: {exc}") from None
    if grid is None:
        raise StreamError("the text has no line 'npu 1.0 generation G columns C rows R memory M'")
    return Transaction(grid, tuple(operations), generation)


def write(grid: Grid, tile: Tile, name: str, value: int) -> Write:
    """A write to a register by tile and name, as `lock3` or `core.control`."""
    return Write(register_address(grid, tile, name), value)


def write_descriptor(grid: Grid, tile: Tile, number: int, descriptor: Descriptor) -> BlockWrite:
    """The block that stores a descriptor as number `number` of a tile. FitError where the tile has not so many.

    Raises UsageError where it is a descriptor of another kind of tile.
    """
    kind = grid.kind(tile)
    if descriptor.FORM.kind is not kind:
        raise UsageError(f"tile {tile} is a {kind.value} tile: it cannot hold a {descriptor.FORM.kind.value} descriptor")
    if not 0 <= number < DMAS[kind].descriptors:
        raise FitError(
            f"descriptor {number} of {kind.value} tile {tile}",
            demand=f"descriptor {number}",
            bound=f"{DMAS[kind].descriptors} descriptors, from 0",
            remedy="reuse descriptors, or join transfers by dimensions or iterations",
        )
    return BlockWrite(register_address(grid, tile, f"bd{number}"), descriptor.encode())


@dataclass(frozen=True, slots=True)
class Task:
    """What a start queue takes: the first descriptor, how often the chain runs, and whether a token tells its end."""

    descriptor: int
    repeat: int = 1
    token: bool = False

    def __str__(self) -> str:
        times = f", {self.repeat} times" if self.repeat > 1 else ""
        return f"start bd{self.descriptor}{times}{', token' if self.token else ''}"


def start(grid: Grid, tile: Tile, direction: Direction, channel: int, task: Task) -> Write:
    """The write that puts a task into a channel's queue. FitError where channel, descriptor or repeats are out of range."""
    dma = check_channel(grid, tile, direction, channel)
    kind = grid.kind(tile)
    check_channel_descriptor(kind, channel, task.descriptor)
    if not 1 <= task.repeat <= QUEUE_REPEAT.maximum + 1:
        raise FitError(
            f"task of {direction.name} {channel} of {kind.value} tile {tile}",
            demand=f"{task.repeat} repeats",
            bound=f"1 to {QUEUE_REPEAT.maximum + 1}",
            remedy="queue several tasks",
        )
    value = dma.queue_bd.put(task.descriptor) | QUEUE_REPEAT.put(task.repeat - 1) | QUEUE_TOKEN.put(task.token)
    return write(grid, tile, f"{direction.name.lower()}{channel}.queue", value)


def task_of(kind: Kind, value: int) -> Task:
    """The task that a write to a start queue means; StreamError where bits are set that nothing reads."""
    bd = DMAS[kind].queue_bd
    if rest := value & ~(bd.mask | QUEUE_REPEAT.mask | QUEUE_TOKEN.mask):
        raise StreamError(f"the queue word {value:#010x} has bits {rest:#x} set, which nothing reads")
    return Task(bd.get(value), QUEUE_REPEAT.get(value) + 1, bool(QUEUE_TOKEN.get(value)))


def descriptor_at(grid: Grid, at: int) -> tuple[Tile, int] | None:
    """The tile and number of the descriptor whose first word is at an address, None where none is."""
    tile, offset = split(at)
    if not grid.has(tile):
        return None
    dma = DMAS[grid.kind(tile)]
    number, rest = divmod(offset - dma.bd_base, BD_STRIDE)
    return (tile, number) if not rest and 0 <= number < dma.descriptors else None


def _remark(grid: Grid, at: int, values: tuple[int, ...]) -> str:
    """What written values mean, for descriptors and queues."""
    tile, _ = split(at)
    if not grid.has(tile):
        return ""
    kind = grid.kind(tile)
    try:
        if descriptor_at(grid, at) and len(values) == DMAS[kind].words:
            return f" ; {CLASSES[kind].decode(values)}"
        if len(values) == 1 and describe(grid, at).endswith(".queue"):
            return f" ; {task_of(kind, values[0])}"
    except StreamError:
        return ""  # other programs may set bits that nothing reads: the numbers still stand in the line
    return ""


def _check(operation: Operation, index: int) -> None:
    """Every number against its bits."""
    name = f"operation {index} ({operation.NAME})"
    if isinstance(operation, Sync):
        parts = (operation.tile.column, operation.tile.row, operation.channel, operation.columns, operation.rows)
        if not all(0 <= part < 256 for part in parts):
            raise UsageError(f"{name}: column, row, channel, columns and rows {parts} are to be below 256")
        return
    if not 0 <= operation.address < _WORD or operation.address % 4:
        raise UsageError(f"{name}: {operation.address:#x} is not the address of a word")
    if isinstance(operation, BlockWrite) and not operation.values:
        raise UsageError(f"{name}: there are no words to write")
    if not all(0 <= word < _WORD for word in operation.words()):
        raise UsageError(f"{name}: its numbers are to be words of 32 bits without sign")


def _grid(words: tuple[int, ...]) -> Grid:
    """The array of a header."""
    major, minor = words[0] & 0xFF, words[0] >> 8 & 0xFF
    if (major, minor) != (MAJOR, MINOR):
        raise StreamError(f"at byte 0: the transaction has version {major}.{minor}: expected {MAJOR}.{MINOR}")
    rows, columns, memory_rows, rest = words[0] >> 24, words[1] & 0xFF, words[1] >> 8 & 0xFF, words[1] >> 16
    if rest:
        raise StreamError(f"at byte 4: bits {rest << 16:#x} are set, which mean nothing")
    return _valid_grid(columns, rows - 1 - memory_rows, memory_rows, "at byte 0")


def _valid_grid(columns: int, core_rows: int, memory_rows: int, where: str) -> Grid:
    try:
        return Grid(columns, core_rows, memory_rows)
    except UsageError:
        rows = 1 + memory_rows + core_rows
        raise StreamError(
            f"{where}: an array of {columns} columns (at most {COLUMNS}) and {rows} rows (at most {ROWS}), "
            f"of them {memory_rows} of memory tiles and one of shims, has no cores or no addresses"
        ) from None


def _operation(words: tuple[int, ...], at: int) -> tuple[Operation, int]:
    """The operation that begins at word `at`, and where the next one does."""
    opcode, where = words[at], f"at byte {4 * at}"

    def take(count: int, name: str) -> tuple[int, ...]:
        if at + count > len(words):
            raise StreamError(f"{where}: the {name} is truncated: it has {count} words, and {len(words) - at} are left")
        return words[at + 1 : at + count]

    match opcode:
        case Write.OPCODE:
            address, value = take(3, Write.NAME)
            return _aligned(Write(address, value), where), at + 3
        case BlockWrite.OPCODE:
            address, size = take(3, BlockWrite.NAME)
            if size < 16 or size % 4:
                raise StreamError(f"{where}: the block has {size} bytes: expected 16 or more, in steps of 4")
            return _aligned(BlockWrite(address, take(size // 4, BlockWrite.NAME)[2:]), where), at + size // 4
        case MaskWrite.OPCODE:
            return _aligned(MaskWrite(*take(4, MaskWrite.NAME)), where), at + 4
        case Sync.OPCODE:
            return _sync(take(4, Sync.NAME), where), at + 4
        case Patch.OPCODE:
            size, address, argument, offset, rest = take(6, Patch.NAME)
            if size != 24 or rest:
                raise StreamError(f"{where}: the patch has size {size} and last word {rest:#x}: expected 24 and 0")
            return _aligned(Patch(address, argument, offset), where), at + 6
    raise StreamError(f"{where}: there is no operation {opcode:#x}")


def _aligned(operation: _T, where: str) -> _T:
    if operation.address % 4:
        raise StreamError(f"{where}: {operation.address:#010x} is not the address of a word")
    return operation


def _sync(words: tuple[int, ...], where: str) -> Sync:
    size, place, extent = words
    if size != 16 or place & 0xFF > 1 or place >> 24 or extent & 0xFF:
        raise StreamError(
            f"{where}: the sync has words {size:#x} {place:#010x} {extent:#010x}: "
            "expected size 16, direction 0 or 1 and no other bits"
        )
    tile = Tile(place >> 16 & 0xFF, place >> 8 & 0xFF)
    return Sync(tile, Direction(place & 0xFF), extent >> 24, extent >> 16 & 0xFF, extent >> 8 & 0xFF)


def _parse_head(words: list[str]) -> tuple[Grid, int]:
    found = re.fullmatch(r"npu (\d+)\.(\d+) generation (\d+) columns (\d+) rows (\d+) memory (\d+)", " ".join(words))
    if not found:
        raise StreamError("expected 'npu 1.0 generation G columns C rows R memory M'")
    major, minor, generation, columns, rows, memory_rows = map(int, found.groups())
    if (major, minor) != (MAJOR, MINOR) or generation > 255:
        raise StreamError(f"version {major}.{minor} and generation {generation}: expected {MAJOR}.{MINOR} and at most 255")
    return _valid_grid(columns, rows, memory_rows, "header"), generation


def _parse(grid: Grid, words: list[str]) -> Operation:
    """One line's operation."""
    name, rest = words[0], words[1:]
    parse = _PARSERS.get(name)
    if parse is None:
        raise StreamError(f"there is no operation {name!r}: expected one of {', '.join(_PARSERS)}")
    return parse(grid, rest)


def _numbers(words: list[str], count: int | None, form: str) -> Iterator[int]:
    if (
        not words
        or (count is not None and len(words) != count)
        or not all(re.fullmatch(r"0x[0-9a-fA-F]{1,8}|\d+", w) for w in words)
    ):
        raise StreamError(f"expected '{form}'")
    return (int(w, 0) if w.startswith("0x") else int(w) for w in words)


def _parse_write(grid: Grid, rest: list[str]) -> Write:
    (value,) = _numbers(rest[1:], 1, "write ADDRESS VALUE")
    return Write(parse_address(grid, rest[0]), value)


def _parse_block(grid: Grid, rest: list[str]) -> BlockWrite:
    values = tuple(_numbers(rest[1:], None, "block ADDRESS VALUE..."))
    return BlockWrite(parse_address(grid, rest[0]), values)


def _parse_mask(grid: Grid, rest: list[str]) -> MaskWrite:
    value, mask = _numbers(rest[1:], 2, "mask ADDRESS VALUE MASK")
    return MaskWrite(parse_address(grid, rest[0]), value, mask)


def _parse_sync(grid: Grid, rest: list[str]) -> Sync:
    found = re.fullmatch(r"(shim|memory|core|tile)\((\d+),(\d+)\)\.(s2mm|mm2s)(\d+) (\d+)x(\d+)", " ".join(rest))
    if not found:
        raise StreamError("expected 'sync shim(C,R).s2mmN COLUMNSxROWS'")
    tile = Tile(int(found[2]), int(found[3]))
    if found[1] != "tile" and grid.kind(tile).value != found[1]:
        raise StreamError(f"tile {tile} is a {grid.kind(tile).value} tile")
    return Sync(tile, Direction[found[4].upper()], *(int(found[i]) for i in (5, 6, 7)))


def _parse_patch(grid: Grid, rest: list[str]) -> Patch:
    found = re.fullmatch(r"(\S+) argument (\d+) offset (\d+)", " ".join(rest))
    if not found:
        raise StreamError("expected 'patch ADDRESS argument N offset BYTES'")
    return Patch(parse_address(grid, found[1]), int(found[2]), int(found[3]))


_PARSERS: dict[str, Callable[[Grid, list[str]], Operation]] = {
    Write.NAME: _parse_write,
    BlockWrite.NAME: _parse_block,
    MaskWrite.NAME: _parse_mask,
    Sync.NAME: _parse_sync,
    Patch.NAME: _parse_patch,
}
