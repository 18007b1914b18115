"""Kernels along one axis of a row-major tensor: running sums, the k best, and interpolation by tables of taps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernel import Geometry, Kernel, Pointer
from sparsec.backends.cpu.scalar_c import load_expression, store_expression, value_ctype
from sparsec.compiler.dtypes import DType


@dataclass(frozen=True, slots=True)
class LineGeometry(Geometry):
    """x is [outer][extent][inner], y is [outer][result][inner]; lines run along the middle."""

    outer: int
    extent: int
    inner: int
    result: int


def line_geometry(shape: Sequence[int], axis: int, result: int | None = None) -> LineGeometry:
    """Lines along `axis` (>= 0) of a row-major tensor; `result` elements of each line are written (default: as many)."""
    extent = shape[axis]
    return LineGeometry(prod(shape[:axis]), extent, prod(shape[axis + 1 :]), extent if result is None else result)


@dataclass(frozen=True, slots=True)
class CumSum(Kernel):
    """y[i] = sum of x[j] over j <= i (`exclusive`: j < i; `reverse`: from the end). Integers wrap. y is not x."""

    dtype: DType
    exclusive: bool
    reverse: bool
    family: ClassVar[str] = "line"
    template: ClassVar[str] = "cumsum.c.j2"
    geometry: ClassVar[type[Geometry]] = LineGeometry

    def label(self) -> str:
        return f"{self.dtype.value}_cumsum{'_exclusive' if self.exclusive else ''}{'_reverse' if self.reverse else ''}"

    def pointers(self) -> tuple[Pointer, ...]:
        return (Pointer("x", self.dtype.c), Pointer("y", self.dtype.c, const=False))

    def context(self, isa: Isa) -> dict[str, Any]:
        acc = value_ctype(self.dtype)
        if not self.dtype.is_float:  # wraps as numpy's does
            acc = "uint64_t" if self.dtype.itemsize == 8 else "uint32_t"
        return {
            "acc": acc,
            "load": lambda stored: f"({acc}){load_expression(self.dtype, stored)}",
            "store": lambda v: f"({self.dtype.c}){store_expression(self.dtype, v)}",
        }


@dataclass(frozen=True, slots=True)
class TopK(Kernel):
    """The geometry's `result` best elements of every line, best first, and their positions (int64); of equals the first counts.

    Pointers: x, values, positions. Scratch holds the best so far.
    """

    dtype: DType
    largest: bool
    family: ClassVar[str] = "line"
    template: ClassVar[str] = "topk.c.j2"
    geometry: ClassVar[type[Geometry]] = LineGeometry

    def label(self) -> str:
        return f"{self.dtype.value}_topk_{'largest' if self.largest else 'smallest'}"

    def pointers(self) -> tuple[Pointer, ...]:
        return (
            Pointer("x", self.dtype.c),
            Pointer("values", self.dtype.c, const=False),
            Pointer("positions", "int64_t", const=False),
        )

    def scratch_bytes(self, geometry: Any, isa: Isa) -> int:
        return 16 * int(geometry.result)

    def context(self, isa: Isa) -> dict[str, Any]:
        return {
            "value": value_ctype(self.dtype),
            "load": lambda stored: load_expression(self.dtype, stored),
            "store": lambda v: store_expression(self.dtype, v),
            "sign": ">" if self.largest else "<",
        }


@dataclass(frozen=True, slots=True)
class Interpolate(Kernel):
    """y[j] = sum over t < taps of weights[j][t] * x[positions[j][t]] along the line, float32.

    Pointers: x, positions (int64 [result][taps]), weights (float [result][taps]), outside, y. Where positions[j][0] is negative
    y is *outside. One tap of weight one is nearest-neighbour resizing, two are linear, four cubic.
    """

    taps: int
    family: ClassVar[str] = "line"
    template: ClassVar[str] = "interpolate.c.j2"
    geometry: ClassVar[type[Geometry]] = LineGeometry

    def label(self) -> str:
        return f"f32_interpolate_{self.taps}"

    def pointers(self) -> tuple[Pointer, ...]:
        tables = (Pointer("positions", "int64_t"), Pointer("weights"), Pointer("outside"))
        return (Pointer("x"), *tables, Pointer("y", const=False))

    def context(self, isa: Isa) -> dict[str, Any]:
        return {}
