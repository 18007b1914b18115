"""depthwise: convolution of every channel by its own window, float32, bfloat16 or bytes, blocked layout.

Bytes and bfloat16 are multiplied as float32, which holds sums of bytes exactly up to 2^24.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernel import Geometry, Kernel, Pointer
from sparsec.backends.cpu.kernels.blocked_epilogue import (
    FULL,
    balanced_tile,
    check_kinds,
    full_slots,
    lanes_to_keep,
)
from sparsec.backends.cpu.kernels.elements import element, ending
from sparsec.backends.cpu.kernels.panel_epilogue import Types
from sparsec.backends.cpu.walk import image_strides
from sparsec.compiler.dtypes import DType
from sparsec.compiler.scalar import Program
from sparsec.compiler.types import TensorType

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class DepthwiseGeometry(Geometry):
    """Extents in positions, offsets and strides in elements."""

    blocks: int
    batch: int
    height: int  # of the output
    x_offset: int  # of the first window's first position
    x_block: int
    x_batch: int
    x_step: int  # between output rows
    x_tap: int  # between the window's rows
    y_offset: int
    y_block: int
    y_batch: int
    y_row: int
    e_offset: tuple[int, ...] = field(metadata={"length": FULL})
    e_block: tuple[int, ...] = field(metadata={"length": FULL})
    e_batch: tuple[int, ...] = field(metadata={"length": FULL})
    e_row: tuple[int, ...] = field(metadata={"length": FULL})


@dataclass(frozen=True, slots=True)
class Depthwise(Kernel):
    """y[c, p] = epilogue(sum over k of x[c, p * stride + k * dilation - pad] * w[c, k], extras), one row a unit of work.

    Pointers: x (blocked, with a halo that covers the padding), w [C / lanes][kernel[0] * kernel[1]][lanes] of float32, for bytes
    `start` (what the sums of each channel begin with, float32), the extras, y.
    `width` positions are computed at a time, `tiles` times, then `rest`. `stride` and `dilation` are those along a row.
    """

    kernel: tuple[int, int]
    stride: int
    dilation: int
    width: int
    rest: int
    tiles: int
    epilogue: Program
    kinds: tuple[str, ...] = ()
    keep: int = 0  # channels to keep in the last block, 0 = all lanes
    types: Types = field(default_factory=Types)
    family: ClassVar[str] = "depthwise"
    template: ClassVar[str] = "depthwise.c.j2"
    geometry: ClassVar[type[Geometry]] = DepthwiseGeometry

    def label(self) -> str:
        return f"{self.types.data.value}_depthwise_{self.kernel[0]}x{self.kernel[1]}s{self.stride}_w{self.width}"

    @property
    def integers(self) -> bool:
        return self.types.integers

    @property
    def bfloat16(self) -> bool:
        return self.types.bfloat16 or self.epilogue.mentions(DType.BF16)

    @property
    def of_bytes(self) -> bool:
        """Whether the data are bytes."""
        return self.types.of_bytes

    def pointers(self) -> tuple[Pointer, ...]:
        extras = self.types.of_extras(len(self.kinds))
        start = (Pointer("start"),) if self.of_bytes else ()
        pointers = (Pointer(f"e{i}", t.c) for i, t in enumerate(extras))
        return (Pointer("x", self.types.data.c), Pointer("w"), *start, *pointers, Pointer("y", self.types.result.c, const=False))

    def context(self, isa: Isa) -> dict[str, Any]:
        taps = self.kernel[0] * self.kernel[1]
        extras = self.types.of_extras(len(self.kinds))
        names = ["acc", *(f"v{i}" for i in range(len(self.kinds)))]
        return {
            "L": isa.lanes,
            "elements": [element(f"e{i}", t) for i, t in enumerate(extras)],
            "x": element("x", self.types.data),
            "converted": self.types.data is not DType.F32,
            "y": self.types.result.c,
            "columns": sorted({t * self.stride + j * self.dilation for t in range(self.width) for j in range(self.kernel[1])}),
            "taps": taps,
            "in_registers": taps + self.width + 2 <= isa.registers,
            "slots": full_slots(self.kinds),
            "ending": ending(self.epilogue, names, [self.types.sums, *extras], self.types.result),
        }


def depthwise(
    x: TensorType,
    y: TensorType,
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    pads: tuple[int, ...],
    isa: Isa,
    epilogue: Program | None = None,
    kinds: tuple[str, ...] = (),
    full: tuple[TensorType, ...] = (),
    types: Types | None = None,
) -> tuple[Depthwise, DepthwiseGeometry]:
    """The kernel for a depthwise convolution with one or two spatial dimensions; attributes as in the Conv op.

    `x` and `y` are blocked by `isa.lanes` along axis 1, and x's halo covers `pads` (ValueError otherwise). `full` are the types
    of the full extras, in order.
    """
    program = epilogue or Program()
    check_kinds(program, kinds)
    n = len(kernel)
    if n == 1:
        kernel, strides, dilations = (1, *kernel), (1, *strides), (1, *dilations)
        pads = (0, pads[0], 0, pads[1])
    xs, ys, es = image_strides(x, isa.lanes), image_strides(y, isa.lanes), [image_strides(t, isa.lanes) for t in full]
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    for i, (lo, hi) in enumerate(xs.halo):
        reach = (ys.extents[1 + i] - 1) * strides[i] + spans[i] - pads[i] - xs.extents[1 + i]
        if lo < pads[i] or hi < reach:
            raise ValueError(f"a depthwise convolution padded by {pads} needs a halo that covers it, unlike {x}")
    width, rest = balanced_tile(ys.extents[2], min(8, isa.registers - 4))
    tiles = ys.extents[2] // width
    keep = lanes_to_keep(program, kinds, y.shape[1], isa.lanes)
    spec = Depthwise(
        (kernel[0], kernel[1]), strides[1], dilations[1], width, rest, tiles, program, kinds, keep, types or Types()
    )  # fmt: skip
    spare = (0,) * (FULL - len(es))
    geometry = DepthwiseGeometry(
        ys.blocks, ys.extents[0], ys.extents[1],
        xs.offset - pads[0] * xs.row - pads[1] * isa.lanes, xs.block, xs.batch, xs.row * strides[0], xs.row * dilations[0],
        ys.offset, ys.block, ys.batch, ys.row,
        tuple(e.offset for e in es) + spare, tuple(e.block for e in es) + spare,
        tuple(e.batch for e in es) + spare, tuple(e.row for e in es) + spare,
    )  # fmt: skip
    return spec, geometry


def pack_depthwise(w: Array, lanes: int) -> Array:
    """Weights [C, 1, *kernel] as the kernel reads them: [ceil(C / lanes)][taps][lanes], zero beyond C."""
    channels, taps = w.shape[0], int(np.prod(w.shape[2:]))
    padded = np.zeros((-(-channels // lanes) * lanes, taps), np.float32)
    padded[:channels] = w.reshape(channels, taps)
    return np.ascontiguousarray(padded.reshape(-1, lanes, taps).transpose(0, 2, 1))
