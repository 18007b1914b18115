"""The addresses and registers of an AIE2 array: which tile, which register, which bits.

An address of the control network is 32 bits: column in bits 31-25, row in 24-20, offset in the tile in 19-0. Row 0 holds the
shims, above them the memory tiles, above them the cores (npu1: memory tiles in row 1, cores in rows 2-5).

Every table says where its numbers were checked. Two public sources were read side by side: the register header of aie-rt
(`xaiemlgbl_params.h`, with `xaiemlgbl_reginit.c` for what the driver does with it) and AMD AM025, the AIE-ML register reference,
as the register database of mlir-aie holds it (`aie_registers_aie2.json`). Port numbers are from mlir-aie's target model of AIE2.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cache

from sparsec.compiler.errors import FitError, StreamError, UsageError

COLUMN_SHIFT, ROW_SHIFT = 25, 20
OFFSETS = 1 << ROW_SHIFT  # bytes of a tile's address space
COLUMNS, ROWS = 1 << (32 - COLUMN_SHIFT), 1 << (COLUMN_SHIFT - ROW_SHIFT)

_PARAMS = "aie-rt, xaiemlgbl_params.h"
_REGINIT = "aie-rt, xaiemlgbl_reginit.c"
_AM025 = "AMD AM025"
_MODEL = "mlir-aie, AIE2TargetModel"


class Kind(Enum):
    """What a tile is."""

    SHIM = "shim"
    MEMORY = "memory"
    CORE = "core"

    __hash__ = object.__hash__  # there is one of each, and it is often a key: by name takes much longer


class Direction(Enum):
    """Which way a DMA channel moves words: the stream's into memory, or memory's onto the stream. Values as in TCT words."""

    S2MM = 0
    MM2S = 1

    __hash__ = object.__hash__  # there is one of each, and it is often a key: by name takes much longer


@dataclass(frozen=True, slots=True, order=True)
class Tile:
    """A place in the array: column from the west, row from the shims upwards."""

    column: int
    row: int

    def __str__(self) -> str:
        return f"({self.column},{self.row})"


@dataclass(frozen=True, slots=True)
class Grid:
    """The extent of an array: `core_rows` rows of cores on `memory_rows` rows of memory tiles on one row of shims.

    `shim_columns` are those whose shim has a DMA (None: all).
    """

    columns: int
    core_rows: int
    memory_rows: int = 1
    shim_columns: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.columns <= COLUMNS or self.core_rows < 1 or self.memory_rows < 0 or self.rows > ROWS:
            raise UsageError(
                f"an array of {self.columns} columns and {self.rows} rows cannot be addressed: expected 1 to {COLUMNS} columns, "
                f"one row of shims, any of memory tiles and at least one of cores, {ROWS} rows in all"
            )

    @property
    def rows(self) -> int:
        """All rows: shims, memory tiles, cores."""
        return 1 + self.memory_rows + self.core_rows

    @property
    def first_core_row(self) -> int:
        """The lowest row of cores."""
        return 1 + self.memory_rows

    def has(self, tile: Tile) -> bool:
        """Whether the tile lies in the array."""
        return 0 <= tile.column < self.columns and 0 <= tile.row < self.rows

    def kind(self, tile: Tile) -> Kind:
        """What the tile is; StreamError where the array has none there."""
        if not self.has(tile):
            raise StreamError(
                f"there is no tile {tile}: the array has columns 0 to {self.columns - 1} and rows 0 to {self.rows - 1}"
            )
        return Kind.SHIM if tile.row == 0 else Kind.MEMORY if tile.row <= self.memory_rows else Kind.CORE

    def tiles(self) -> Iterator[Tile]:
        """All tiles, row by row from the shims."""
        return (Tile(c, r) for r in range(self.rows) for c in range(self.columns))

    def cores(self) -> Iterator[Tile]:
        """The cores, row by row."""
        return (Tile(c, r) for r in range(self.first_core_row, self.rows) for c in range(self.columns))

    def has_dma(self, tile: Tile) -> bool:
        """Whether the tile has DMA channels: all but shims away from the network on chip."""
        return self.kind(tile) is not Kind.SHIM or self.shim_columns is None or tile.column in self.shim_columns


NPU1 = Grid(4, 4, 1)


def address(tile: Tile, offset: int) -> int:
    """The address of a byte `offset` in a tile; UsageError where either has too many bits."""
    if not (0 <= tile.column < COLUMNS and 0 <= tile.row < ROWS and 0 <= offset < OFFSETS):
        raise UsageError(
            f"tile {tile} offset {offset:#x} has no address: expected column below {COLUMNS}, row below {ROWS}, "
            f"offset below {OFFSETS:#x}"
        )
    return tile.column << COLUMN_SHIFT | tile.row << ROW_SHIFT | offset


def split(at: int) -> tuple[Tile, int]:
    """The tile and the offset in it that a 32-bit address means."""
    return Tile(at >> COLUMN_SHIFT, at >> ROW_SHIFT & (ROWS - 1)), at & (OFFSETS - 1)


@dataclass(frozen=True, slots=True)
class Field:
    """Bits [low, low + width) of word `word` of a register."""

    low: int
    width: int
    word: int = 0

    @property
    def maximum(self) -> int:
        """The largest number that it can store."""
        return (1 << self.width) - 1

    @property
    def mask(self) -> int:
        """Its bits within its word."""
        return self.maximum << self.low

    def put(self, value: int) -> int:
        """`value` at its place in the word; the caller has checked its range."""
        return value << self.low

    def get(self, word: int) -> int:
        """What the word holds here."""
        return word >> self.low & self.maximum


@dataclass(frozen=True, slots=True)
class Group:
    """`count` like registers of `size` bytes, `stride` bytes apart. `name` has {i} for the number of the register."""

    name: str
    base: int
    size: int
    source: str
    count: int = 1
    stride: int = 0


# Port bundles of stream switches in order of their numbers: (bundle, ports).
MASTERS = {
    Kind.SHIM: (("ctrl", 1), ("fifo", 1), ("south", 6), ("west", 4), ("north", 6), ("east", 4)),
    Kind.MEMORY: (("dma", 6), ("ctrl", 1), ("south", 4), ("north", 6)),
    Kind.CORE: (("core", 1), ("dma", 2), ("ctrl", 1), ("fifo", 1), ("south", 4), ("west", 4), ("north", 6), ("east", 4)),
}
SLAVES = {
    Kind.SHIM: (("ctrl", 1), ("fifo", 1), ("south", 8), ("west", 4), ("north", 4), ("east", 4), ("trace", 1)),
    Kind.MEMORY: (("dma", 6), ("ctrl", 1), ("south", 6), ("north", 4), ("trace", 1)),
    Kind.CORE: (
        *(("core", 1), ("dma", 2), ("ctrl", 1), ("fifo", 1), ("south", 6), ("west", 4), ("north", 4), ("east", 4)),
        ("trace", 2),
    ),
}
_PORT_SOURCE = f"{_MODEL}, {_REGINIT} (port maps), {_PARAMS} (offsets of the shim's)"
_SWITCH = {Kind.SHIM: 0x3F000, Kind.MEMORY: 0xB0000, Kind.CORE: 0x3F000}
_SLAVE_OFFSET = 0x100


@dataclass(frozen=True, slots=True, order=True)
class Port:
    """A port of a stream switch by bundle and number in it."""

    bundle: str
    index: int

    def __str__(self) -> str:
        return f"{self.bundle}{self.index}"


@cache
def ports(kind: Kind, master: bool) -> tuple[Port, ...]:
    """The ports of a switch in the order of their numbers (which are also those of their registers)."""
    return tuple(Port(bundle, i) for bundle, count in (MASTERS if master else SLAVES)[kind] for i in range(count))


@dataclass(frozen=True, slots=True)
class Dma:
    """The DMA of a kind of tile: channels a direction, descriptors, the words of one, the locks that a descriptor can name."""

    channels: int
    descriptors: int
    words: int
    locks: int
    bd_base: int
    control: dict[Direction, int]
    queue_bd: Field
    source: str


BD_STRIDE = 0x20
QUEUE_REPEAT, QUEUE_TOKEN = Field(16, 8), Field(31, 1)
_QUEUE_SOURCE = f"{_PARAMS} (START_QUEUE, TASK_QUEUE), {_AM025} (repeats stored minus one)"
CTRL_RESET, CTRL_COMPRESSION = Field(1, 1), Field(4, 1)  # AMD AM025; of cores and memory tiles, shims have neither
_S2MM, _MM2S = Direction.S2MM, Direction.MM2S
_DMA_SOURCE = f"{_PARAMS}, {_MODEL}"
DMAS = {
    Kind.SHIM: Dma(2, 16, 8, 16, 0x1D000, {_S2MM: 0x1D200, _MM2S: 0x1D210}, Field(0, 4), _DMA_SOURCE),
    Kind.MEMORY: Dma(6, 48, 8, 192, 0xA0000, {_S2MM: 0xA0600, _MM2S: 0xA0630}, Field(0, 6), _DMA_SOURCE),
    Kind.CORE: Dma(2, 16, 6, 16, 0x1D000, {_S2MM: 0x1DE00, _MM2S: 0x1DE10}, Field(0, 4), _DMA_SOURCE),
}
QUEUE_DEPTH = 4  # aie-rt, xaiemlgbl_reginit.c (StartQSizeMax)
LOCKS = {Kind.SHIM: 16, Kind.MEMORY: 64, Kind.CORE: 16}  # registers of the tile itself
LOCK_STRIDE, LOCK_VALUE = 0x10, Field(0, 6)  # AMD AM025; mlir-aie, AIE2TargetModel
DATA_BYTES = {Kind.SHIM: 0, Kind.MEMORY: 512 * 1024, Kind.CORE: 64 * 1024}
PROGRAM_BASE, PROGRAM_BYTES = 0x20000, 16 * 1024
CASCADE_INPUT, CASCADE_OUTPUT = Field(0, 1), Field(1, 1)  # aie-rt (Accumulator_Control): from north or west; to south or east
_CASCADE_SIDES = {False: (("north", (0, 1)), ("west", (-1, 0))), True: (("south", (0, -1)), ("east", (1, 0)))}
CORE_ENABLE, CORE_RESET = Field(0, 1), Field(1, 1)  # AMD AM025 (Core_Control); a core is held in reset at first

# The shim's DMA joins its switch through these southern ports; 1 in their field of the multiplexer chooses the DMA.
SHIM_SLAVE = {0: 3, 1: 7}  # MM2S channel: slave port
SHIM_MASTER = {0: 2, 1: 3}  # S2MM channel: master port
MUX = {3: Field(10, 2), 7: Field(14, 2)}
DEMUX = {2: Field(4, 2), 3: Field(6, 2)}
MUX_DMA = 1
_MUX_SOURCE = f"{_PARAMS} (MUX_CONFIG, DEMUX_CONFIG), aie-rt xaie_plif.c (ports 3 and 7, 2 and 3)"

MASTER_ENABLE, MASTER_PACKET, MASTER_SLAVE = Field(31, 1), Field(30, 1), Field(0, 7)
SLAVE_ENABLE, SLAVE_PACKET = Field(31, 1), Field(30, 1)
_FIELD_SOURCE = f"{_PARAMS} (MASTER_CONFIG, SLAVE_CONFIG), aie-rt xaie_ss.c (a circuit's master holds its slave port's number)"


@cache
def groups(kind: Kind) -> tuple[Group, ...]:
    """All registers of a kind of tile that have names here."""
    dma = DMAS[kind]
    lock_base = {Kind.SHIM: 0x14000, Kind.MEMORY: 0xC0000, Kind.CORE: 0x1F000}[kind]
    found = [
        Group("bd{i}", dma.bd_base, 4 * dma.words, dma.source, dma.descriptors, BD_STRIDE),
        Group("lock{i}", lock_base, 4, f"{_AM025}, {_MODEL}", LOCKS[kind], LOCK_STRIDE),
    ]
    for direction, base in dma.control.items():
        name = direction.name.lower()
        found.append(Group(f"{name}{{i}}.ctrl", base, 4, dma.source, dma.channels, 8))
        found.append(Group(f"{name}{{i}}.queue", base + 4, 4, _QUEUE_SOURCE, dma.channels, 8))
    if kind is Kind.SHIM:
        found += [Group("mux", 0x1F000, 4, _MUX_SOURCE), Group("demux", 0x1F004, 4, _MUX_SOURCE)]
    else:
        found.append(Group("data", 0, DATA_BYTES[kind], f"{_AM025}, {_MODEL}"))
    if kind is Kind.CORE:
        found.append(Group("program", PROGRAM_BASE, PROGRAM_BYTES, f"{_PARAMS}, {_AM025}"))
        found += [Group("core.control", 0x32000, 4, _AM025), Group("core.status", 0x32004, 4, _AM025)]
        found.append(Group("accumulators", 0x36060, 4, f"{_PARAMS} (ACCUMULATOR_CONTROL)"))
    for role, master in (("master", True), ("slave", False)):
        base = _SWITCH[kind] + (0 if master else _SLAVE_OFFSET)
        source = f"{_PORT_SOURCE}; {_FIELD_SOURCE}"
        found += [Group(f"{role}.{p}", base + 4 * i, 4, source) for i, p in enumerate(ports(kind, master))]
    return tuple(found)


@cache
def _offsets(kind: Kind) -> dict[str, int]:
    """Offset of every register's first word by name."""
    return {g.name.format(i=i): g.base + i * g.stride for g in groups(kind) for i in range(g.count)}


@cache
def _words(kind: Kind) -> dict[int, str]:
    """Name of every word of every register but the memories."""
    named = {}
    for g in groups(kind):
        for i in range(g.count) if g.size <= BD_STRIDE else ():
            for word in range(g.size // 4):
                named[g.base + i * g.stride + 4 * word] = g.name.format(i=i) + (f".{word}" if word else "")
    return named


@cache
def register(kind: Kind, name: str) -> int:
    """The offset that a name of `register_name` means; UsageError where the kind of tile has no such register."""
    if (offset := _offsets(kind).get(name)) is not None:
        return offset
    memory = re.fullmatch(r"(data|program)\+(0x[0-9a-fA-F]+)", name)
    if memory and (group := next((g for g in groups(kind) if g.name == memory[1]), None)) and int(memory[2], 16) < group.size:
        return group.base + int(memory[2], 16)
    if re.fullmatch(r"0x[0-9a-fA-F]{1,5}", name):
        return int(name, 16)
    base, _, word = name.rpartition(".")
    if base.startswith("bd") and word.isdigit() and base in _offsets(kind) and 0 < int(word) < DMAS[kind].words:
        return _offsets(kind)[base] + 4 * int(word)
    raise UsageError(
        f"a {kind.value} tile has no register {name!r}: expected a name as bd0.1, lock3, mm2s0.queue, or an offset as 0x1d000"
    )


def register_name(kind: Kind, offset: int) -> str:
    """The name of the word at an offset: bd3.1 is word 1 of descriptor 3, data+0x40 a byte address, 0x1dabc has no name."""
    if (name := _words(kind).get(offset)) is not None:
        return name
    memory = next((g for g in groups(kind) if g.size > BD_STRIDE and g.base <= offset < g.base + g.size), None)
    return f"{memory.name}+{offset - memory.base:#x}" if memory else f"{offset:#x}"


def describe(grid: Grid, at: int) -> str:
    """An address as text, as core(0,2).bd3.1; plain hexadecimal outside the array. `parse_address` reads it back."""
    tile, offset = split(at)
    if not grid.has(tile):
        return f"{at:#010x}"
    kind = grid.kind(tile)
    return f"{kind.value}{tile}.{register_name(kind, offset)}"


def parse_address(grid: Grid, text: str) -> int:
    """The address that `describe` wrote; StreamError where it is not one, or names another kind of tile than is there."""
    if re.fullmatch(r"0x[0-9a-fA-F]{1,8}", text):
        return int(text, 16)
    found = re.fullmatch(r"(shim|memory|core)\((\d+),(\d+)\)\.(.+)", text)
    if not found:
        raise StreamError(f"{text!r} is not an address: expected one as core(0,2).bd3.1 or 0x0021d000")
    tile = Tile(int(found[2]), int(found[3]))
    kind = grid.kind(tile)
    if kind.value != found[1]:
        raise StreamError(f"{text!r}: tile {tile} is a {kind.value} tile")
    try:
        return address(tile, register(kind, found[4]))
    except UsageError as exc:
        raise StreamError(f"{text!r}: {exc}") from None


def cascade_side(value: int, *, puts: bool) -> tuple[str, tuple[int, int]]:
    """Where a core's words go (`puts`) or come from, by what its register `accumulators` holds: the side, and the columns and
    rows to the neighbour there."""
    return _CASCADE_SIDES[puts][(CASCADE_OUTPUT if puts else CASCADE_INPUT).get(value)]


def register_address(grid: Grid, tile: Tile, name: str) -> int:
    """The address of a register by tile and name."""
    return address(tile, register(grid.kind(tile), name))


def check_channel(grid: Grid, tile: Tile, direction: Direction, channel: int) -> Dma:
    """The tile's DMA; FitError where it has no such channel."""
    kind = grid.kind(tile)
    dma = DMAS[kind]
    if not grid.has_dma(tile):
        raise FitError(
            f"channel {direction.name} {channel} of shim {tile}",
            demand="a DMA channel of a shim away from the network on chip",
            bound=f"columns {', '.join(map(str, grid.shim_columns or ()))}",
            remedy="use a shim of one of these",
        )
    if not 0 <= channel < dma.channels:
        raise FitError(
            f"channel {direction.name} {channel} of the {kind.value} tile {tile}",
            demand=f"channel {channel}",
            bound=f"{dma.channels} channels a direction, from 0",
            remedy="use another channel or tile",
        )
    return dma
