"""norm: layer, RMS, group and instance normalisation, float32, on blocked tokens and on row-major lines."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Any, ClassVar

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernel import Geometry, Kernel, Pointer
from sparsec.backends.cpu.scalar_c import float_literal
from sparsec.backends.cpu.walk import Walk, blocked_view
from sparsec.compiler.layout import Blocked
from sparsec.compiler.types import TensorType

LOOPS = 2  # around a row of positions


@dataclass(frozen=True, slots=True)
class BlockedNormGeometry(Geometry):
    """Extents in positions, offsets and strides in elements."""

    blocks: int
    inner: int
    extent: tuple[int, ...] = field(metadata={"length": LOOPS})
    x_offset: int
    x_block: int
    x_stride: tuple[int, ...] = field(metadata={"length": LOOPS})
    y_offset: int
    y_block: int
    y_stride: tuple[int, ...] = field(metadata={"length": LOOPS})


@dataclass(frozen=True, slots=True)
class BlockedNorm(Kernel):
    """y[p, c] = (x[p, c] - mean) / sqrt(variance + epsilon) * scale[c] + bias[c], statistics over all channels of a position.

    With `rms` the mean counts as zero. Pointers: x, scale and bias where present (padded with zeros to whole blocks), y. `tail`:
    channels in the last block (0: all lanes). Several positions are computed at a time.
    """

    channels: int
    epsilon: float
    rms: bool
    scale: bool
    bias: bool
    tail: int
    family: ClassVar[str] = "norm_blocked"
    template: ClassVar[str] = "norm_blocked.c.j2"
    geometry: ClassVar[type[Geometry]] = BlockedNormGeometry

    def label(self) -> str:
        return f"f32_{'rms' if self.rms else 'layer'}norm_c{self.channels}"

    def pointers(self) -> tuple[Pointer, ...]:
        extras = [name for name, there in (("scale", self.scale), ("bias", self.bias)) if there]
        return (Pointer("x"), *(Pointer(name) for name in extras), Pointer("y", const=False))

    def context(self, isa: Isa) -> dict[str, Any]:
        share = float_literal(1.0 / self.channels)
        return {"L": isa.lanes, "epsilon": float_literal(self.epsilon), "share": share, "width": 8 if isa.registers >= 32 else 4}


def blocked_norm(
    x: TensorType, y: TensorType, epsilon: float, isa: Isa, *, rms: bool = False, scale: bool = True, bias: bool = True
) -> tuple[BlockedNorm, BlockedNormGeometry]:
    """The kernel that normalises every position over the blocked channel axis; x and y blocked by `isa.lanes` along one axis.

    Raises ValueError for other layouts and for more than 3 loops of positions that do not merge.
    """
    layout = x.layout
    if not isinstance(layout, Blocked) or not isinstance(y.layout, Blocked) or layout.block != isa.lanes:
        raise ValueError(f"this normalisation reads and writes blocks of {isa.lanes} channels, not {x} -> {y}")
    xs, ys = blocked_view(x), blocked_view(y)
    walk = Walk(xs.extents, (xs.strides, ys.strides)).collapsed(512).padded(LOOPS + 1)
    spec = BlockedNorm(x.shape[layout.axis], epsilon, rms, scale, bias, xs.tail)
    geometry = BlockedNormGeometry(
        xs.blocks, walk.extents[-1], walk.extents[:-1],
        xs.offset, xs.block_stride, walk.strides[0][:-1],
        ys.offset, ys.block_stride, walk.strides[1][:-1],
    )  # fmt: skip
    return spec, geometry


@dataclass(frozen=True, slots=True)
class RowNormGeometry(Geometry):
    """`rows` lines; each holds `channels` runs of `inner` contiguous elements, and has the parameters of group row % groups."""

    rows: int
    groups: int
    channels: int
    inner: int


@dataclass(frozen=True, slots=True)
class RowNorm(Kernel):
    """The same on contiguous lines. `affine`: scale and bias are indexed by element of the line, or by channel of its group."""

    epsilon: float
    rms: bool
    affine: str  # element, channel
    scale: bool
    bias: bool
    family: ClassVar[str] = "norm_rows"
    template: ClassVar[str] = "norm_rows.c.j2"
    geometry: ClassVar[type[Geometry]] = RowNormGeometry

    def label(self) -> str:
        return f"f32_{'rms' if self.rms else 'layer'}norm_rows_{self.affine}"

    def pointers(self) -> tuple[Pointer, ...]:
        extras = [name for name, there in (("scale", self.scale), ("bias", self.bias)) if there]
        return (Pointer("x"), *(Pointer(name) for name in extras), Pointer("y", const=False))

    def context(self, isa: Isa) -> dict[str, Any]:
        return {"L": isa.lanes, "epsilon": float_literal(self.epsilon)}


def row_norm(
    shape: tuple[int, ...], axis: int, epsilon: float, *, rms: bool = False, scale: bool = True, bias: bool = True
) -> tuple[RowNorm, RowNormGeometry]:
    """Layer or RMS normalisation of a row-major tensor over the dimensions from `axis` on; scale and bias have their shape."""
    return RowNorm(epsilon, rms, "element", scale, bias), RowNormGeometry(prod(shape[:axis]), 1, 1, prod(shape[axis:]))


def group_norm(shape: tuple[int, ...], groups: int, epsilon: float) -> tuple[RowNorm, RowNormGeometry]:
    """Group normalisation of a row-major [N, C, *spatial] tensor; scale and bias have C values. Instance norm: groups = C."""
    geometry = RowNormGeometry(shape[0] * groups, groups, shape[1] // groups, prod(shape[2:]))
    return RowNorm(epsilon, False, "channel", True, True), geometry
