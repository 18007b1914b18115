"""pool: max and average pooling, and reductions over all positions, blocked layout. No halo is needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernel import Geometry, Kernel, Pointer
from sparsec.backends.cpu.kernels.blocked_epilogue import balanced_tile
from sparsec.backends.cpu.kernels.elements import INTEGERS, element
from sparsec.backends.cpu.walk import image_strides
from sparsec.compiler.dtypes import DType
from sparsec.compiler.ops.pool import Pool as PoolOp
from sparsec.compiler.types import TensorType

MAXIMA = (DType.F32, DType.BF16, DType.U8, DType.I8)  # element types whose maxima are pooled


@dataclass(frozen=True, slots=True)
class PoolGeometry(Geometry):
    """Extents in positions, offsets and strides in elements. `inside_*`: output columns whose whole window lies in the data."""

    blocks: int
    batch: int
    height: int  # of the output
    width: int
    x_height: int
    x_width: int
    stride_h: int
    stride_w: int
    dilation_h: int
    dilation_w: int
    top: int  # padding before the rows
    left: int
    bottom: int
    right: int
    inside_from: int
    inside_to: int
    x_offset: int
    x_block: int
    x_batch: int
    x_row: int
    y_offset: int
    y_block: int
    y_batch: int
    y_row: int


@dataclass(frozen=True, slots=True)
class BlockedPool(Kernel):
    """y[c, p] = max or mean over the window's positions that lie in the data (a mean may divide by the padding's too).

    `stride` and `dilation` are those along a row; `tile` columns inside the data are computed at a time.
    """

    kind: str  # max, avg
    kernel: tuple[int, int]
    stride: int
    dilation: int
    include_pad: bool
    tile: int
    dtype: DType = DType.F32
    family: ClassVar[str] = "pool"
    template: ClassVar[str] = "pool.c.j2"
    geometry: ClassVar[type[Geometry]] = PoolGeometry

    def label(self) -> str:
        return f"{self.dtype.value}_{self.kind}pool_{self.kernel[0]}x{self.kernel[1]}s{self.stride}"

    @property
    def integers(self) -> bool:
        return self.dtype in INTEGERS

    @property
    def bfloat16(self) -> bool:
        return self.dtype is DType.BF16

    def pointers(self) -> tuple[Pointer, ...]:
        return (Pointer("x", self.dtype.c), Pointer("y", self.dtype.c, const=False))

    def context(self, isa: Isa) -> dict[str, Any]:
        if self.integers:
            least = {DType.U8: 0, DType.I8: -128}[self.dtype]
            return {"L": isa.lanes, "x": element("x", self.dtype), "start": f"vi_set1({least})", "step": "vi_max"}
        start, step = ("v_set1(-INFINITY)", "v_max") if self.kind == "max" else ("v_zero()", "v_add")
        return {"L": isa.lanes, "x": element("x", self.dtype), "start": start, "step": step}


def blocked_pool(op: PoolOp, x: TensorType, y: TensorType, isa: Isa) -> tuple[BlockedPool, PoolGeometry]:
    """The kernel for a Pool op of kind max or avg with one or two spatial dimensions, x and y blocked by `isa.lanes`,
    of float32, or of one of `MAXIMA` for max. Raises ValueError for other kinds, ranks and types.
    """
    n = len(op.kernel)
    if op.kind not in ("max", "avg") or n > 2:
        raise ValueError(f"the blocked pool does max and avg over one or two dimensions, not {op.kind} over {n}")
    if x.dtype not in (MAXIMA if op.kind == "max" else (DType.F32,)):
        raise ValueError(f"the blocked pool of kind {op.kind} takes no {x.dtype.value}")
    lead = (1,) * (2 - n)
    kernel, strides, dilations = (*lead, *op.kernel), (*lead, *op.strides), (*lead, *op.dilations)
    before, after = (*(0,) * (2 - n), *op.pads[:n]), (*(0,) * (2 - n), *op.pads[n:])
    xs, ys = image_strides(x, isa.lanes), image_strides(y, isa.lanes)
    span = (kernel[1] - 1) * dilations[1] + 1
    columns = ys.extents[2]
    inside_from = min(columns, -(-before[1] // strides[1]))
    inside_to = max(inside_from, min(columns, (xs.extents[2] - span + before[1]) // strides[1] + 1))
    tile, _ = balanced_tile(max(1, inside_to - inside_from), 4)
    spec = BlockedPool(op.kind, (kernel[0], kernel[1]), strides[1], dilations[1], op.include_pad, tile, x.dtype)
    geometry = PoolGeometry(
        ys.blocks, ys.extents[0], ys.extents[1], columns, xs.extents[1], xs.extents[2],
        strides[0], strides[1], dilations[0], dilations[1], before[0], before[1], after[0], after[1], inside_from, inside_to,
        xs.offset, xs.block, xs.batch, xs.row, ys.offset, ys.block, ys.batch, ys.row,
    )  # fmt: skip
    return spec, geometry


@dataclass(frozen=True, slots=True)
class GlobalPoolGeometry(Geometry):
    """Extents in positions, offsets and strides in elements."""

    blocks: int
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


@dataclass(frozen=True, slots=True)
class GlobalPool(Kernel):
    """y[n, c] = sum, mean, max or min of x[n, c, :, :]."""

    kind: str
    family: ClassVar[str] = "global_pool"
    template: ClassVar[str] = "global_pool.c.j2"
    geometry: ClassVar[type[Geometry]] = GlobalPoolGeometry

    def label(self) -> str:
        return f"f32_global_{self.kind}"

    def pointers(self) -> tuple[Pointer, ...]:
        return (Pointer("x"), Pointer("y", const=False))

    def context(self, isa: Isa) -> dict[str, Any]:
        start = {"max": "v_set1(-INFINITY)", "min": "v_set1(INFINITY)"}.get(self.kind, "v_zero()")
        return {"L": isa.lanes, "start": start, "step": {"max": "v_max", "min": "v_min"}.get(self.kind, "v_add")}


def global_pool(kind: str, x: TensorType, y: TensorType, isa: Isa) -> tuple[GlobalPool, GlobalPoolGeometry]:
    """The kernel that reduces [N, C, H, W] (or [N, C, W]) to [N, C, 1, 1], both blocked by `isa.lanes`."""
    xs, ys = image_strides(x, isa.lanes), image_strides(y, isa.lanes)
    geometry = GlobalPoolGeometry(
        xs.blocks, *xs.extents, xs.offset, xs.block, xs.batch, xs.row, ys.offset, ys.block, ys.batch
    )  # fmt: skip
    return GlobalPool(kind), geometry
