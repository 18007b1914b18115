"""conv_direct: convolution and transposed convolution by their definition, row-major, any groups, dilation and padding.

Weights may be computed at run time. This is the form that is always legal; constant weights have faster kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernel import Geometry, Kernel, Pointer
from sparsec.backends.cpu.kernels.blocked_epilogue import KINDS
from sparsec.backends.cpu.scalar_c import emit_scalar
from sparsec.compiler.dtypes import DType
from sparsec.compiler.scalar import Program

DIMS = 3
TOGETHER = 4  # output channels of a group that share the loads of x


@dataclass(frozen=True, slots=True)
class ConvDirectGeometry(Geometry):
    """Channels are those of one group; arrays are (depth, height, width), ones in front where there are fewer dimensions."""

    batch: int
    groups: int
    x_channels: int
    y_channels: int
    x: tuple[int, ...] = field(metadata={"length": DIMS})
    y: tuple[int, ...] = field(metadata={"length": DIMS})
    window: tuple[int, ...] = field(metadata={"length": DIMS})
    stride: tuple[int, ...] = field(metadata={"length": DIMS})
    dilation: tuple[int, ...] = field(metadata={"length": DIMS})
    pad: tuple[int, ...] = field(metadata={"length": DIMS})


@dataclass(frozen=True, slots=True)
class ConvDirect(Kernel):
    """y = epilogue(conv(x, w), extras); a unit of work is one row of y for up to 4 output channels, summed in scratch.

    Pointers: x, w (as in the Conv or, if `transposed`, the ConvTranspose op), extras, y. Extra operands by kind: channel, one
    value an output channel; full, y's shape; scalar.
    """

    dtype: DType
    transposed: bool
    step: int  # the stride along a row
    epilogue: Program
    kinds: tuple[str, ...] = ()
    family: ClassVar[str] = "conv_direct"
    template: ClassVar[str] = "conv_direct.c.j2"
    geometry: ClassVar[type[Geometry]] = ConvDirectGeometry

    def label(self) -> str:
        return f"{self.dtype.value}_conv{'_transposed' if self.transposed else ''}_direct_s{self.step}"

    @property
    def ctype(self) -> str:
        """The C type of the arithmetic: unsigned for integers, which wrap."""
        return "uint32_t" if self.dtype is DType.I32 else self.dtype.c

    def pointers(self) -> tuple[Pointer, ...]:
        t = self.ctype
        extras = tuple(Pointer(f"e{i}", t) for i in range(len(self.kinds)))
        return (Pointer("x", t), Pointer("w", t), *extras, Pointer("y", t, const=False))

    def scratch_bytes(self, geometry: Any, isa: Isa) -> int:
        step = self.step if self.transposed else 1
        return self.dtype.itemsize * TOGETHER * (-(-int(geometry.y[2]) // step) * step)

    def context(self, isa: Isa) -> dict[str, Any]:
        names = ["acc", *(f"v{i}" for i in range(len(self.kinds)))]
        return {
            "T": self.ctype,
            "Q": TOGETHER,
            "vectors": self.dtype is DType.F32,
            "program": emit_scalar(self.epilogue, names, [self.dtype] * len(names)),
        }


def conv_direct(
    dtype: DType,
    x: Sequence[int],
    y: Sequence[int],
    window: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    groups: int,
    *,
    transposed: bool = False,
    epilogue: Program | None = None,
    kinds: tuple[str, ...] = (),
) -> tuple[ConvDirect, ConvDirectGeometry]:
    """The kernel for shapes x [N, IC, *spatial] -> y [N, OC, *out] with 1 to 3 spatial dimensions, f32, f64 or bare i32.

    `pads` are the ones before each dimension. Raises ValueError for other ranks, types and kinds.
    """
    program, n = epilogue or Program(), len(window)
    if not 1 <= n <= DIMS or dtype not in (DType.F32, DType.F64, DType.I32):
        raise ValueError(f"a direct convolution has 1 to 3 spatial dimensions of f32, f64 or i32, not {n} of {dtype.value}")
    if dtype is DType.I32 and program.steps:
        raise ValueError(f"a direct convolution of integers takes no epilogue, unlike {program}")
    if any(k not in KINDS for k in kinds) or program.n_args > 1 + len(kinds):
        raise ValueError(f"an epilogue takes operands of kinds {KINDS}, not {list(kinds)} for {program}")

    def three(values: Sequence[int], fill: int) -> tuple[int, ...]:
        return (*(fill,) * (DIMS - n), *values)

    geometry = ConvDirectGeometry(
        x[0], groups, x[1] // groups, y[1] // groups,
        three(x[2:], 1), three(y[2:], 1), three(window, 1), three(strides, 1), three(dilations, 1), three(pads[:n], 0),
    )  # fmt: skip
    return ConvDirect(dtype, transposed, strides[-1], program, kinds), geometry
