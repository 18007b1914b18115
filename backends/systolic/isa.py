"""The micro-ops: their fields, in the order and width of the stream's bytes. Everything is little-endian.

A fold is one filling of the array. A strip is as much of the weights as the array's side holds rows (OS), columns (WS) or
reduced elements (IS) of; its steps are the columns of W (OS, WS) or rows of W (IS) that are not left out. `repeat` runs its body
once a fold of a strip; `first` and `stride` say what a fold takes: `first + i * stride` in iteration i.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum
from typing import ClassVar


class Stationary(IntEnum):
    """What stays in the PEs."""

    OS = 0
    WS = 1
    IS = 2


class Number(IntEnum):
    """An element type in memory. 8-bit ones are multiplied as integers and summed in 32 bits."""

    F32 = 0
    I8 = 1
    U8 = 2


class Format(IntEnum):
    """How a strip of weights lies in memory (`formats` has the bytes)."""

    BITMAP = 1  # two stages: a bit a column, and a bit an element of the columns that are not zero
    COLUMNS = 2  # compressed columns
    PACKED = 3  # bitmap of merged columns, with the lane of every element
    NM = 4  # n of m, with the position of every element


class Mode(IntEnum):
    """What becomes of the sums that are in the output memory."""

    WRITE = 0  # they are replaced
    RESUME = 1  # they are replaced in the first iteration and added to in the others
    ACCUMULATE = 2  # they are added to


@dataclass(frozen=True, slots=True)
class MicroOp:
    """Base: `code` is the first byte; `LAYOUT` has a struct letter a field."""

    code: ClassVar[int]
    LAYOUT: ClassVar[str] = ""
    name: ClassVar[str] = ""

    @property
    def numbers(self) -> tuple[int, ...]:
        """The fields, in order."""
        return tuple(int(getattr(self, f.name)) for f in fields(self))


@dataclass(frozen=True, slots=True)
class Configure(MicroOp):
    """The dataflow, the width of links in values, the element types, and the number of data that stands for 0."""

    stationary: Stationary
    lanes: int
    weights: Number
    data: Number
    zero: int
    code = 0x01
    LAYOUT = "BBBBh"
    name = "configure"


@dataclass(frozen=True, slots=True)
class Windows(MicroOp):
    """X[K, N], read from the data memory by im2col on the fly.

    k = (kernel row * kernel_w + kernel column) * channels + channel; n = (image * out_h + row) * out_w + column. The element is
    at base + image * image_stride + channel * channel_stride + y * row_stride + x * column_stride, y = row * stride_h + kernel
    row * dilation_h - pad_top and so for x; where y or x is outside of height x width, 0 is injected. Addresses count elements.
    """

    base: int
    images: int
    channels: int
    height: int
    width: int
    image_stride: int
    channel_stride: int
    row_stride: int
    column_stride: int
    kernel_h: int
    kernel_w: int
    stride_h: int
    stride_w: int
    dilation_h: int
    dilation_w: int
    pad_top: int
    pad_left: int
    out_h: int
    out_w: int
    code = 0x02
    LAYOUT = "IHIIIIIIIHHHHHHHHII"
    name = "windows"


@dataclass(frozen=True, slots=True)
class Output(MicroOp):
    """Y[M, N]: (m, n) is at base + m * row_stride + n // positions * image_stride + n % positions * column_stride.

    Addresses count elements.
    """

    base: int
    row_stride: int
    column_stride: int
    positions: int
    image_stride: int
    code = 0x03
    LAYOUT = "IIIII"
    name = "output"


@dataclass(frozen=True, slots=True)
class LoadWeights(MicroOp):
    """Point the decompression unit, which lets them pass, at `steps` x `rows` dense weights; step s has the index first + s."""

    address: int
    rows: int
    steps: int
    first: int
    code = 0x10
    LAYOUT = "IHII"
    name = "load.weights"


@dataclass(frozen=True, slots=True)
class Decompress(MicroOp):
    """Point the decompression unit at a strip of `size` bytes: `steps` of `extent` columns, `rows` weights each.

    For the format NM, `keep` of every `group` columns are there, in `steps` = keep * groups.
    """

    address: int
    size: int
    format: Format
    rows: int
    steps: int
    extent: int
    keep: int
    group: int
    code = 0x11
    LAYOUT = "IIBHIIBB"
    name = "decompress"


@dataclass(frozen=True, slots=True)
class Repeat(MicroOp):
    """Run the micro-ops up to `end` `count` times."""

    count: int
    code = 0x20
    LAYOUT = "I"
    name = "repeat"


@dataclass(frozen=True, slots=True)
class End(MicroOp):
    """The end of a `repeat`."""

    code = 0x21
    name = "end"


@dataclass(frozen=True, slots=True)
class LoadData(MicroOp):
    """Point the load unit of the data at what a fold takes.

    OS: the columns of X from `first` on, in the rows that the strip's steps name. WS: the rows of X that the steps from `first`
    on name, in all `columns`. IS: the columns from `first` on in the rows of X from `row` on. X has `columns`.
    """

    row: int
    first: int
    stride: int
    columns: int
    code = 0x12
    LAYOUT = "IIII"
    name = "load.data"


@dataclass(frozen=True, slots=True)
class Move(MicroOp):
    """Shift what is to stay in from the top, one row a cycle, `count` rows.

    WS: the weights of the strip's steps from `first` on. IS: the data.
    """

    count: int
    first: int
    stride: int
    code = 0x13
    LAYOUT = "HII"
    name = "move"


@dataclass(frozen=True, slots=True)
class Mac(MicroOp):
    """Stream `steps` operands through the skewed edges until the last PE has multiplied the last one."""

    steps: int
    code = 0x14
    LAYOUT = "I"
    name = "mac"


@dataclass(frozen=True, slots=True)
class Drain(MicroOp):
    """Put the sums into the output memory: `rows` of Y from `row` on, columns from `first` on (WS: all).

    IS: `row` and what the steps name make the row. OS sums leave through registers of their own while the next fold runs.
    """

    row: int
    rows: int
    first: int
    stride: int
    mode: Mode
    code = 0x15
    LAYOUT = "IHIIB"
    name = "drain"


@dataclass(frozen=True, slots=True)
class Halt(MicroOp):
    """The end of the stream."""

    code = 0xFF
    name = "halt"


OPS: tuple[type[MicroOp], ...] = (
    Configure,
    Windows,
    Output,
    LoadWeights,
    Decompress,
    Repeat,
    End,
    LoadData,
    Move,
    Mac,
    Drain,
    Halt,
)
BY_CODE = {op.code: op for op in OPS}
BY_NAME = {op.name: op for op in OPS}
ENUMS: dict[str, type[IntEnum]] = {
    "stationary": Stationary,
    "weights": Number,
    "data": Number,
    "format": Format,
    "mode": Mode,
}
