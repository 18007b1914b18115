"""Where a layer's data are: images in DDR, a column's share in its memory tile, vectors in a core.

Channels lie in blocks of 8, of one byte each, or of two where they are bfloat16: an image in DDR is
[blocks][rows][columns][8], with rows and columns around it that hold the zero point. A column of cores computes a band of output
rows, `rows` high. A core reads vectors: 4 positions of 8 channels, which a matrix instruction multiplies at once; they are one
load of 32 bytes or two, and loads are aligned. So that a kernel's neighbouring columns are whole vectors, too, the 4 positions of
one vector stand `lane` columns apart: vector x of a row holds columns x, x + lane, x + 2 lane, x + 3 lane. With strides, these
are as many outputs apart, and rows and columns of each remainder are a plane of their own, unless rows are so short that cores
can step over them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from math import isqrt

from sparsec.backends.aie.lower.chunks import Steps
from sparsec.compiler.dtypes import DType
from sparsec.compiler.types import TensorType

BLOCK = 8  # channels
LANES = 4  # positions of a vector
TILE_VECTORS = 4  # that a core multiplies together
LOAD_BYTES = 32


@dataclass(frozen=True, slots=True)
class Element:
    """What data, residual and weights are made of: `bytes` an element, and its name among a machine's matrix instructions."""

    name: str
    bytes: int

    @property
    def vector_bytes(self) -> int:
        """4 positions of 8 channels."""
        return LANES * BLOCK * self.bytes

    @property
    def block_bytes(self) -> int:
        """Weights of 8 x 8 channels."""
        return BLOCK * BLOCK * self.bytes

    @property
    def position_words(self) -> int:
        """Words of 32 bits that 8 channels of a position are."""
        return BLOCK * self.bytes // 4


BYTE, BFLOAT16 = Element("int8", 1), Element("bf16", 2)


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
class Thinned:
    """A value that is every so many-th row and column of a layer's results, and the `node` that takes them; its `share` of all
    positions."""

    node: str
    value: str
    every: int
    share: float


@dataclass(frozen=True, slots=True)
class Image:
    """An activation in DDR: `offset` bytes into the buffer, [blocks][height][width][8], the value's own at (top, left).

    Its elements have `size` bytes. Channels are the tensor's `last` dimension, or the one before rows and columns.
    Those of a tensor [heads, positions, channels] are those of all `heads`, each filled up to whole blocks.
    """

    offset: int
    channels: int
    rows: int
    columns: int
    top: int
    left: int
    height: int
    width: int
    size: int = 1
    last: bool = False
    heads: int = 1

    @property
    def blocks(self) -> int:
        """Blocks of channels."""
        return -(-self.channels // BLOCK)

    @property
    def nbytes(self) -> int:
        """Bytes in the buffer."""
        return self.blocks * self.height * self.width * BLOCK * self.size

    def at(self, block: int, row: int, column: int) -> int:
        """The byte offset of a position, rows and columns counted from the value's own first."""
        return self.offset + ((block * self.height + self.top + row) * self.width + self.left + column) * BLOCK * self.size

    def part(self, first: int, channels: int) -> Image:
        """The image of some of the channels, from block `first` on."""
        return replace(self, offset=self.offset + first * self.height * self.width * BLOCK * self.size, channels=channels)


_SIZES = {DType.U8: 1, DType.I8: 1, DType.BF16: 2, DType.I32: 4}


def plane(of: TensorType) -> tuple[int, int, int, bool] | None:
    """A tensor as an image: channels, rows, columns, and whether channels are its last dimension; None when it is none.

    Of [1, C, H, W] they are C, H and W. Of [M, K], which may have dimensions of 1 before, channels are K, and M is cut into rows
    and columns that differ little. Of [H, M, K] they are the blocks of channels of H heads one behind the other.
    """
    if of.dtype not in _SIZES or of.rank < 2 or 0 in of.shape:
        return None
    if of.rank == 4:
        return (of.shape[1], of.shape[2], of.shape[3], False) if of.shape[0] == 1 else None
    heads = heads_of(of)
    if heads == 1 and any(d != 1 for d in of.shape[:-2]):
        return None
    positions = of.shape[-2]
    rows = max(r for r in range(1, isqrt(positions) + 1) if positions % r == 0)
    channels = of.shape[-1] if heads == 1 else heads * -(-of.shape[-1] // BLOCK) * BLOCK
    return channels, rows, positions // rows, True


def heads_of(of: TensorType) -> int:
    """How many matrices a tensor of three dimensions has; 1 for others."""
    return of.shape[0] if of.rank == 3 else 1


def element_bytes(of: TensorType) -> int:
    """Bytes of an element in an image."""
    return _SIZES[of.dtype]


@dataclass(frozen=True)
class Share:
    """What one column of cores computes and reads: `rows` x `columns` outputs, each core the same positions."""

    window: Window
    blocks: int  # of input channels
    rows: int
    columns: int
    element: Element = BYTE
    pairs: bool = False  # of blocks of input channels, whose vectors are multiplied as one of 4 x 16
    parts: int = 1  # in which the blocks come to a core one after the other, each with all of its planes
    trimmed: bool = False  # planes have only the rows that the kernel reads; parts are single blocks then

    @cached_property
    def strided(self) -> bool:
        """Whether cores step over rows and columns by the stride, and there are no planes: where 4 vectors are whole rows, within
        and between which steps are free."""
        return self.window.stride > 1 and self.folded

    @property
    def planes(self) -> tuple[tuple[int, int], ...]:
        """The remainders (of rows, of columns) by the stride that have planes of their own."""
        return ((0, 0),) if self.strided else self.window.planes

    @cached_property
    def lane(self) -> int:
        """Output columns between the positions of a vector: what one lane computes."""
        return -(-self.columns // LANES)

    @cached_property
    def pitch(self) -> int:
        """Vectors of a row of a plane that are a stride apart."""
        return self.lane + (self.window.kernel[1] - 1) // self.window.stride

    @cached_property
    def row_vectors(self) -> int:
        """Vectors from one row of a plane to the next."""
        return self.window.stride * (self.lane - 1) + self.window.kernel[1] if self.strided else self.pitch

    def plane_rows(self, remainder: int = 0) -> int:
        """Rows of one block of channels in the planes of a remainder: those of the first, which has most, or fewer if they are
        trimmed."""
        if self.strided:
            return self.source_rows
        return self.rows + (self.window.kernel[0] - 1 - remainder * self.trimmed) // self.window.stride

    @cached_property
    def _plane_starts(self) -> tuple[int, ...]:
        """Rows of a block in the planes before each, and in all of them."""
        return tuple(accumulate((self.plane_rows(i) for i, _ in self.planes), initial=0))

    @property
    def data_vectors(self) -> int:
        """Vectors of all planes."""
        return self.blocks * self._plane_starts[-1] * self.row_vectors

    @cached_property
    def folded(self) -> bool:
        """Whether 4 vectors are one row of outputs, or several, and nothing of what lies between rows is multiplied."""
        return TILE_VECTORS % self.lane == 0 and self.pitch > self.lane

    @cached_property
    def result_pitch(self) -> int:
        """Vectors from one row of results to the next."""
        return self.lane if self.folded else self.pitch

    @cached_property
    def tiles(self) -> int:
        """How often a core multiplies 4 vectors: rows that are not folded are multiplied with what lies between them."""
        return -(-((self.rows - 1) * self.result_pitch + self.lane) // TILE_VECTORS)

    @property
    def steps(self) -> Steps:
        """Bytes between the vectors that are multiplied together, and on to the next ones."""
        vector = self.element.vector_bytes
        inner = self.plane_rows() * self.row_vectors * vector if self.pairs else vector - LOAD_BYTES
        if not self.folded:
            return Steps((vector,) * 3, TILE_VECTORS * vector, inner)
        row, rows = vector * self.row_vectors, TILE_VECTORS // self.lane
        if self.strided:
            row, vector = row * self.row_step, vector * self.window.stride
        turn = row - vector * (self.lane - 1)
        first, second, third = (vector if i % self.lane else turn for i in range(1, TILE_VECTORS))
        return Steps((first, second, third), rows * row, inner)

    @property
    def slack(self) -> int:
        """Bytes behind a tile of data that a core may read, and multiply for no result that is kept."""
        return 2 * self.steps.on if self.folded else self.steps.on

    @property
    def row_step(self) -> int:
        """Input rows in the memory tile from one row of a plane to the next: kernels of one row leave out those between."""
        return 1 if self.window.kernel[0] == 1 else self.window.stride

    @property
    def source_rows(self) -> int:
        """Input rows of a block in the memory tile: whole strides, so that planes of different rows walk alike from block to
        block; where there are no planes, or blocks move one by one, those that the kernel reads."""
        exact = self.trimmed or self.strided
        return self.row_step * (self.rows - 1) + self.window.kernel[0] if exact else self.row_step * self.plane_rows()

    @property
    def source_reach(self) -> int:
        """Input rows from the first in the memory tile to behind the last."""
        return (self.source_rows - 1) * (self.window.stride // self.row_step) + 1

    @cached_property
    def source_columns(self) -> int:
        """Input columns in the memory tile: what the last lane's window reads."""
        return self.window.stride * ((LANES - 1) * self.lane + self.pitch)

    @property
    def stored_columns(self) -> int:
        """Output columns that cores make of a row, the value's own first."""
        return LANES * self.lane

    @cached_property
    def residual_columns(self) -> int:
        """Columns of a residual in the memory tile."""
        return (LANES - 1) * self.lane + self.result_pitch

    def offset(self, block: int, row: int, column: int) -> int:
        """Bytes from a tile's start to the data of a block of input channels under a position (row, column) of the kernel."""
        s, each = 1 if self.strided else self.window.stride, self.blocks // self.parts
        part, own = divmod(block, each)
        before = each * (part * self._plane_starts[-1] + self._plane_starts[self.planes.index((row % s, column % s))])
        at = before + own * self.plane_rows(row % s) + row // s
        return self.element.vector_bytes * (at * self.row_vectors + column // s)
