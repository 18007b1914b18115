"""lrn: local response normalisation across channels, float32, planes or blocked channels."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernel import Geometry, Kernel, Pointer
from sparsec.backends.cpu.scalar_c import float_literal
from sparsec.backends.cpu.walk import image_strides
from sparsec.compiler.layout import Blocked
from sparsec.compiler.types import TensorType


@dataclass(frozen=True, slots=True)
class LrnGeometry(Geometry):
    """Rows of positions; offsets and strides in elements. Planes: one row a batch entry, a block is one channel."""

    channels: int
    batch: int
    height: int
    width: int
    x_offset: int
    x_block: int
    x_batch: int
    x_row: int
    y_offset: int
    y_block: int
    y_batch: int
    y_row: int


@dataclass(frozen=True, slots=True)
class Lrn(Kernel):
    """y = x / (bias + alpha / size * s) ** beta, s the sum of squares over channels c - (size - 1) // 2 to c + size // 2.

    As many positions as there are lanes are computed together; blocked channels are transposed in scratch for it.
    """

    size: int
    alpha: float
    beta: float
    bias: float
    blocked: bool
    family: ClassVar[str] = "lrn"
    template: ClassVar[str] = "lrn.c.j2"
    geometry: ClassVar[type[Geometry]] = LrnGeometry

    def label(self) -> str:
        return f"f32_lrn_{self.size}_{'blocked' if self.blocked else 'planes'}"

    def pointers(self) -> tuple[Pointer, ...]:
        return (Pointer("x"), Pointer("y", const=False))

    def scratch_bytes(self, geometry: Any, isa: Isa) -> int:
        return 8 * (-(-int(geometry.channels) // isa.lanes) * isa.lanes) * isa.lanes

    def context(self, isa: Isa) -> dict[str, Any]:
        return {
            "L": isa.lanes,
            "share": float_literal(self.alpha / self.size),
            "bias": float_literal(self.bias),
            "power": float_literal(-self.beta),
            "transposed": self.blocked and isa.lanes > 1,
        }


def lrn(x: TensorType, y: TensorType, size: int, alpha: float, beta: float, bias: float, isa: Isa) -> tuple[Lrn, LrnGeometry]:
    """The kernel for LRN of [N, C, *spatial], both row-major, or [N, C, H, W] both blocked by `isa.lanes` along axis 1."""
    if isinstance(x.layout, Blocked):
        xs, ys = image_strides(x, isa.lanes), image_strides(y, isa.lanes)
        geometry = LrnGeometry(
            x.shape[1], *xs.extents, xs.offset, xs.block, xs.batch, xs.row, ys.offset, ys.block, ys.batch, ys.row
        )  # fmt: skip
        return Lrn(size, alpha, beta, bias, True), geometry
    if isinstance(y.layout, Blocked):
        raise ValueError(f"LRN reads and writes one layout, unlike {x} -> {y}")
    n, c, p = x.shape[0], x.shape[1], prod(x.shape[2:])
    return Lrn(size, alpha, beta, bias, False), LrnGeometry(c, n, 1, p, 0, p, c * p, 0, 0, p, c * p, 0)
