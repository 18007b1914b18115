"""gather, gather_elements, gather_nd and their scatters. Indices count from the end when negative, and are clamped to the data.

Clamping keeps every access inside its buffer, whatever the caller passes; the operators' definitions say the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, ClassVar

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernel import Geometry, Kernel, Pointer
from sparsec.backends.cpu.kernels.copy import UNSIGNED
from sparsec.backends.cpu.scalar_c import emit_scalar, load_expression, store_expression, value_ctype
from sparsec.backends.cpu.walk import row_major_strides
from sparsec.compiler.dtypes import DType
from sparsec.compiler.scalar import Arg, Program

LOOPS = 8
INDEX_TYPES = (DType.I32, DType.I64)


@dataclass(frozen=True, slots=True)
class GatherGeometry(Geometry):
    """x is [outer][extent][inner], `count` indices, y is [outer][count][inner]."""

    outer: int
    extent: int
    inner: int
    count: int


@dataclass(frozen=True, slots=True)
class Gather(Kernel):
    """y[o, i, :] = x[o, indices[i], :]. Pointers: x, indices, y."""

    itemsize: int
    index: DType
    family: ClassVar[str] = "gather"
    template: ClassVar[str] = "gather.c.j2"
    geometry: ClassVar[type[Geometry]] = GatherGeometry

    def label(self) -> str:
        return f"b{8 * self.itemsize}_gather_{self.index.value}"

    def pointers(self) -> tuple[Pointer, ...]:
        ctype = UNSIGNED[self.itemsize]
        return (Pointer("x", ctype), Pointer("indices", self.index.c), Pointer("y", ctype, const=False))

    def context(self, isa: Isa) -> dict[str, Any]:
        return {"T": UNSIGNED[self.itemsize]}


def gather(shape: Sequence[int], axis: int, count: int, itemsize: int, index: DType) -> tuple[Gather, GatherGeometry]:
    """The kernel for Gather of row-major x along `axis` (>= 0) by `count` indices."""
    return Gather(itemsize, index), GatherGeometry(prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :]), count)


@dataclass(frozen=True, slots=True)
class ElementsGeometry(Geometry):
    """`extent`: of the indices, padded with ones in front; `x_stride`: of x along them, 0 along the axis."""

    total: int
    axis_extent: int
    axis_stride: int
    extent: tuple[int, ...] = field(metadata={"length": LOOPS})
    x_stride: tuple[int, ...] = field(metadata={"length": LOOPS})


@dataclass(frozen=True, slots=True)
class GatherElements(Kernel):
    """y[i...] = x[i... with the axis' position replaced by indices[i...]]. Pointers: x, indices, y."""

    itemsize: int
    index: DType
    family: ClassVar[str] = "elements"
    template: ClassVar[str] = "gather_elements.c.j2"
    geometry: ClassVar[type[Geometry]] = ElementsGeometry

    def label(self) -> str:
        return f"b{8 * self.itemsize}_gather_elements_{self.index.value}"

    def pointers(self) -> tuple[Pointer, ...]:
        ctype = UNSIGNED[self.itemsize]
        return (Pointer("x", ctype), Pointer("indices", self.index.c), Pointer("y", ctype, const=False))

    def context(self, isa: Isa) -> dict[str, Any]:
        return {"T": UNSIGNED[self.itemsize], "loops": LOOPS, "scatters": False}


@dataclass(frozen=True, slots=True)
class ScatterElements(Kernel):
    """y[i... with the axis' position replaced by indices[i...]] = updates[i...], or combined with what y holds.

    y holds the data already. Pointers: indices, updates, y. Updates of one element happen in row-major order, so one thread
    does them all.
    """

    dtype: DType
    index: DType
    reduction: str  # none, add, mul, min, max
    family: ClassVar[str] = "elements"
    template: ClassVar[str] = "gather_elements.c.j2"
    geometry: ClassVar[type[Geometry]] = ElementsGeometry

    def label(self) -> str:
        return f"{self.dtype.value}_scatter_elements_{self.reduction}_{self.index.value}"

    def pointers(self) -> tuple[Pointer, ...]:
        return (Pointer("indices", self.index.c), Pointer("updates", self.dtype.c), Pointer("y", self.dtype.c, const=False))

    def context(self, isa: Isa) -> dict[str, Any]:
        return {"T": self.dtype.c, "loops": LOOPS, "scatters": True, "update": _update(self.dtype, self.reduction)}


def elements_geometry(shape: Sequence[int], indices: Sequence[int], axis: int) -> ElementsGeometry:
    """The geometry of GatherElements and ScatterElements for data of `shape`. ValueError beyond 8 dimensions."""
    spare = LOOPS - len(shape)
    if spare < 0:
        raise ValueError(f"gathering elements takes {LOOPS} dimensions at most, not {len(shape)}")
    strides = row_major_strides(shape)
    steps = tuple(0 if i == axis else s for i, s in enumerate(strides))
    return ElementsGeometry(
        prod(indices), shape[axis], strides[axis], ((1,) * spare + tuple(indices)), ((0,) * spare + steps)
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class NdGeometry(Geometry):
    """`batch` times `count` tuples of `width` indices; slices are `inner` contiguous elements, batches `x_batch` apart."""

    batch: int
    count: int
    width: int
    inner: int
    x_batch: int
    extent: tuple[int, ...] = field(metadata={"length": LOOPS})
    stride: tuple[int, ...] = field(metadata={"length": LOOPS})


@dataclass(frozen=True, slots=True)
class GatherNd(Kernel):
    """y[b, i, :] = x[b, indices[b, i, 0], ..., indices[b, i, width - 1], :]. Pointers: x, indices, y."""

    itemsize: int
    index: DType
    family: ClassVar[str] = "nd"
    template: ClassVar[str] = "gather_nd.c.j2"
    geometry: ClassVar[type[Geometry]] = NdGeometry

    def label(self) -> str:
        return f"b{8 * self.itemsize}_gather_nd_{self.index.value}"

    def pointers(self) -> tuple[Pointer, ...]:
        ctype = UNSIGNED[self.itemsize]
        return (Pointer("x", ctype), Pointer("indices", self.index.c), Pointer("y", ctype, const=False))

    def context(self, isa: Isa) -> dict[str, Any]:
        return {"T": UNSIGNED[self.itemsize], "scatters": False}


@dataclass(frozen=True, slots=True)
class ScatterNd(Kernel):
    """y[indices[i, 0], ..., :] = updates[i, :], or combined with what y holds (the data, to begin with).

    Pointers: indices, updates, y. One thread does all updates, in order.
    """

    dtype: DType
    index: DType
    reduction: str
    family: ClassVar[str] = "nd"
    template: ClassVar[str] = "gather_nd.c.j2"
    geometry: ClassVar[type[Geometry]] = NdGeometry

    def label(self) -> str:
        return f"{self.dtype.value}_scatter_nd_{self.reduction}_{self.index.value}"

    def pointers(self) -> tuple[Pointer, ...]:
        return (Pointer("indices", self.index.c), Pointer("updates", self.dtype.c), Pointer("y", self.dtype.c, const=False))

    def context(self, isa: Isa) -> dict[str, Any]:
        return {"T": self.dtype.c, "scatters": True, "update": _update(self.dtype, self.reduction)}


def nd_geometry(shape: Sequence[int], indices: Sequence[int], batch_dims: int = 0) -> NdGeometry:
    """The geometry of GatherND and ScatterND for data of `shape`. ValueError when a tuple has more than 8 indices."""
    width = indices[-1]
    if width > LOOPS:
        raise ValueError(f"tuples of {width} indices are longer than {LOOPS}")
    strides = row_major_strides(shape)[batch_dims : batch_dims + width]
    extents = tuple(shape[batch_dims : batch_dims + width])
    spare = LOOPS - width
    return NdGeometry(
        prod(shape[:batch_dims]), prod(indices[batch_dims:-1]), width,
        prod(shape[batch_dims + width :]), prod(shape[batch_dims:]),
        (*extents, *(1,) * spare), (*strides, *(0,) * spare),
    )  # fmt: skip


def _update(dtype: DType, reduction: str) -> dict[str, str]:
    """C that replaces `*to` by its combination with `from`."""
    if reduction == "none":
        return {"statements": "", "value": "from"}
    emitted = emit_scalar(Program().then(reduction, Arg(0), Arg(1)), ["old", "new"], [dtype, dtype])
    declared = value_ctype(dtype)
    lines = [
        f"const {declared} old = {load_expression(dtype, '*to')};",
        f"const {declared} new = {load_expression(dtype, 'from')};",
        *emitted.statements,
    ]
    return {"statements": "\n".join(f"        {line}" for line in lines), "value": store_expression(dtype, emitted.result)}
