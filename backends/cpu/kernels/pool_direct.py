"""pool_direct: max, average and Lp pooling by their definition, row-major, 1 to 3 spatial dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, ClassVar

import numpy as np

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernel import Geometry, Kernel, Pointer
from sparsec.backends.cpu.scalar_c import load_expression, scalar_literal, store_expression, value_ctype
from sparsec.compiler.dtypes import DType
from sparsec.compiler.ops.pool import Pool as PoolOp

DIMS = 3


@dataclass(frozen=True, slots=True)
class PoolDirectGeometry(Geometry):
    """`planes` of (depth, height, width), ones in front where there are fewer dimensions."""

    planes: int
    x: tuple[int, ...] = field(metadata={"length": DIMS})
    y: tuple[int, ...] = field(metadata={"length": DIMS})
    window: tuple[int, ...] = field(metadata={"length": DIMS})
    stride: tuple[int, ...] = field(metadata={"length": DIMS})
    dilation: tuple[int, ...] = field(metadata={"length": DIMS})
    before: tuple[int, ...] = field(metadata={"length": DIMS})
    after: tuple[int, ...] = field(metadata={"length": DIMS})


@dataclass(frozen=True, slots=True)
class PoolDirect(Kernel):
    """y = max, mean or `p`-norm (`kind` lp) of each window's positions in the data, as the Pool op defines them."""

    dtype: DType
    kind: str
    include_pad: bool
    p: int
    family: ClassVar[str] = "pool_direct"
    template: ClassVar[str] = "pool_direct.c.j2"
    geometry: ClassVar[type[Geometry]] = PoolDirectGeometry

    def label(self) -> str:
        return f"{self.dtype.value}_{self.kind}pool_direct"

    def pointers(self) -> tuple[Pointer, ...]:
        return (Pointer("x", self.dtype.c), Pointer("y", self.dtype.c, const=False))

    def context(self, isa: Isa) -> dict[str, Any]:
        lowest = "-INFINITY" if self.dtype.is_float else scalar_literal(int(np.iinfo(self.dtype.numpy).min), self.dtype)
        return {
            "value": value_ctype(self.dtype),
            "start": lowest if self.kind == "max" else "0",
            "suffix": "" if self.dtype is DType.F64 else "f",
            "load": lambda stored: load_expression(self.dtype, stored),
            "store": lambda v: store_expression(self.dtype, v),
        }


def pool_direct(op: PoolOp, dtype: DType, shape: Sequence[int], out: Sequence[int]) -> tuple[PoolDirect, PoolDirectGeometry]:
    """The kernel for a Pool op on row-major [N, C, *spatial] of any type that the op takes."""
    n = len(op.kernel)

    def three(values: Sequence[int], fill: int) -> tuple[int, ...]:
        return (*(fill,) * (DIMS - n), *values)

    geometry = PoolDirectGeometry(
        prod(shape[:2]), three(shape[2:], 1), three(out[2:], 1), three(op.kernel, 1), three(op.strides, 1),
        three(op.dilations, 1), three(op.pads[:n], 0), three(op.pads[n:], 0),
    )  # fmt: skip
    return PoolDirect(dtype, op.kind, op.include_pad, op.p if op.kind == "lp" else 2), geometry
