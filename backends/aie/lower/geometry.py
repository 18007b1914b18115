"""Where a layer's data are: images in DDR, a column's share in its memory tile, vectors in a core.

Channels lie in blocks of 8, of one byte each or of two where they are bfloat16: an image in DDR is [blocks][rows][columns][8],
with rows and columns around it that hold the zero point. A column of cores computes a band of output rows, `rows` high. A core
reads vectors: 4 positions of 8 channels, which a matrix instruction multiplies at once, and loads are aligned to 32 bytes. So that a kernel's
neighbouring columns are whole vectors, too, the 4 positions of one vector stand `lane` columns apart: vector x of a row
holds columns x, x + lane, x + 2 lane, x + 3 lane. With strides, rows and columns of each remainder are a plane of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

BLOCK = 8  # channels
LANES = 4  # positions of a vector
TILE_VECTORS = 4  # that a core multiplies together
_LOAD_BYTES = 32


@dataclass(frozen=True, slots=True)
class Element:
    """What data, weights and results are made of: `bytes` an element."""

    bytes: int

    @property
    def vector_bytes(self) -> int:
        """4 positions of 8 channels."""
        return LANES * BLOCK * self.bytes

    @property
    def tile_bytes(self) -> int:
        """The vectors that a core multiplies together."""
        return TILE_VECTORS * self.vector_bytes

    @property
    def block_bytes(self) -> int:
        """Weights of 8 x 8 channels."""
        return BLOCK * BLOCK * self.bytes

    @property
    def position_words(self) -> int:
        """Words of 32 bits that 8 channels of a position are."""
        return BLOCK * self.bytes // 4

    @property
    def last_load(self) -> int:
        """Bytes from a vector's start to the last load of it."""
        return self.vector_bytes - _LOAD_BYTES


BYTE, BFLOAT16 = Element(1), Element(2)


@dataclass(frozen=True, slots=True)
class Window:
    """A convolution's window: kernel, stride, zero rows and columns (above, left)."""

    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    pads: tuple[int, int] = (0, 0)

    @property
    def planes(self) -> tuple[tuple[int, int], ...]:
        """The remainders (of rows, of columns) by the stride that the kernel reads."""
        rows, columns = (min(self.stride, k) for k in self.kernel)
        return tuple((i, j) for i in range(rows) for j in range(columns))


@dataclass(frozen=True, slots=True)
class Image:
    """An activation in DDR: `offset` bytes into the buffer, [blocks][height][width][8] elements of `element_bytes`, the value's
    own at (top, left)."""

    offset: int
    channels: int
    rows: int
    columns: int
    top: int
    left: int
    height: int
    width: int
    element_bytes: int = 1

    @property
    def blocks(self) -> int:
        """Blocks of channels."""
        return -(-self.channels // BLOCK)

    @property
    def nbytes(self) -> int:
        """Bytes in the buffer."""
        return self.blocks * self.height * self.width * BLOCK * self.element_bytes

    def at(self, block: int, row: int, column: int) -> int:
        """The byte offset of a position, rows and columns counted from the value's own first."""
        place = (block * self.height + self.top + row) * self.width + self.left + column
        return self.offset + place * BLOCK * self.element_bytes


@dataclass(frozen=True, slots=True)
class Share:
    """What one column of cores computes and reads: `rows` x `columns` outputs, each core the same positions."""

    window: Window
    blocks: int  # of input channels
    rows: int
    columns: int
    element: Element = BYTE

    @property
    def lane(self) -> int:
        """Output columns between the positions of a vector: what one lane computes."""
        return -(-self.columns // LANES)

    @property
    def pitch(self) -> int:
        """Vectors from one row of a plane to the next."""
        return self.lane + (self.window.kernel[1] - 1) // self.window.stride

    @property
    def plane_rows(self) -> int:
        """Rows of a plane of one block of channels."""
        return self.rows + (self.window.kernel[0] - 1) // self.window.stride

    @property
    def plane_vectors(self) -> int:
        """Vectors of one plane of all channels."""
        return self.blocks * self.plane_rows * self.pitch

    @property
    def data_vectors(self) -> int:
        """Vectors of all planes."""
        return len(self.window.planes) * self.plane_vectors

    @property
    def tiles(self) -> int:
        """How often a core multiplies 4 vectors: rows follow each other in memory, and are multiplied with what lies between."""
        return -(-((self.rows - 1) * self.pitch + self.lane) // TILE_VECTORS)

    @property
    def source_rows(self) -> int:
        """Input rows in the memory tile: whole strides, so that planes of different rows walk alike."""
        return self.window.stride * self.plane_rows

    @property
    def source_columns(self) -> int:
        """Input columns in the memory tile: what the last lane's window reads."""
        return self.window.stride * ((LANES - 1) * self.lane + self.pitch)

    @property
    def stored_columns(self) -> int:
        """Output columns that cores make of a row, the value's own first."""
        return LANES * self.lane

    @property
    def residual_rows(self) -> int:
        """Rows of a residual in the memory tile: results with what lies between and behind them."""
        return -(-self.tiles * TILE_VECTORS // self.pitch)

    @property
    def residual_columns(self) -> int:
        """Columns of a residual in the memory tile."""
        return (LANES - 1) * self.lane + self.pitch

    def offset(self, block: int, row: int, column: int) -> int:
        """Bytes from a tile's start to the data of a block of input channels under a position (row, column) of the kernel."""
        s = self.window.stride
        plane = self.window.planes.index((row % s, column % s))
        return self.element.vector_bytes * (((plane * self.blocks + block) * self.plane_rows + row // s) * self.pitch + column // s)
