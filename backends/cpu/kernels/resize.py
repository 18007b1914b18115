"""resize: images interpolated along rows and columns by tables of taps, float32, row-major planes or blocked channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernel import Geometry, Kernel, Pointer
from sparsec.backends.cpu.walk import image_strides
from sparsec.compiler.layout import Blocked
from sparsec.compiler.types import TensorType


@dataclass(frozen=True, slots=True)
class ResizeGeometry(Geometry):
    """Extents in positions, offsets and strides in elements; row-major planes count as blocks of one channel."""

    blocks: int
    batch: int
    height: int  # of the output
    width: int
    x_width: int
    x_offset: int
    x_block: int
    x_batch: int
    x_row: int
    y_offset: int
    y_block: int
    y_batch: int
    y_row: int


@dataclass(frozen=True, slots=True)
class Resize(Kernel):
    """y[i, j] = sum over s, t of row_weights[i][s] * column_weights[j][t] * x[rows[i][s], columns[j][t]].

    Pointers: x, rows (int64 [height][row_taps]), row_weights (float), columns (int64 [width][column_taps]), column_weights
    (float), y. A row is combined from its taps in scratch first.
    """

    row_taps: int
    column_taps: int
    blocked: bool
    family: ClassVar[str] = "resize"
    template: ClassVar[str] = "resize.c.j2"
    geometry: ClassVar[type[Geometry]] = ResizeGeometry

    def label(self) -> str:
        return f"f32_resize_{self.row_taps}x{self.column_taps}_{'blocked' if self.blocked else 'planes'}"

    def pointers(self) -> tuple[Pointer, ...]:
        rows = (Pointer("rows", "int64_t"), Pointer("row_weights"))
        columns = (Pointer("columns", "int64_t"), Pointer("column_weights"))
        return (Pointer("x"), *rows, *columns, Pointer("y", const=False))

    def scratch_bytes(self, geometry: Any, isa: Isa) -> int:
        return 4 * int(geometry.x_width) * (isa.lanes if self.blocked else 1)

    def context(self, isa: Isa) -> dict[str, Any]:
        return {"B": isa.lanes if self.blocked else 1}


def resize(x: TensorType, y: TensorType, row_taps: int, column_taps: int, isa: Isa) -> tuple[Resize, ResizeGeometry]:
    """The kernel that resizes [N, C, H, W] along H and W, both row-major or both blocked by `isa.lanes` along axis 1."""
    if isinstance(x.layout, Blocked):
        xs, ys = image_strides(x, isa.lanes), image_strides(y, isa.lanes)
        geometry = ResizeGeometry(
            ys.blocks, *ys.extents, xs.extents[2],
            xs.offset, xs.block, xs.batch, xs.row, ys.offset, ys.block, ys.batch, ys.row,
        )  # fmt: skip
        return Resize(row_taps, column_taps, True), geometry
    if isinstance(y.layout, Blocked) or x.rank != 4:
        raise ValueError(f"a resize reads and writes [N, C, H, W] in one layout, unlike {x} -> {y}")
    (n, c, h, w), (_, _, oh, ow) = x.shape, y.shape
    return Resize(row_taps, column_taps, False), ResizeGeometry(n * c, 1, oh, ow, w, 0, h * w, 0, w, 0, oh * ow, 0, ow)
