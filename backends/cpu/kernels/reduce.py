"""reduce: sum, mean, max, min and product over any axes of a tensor with any strides, and the position of an extreme."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, ClassVar

import numpy as np

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernel import Geometry, Kernel, Pointer
from sparsec.backends.cpu.scalar_c import load_expression, scalar_literal, store_expression
from sparsec.backends.cpu.walk import Walk, row_major_strides
from sparsec.compiler.dtypes import DType

LOOPS = 4  # of each sort


@dataclass(frozen=True, slots=True)
class ReduceGeometry(Geometry):
    """Loops that stay and loops that are reduced, outermost first; strides of x in elements, the result is contiguous.

    `count`: elements that each result comes from.
    """

    kept: tuple[int, ...] = field(metadata={"length": LOOPS})
    kept_stride: tuple[int, ...] = field(metadata={"length": LOOPS})
    reduced: tuple[int, ...] = field(metadata={"length": LOOPS})
    reduced_stride: tuple[int, ...] = field(metadata={"length": LOOPS})
    count: int


@dataclass(frozen=True, slots=True)
class Reduce(Kernel):
    """y = `kind` of x over the reduced loops. `columns`: the innermost loop of x stays, so 64 results are computed together.

    Integer sums and products wrap; an integer mean is truncated. Over no elements the result is the neutral element.
    """

    kind: str  # sum, mean, max, min, prod
    dtype: DType
    columns: bool
    family: ClassVar[str] = "reduce"
    template: ClassVar[str] = "reduce.c.j2"
    geometry: ClassVar[type[Geometry]] = ReduceGeometry

    def label(self) -> str:
        return f"{self.dtype.value}_reduce_{self.kind}_{'columns' if self.columns else 'rows'}"

    def pointers(self) -> tuple[Pointer, ...]:
        return (Pointer("x", self.dtype.c), Pointer("y", self.dtype.c, const=False))

    def context(self, isa: Isa) -> dict[str, Any]:
        acc = self._accumulator()
        small = self.dtype in (DType.F16, DType.BF16)
        step = {"prod": "({0} * {1})", "max": "spc_max_{s}({1}, {0})", "min": "spc_min_{s}({1}, {0})"}.get(
            self.kind, "({0} + {1})"
        )
        if self.kind in ("max", "min"):
            sign = ">" if self.kind == "max" else "<"
            step = step if self.dtype.is_float else f"({{1}} {sign} {{0}} ? {{1}} : {{0}})"
        suffix = "f64" if self.dtype is DType.F64 else "f32"
        vector = {"sum": "v_add", "mean": "v_add", "prod": "v_mul", "max": "v_max_nan", "min": "v_min_nan"}[self.kind]
        finish = "({0}) / ({t})g->count" if self.kind == "mean" else "{0}"
        finish = finish.replace("{t}", acc)
        if small:
            finish = store_expression(self.dtype, f"spc_round_{self.dtype.value}({finish})")
        return {
            "acc": acc,
            "start": self._start(),
            "step": lambda a, b: step.replace("{s}", suffix).replace("{0}", a).replace("{1}", b),
            "load": lambda stored: f"({acc}){load_expression(self.dtype, stored)}",
            "finish": lambda a: f"({self.dtype.c})({finish.replace('{0}', a)})",
            "vector_step": vector if self.dtype is DType.F32 else None,
        }

    def _accumulator(self) -> str:
        if self.dtype.is_float:
            return "double" if self.dtype is DType.F64 else "float"
        if self.kind == "mean":
            return "double"
        if self.kind in ("sum", "prod"):  # wraps as numpy's does
            return "uint64_t" if self.dtype.itemsize == 8 else "uint32_t"
        return self.dtype.c

    def _start(self) -> str:
        if self.kind in ("sum", "mean", "prod"):
            return "1" if self.kind == "prod" else "0"
        if self.dtype.is_float:
            return "-INFINITY" if self.kind == "max" else "INFINITY"
        if self.dtype is DType.BOOL:
            return "0" if self.kind == "max" else "1"
        info = np.iinfo(self.dtype.numpy)
        return scalar_literal(int(info.min if self.kind == "max" else info.max), self.dtype)


def reduce(
    kind: str, dtype: DType, shape: Sequence[int], axes: Sequence[int], strides: Sequence[int] | None = None
) -> tuple[Reduce, ReduceGeometry]:
    """The kernel that reduces `shape` over `axes` (>= 0); `strides` of x in elements, row-major when not given.

    Raises ValueError when more than 4 loops of a sort remain after merging.
    """
    kept_shape = [1 if i in axes else n for i, n in enumerate(shape)]
    y_strides = tuple(0 if i in axes else s for i, s in enumerate(row_major_strides(kept_shape)))
    walk = Walk(tuple(shape), (tuple(strides or row_major_strides(shape)), y_strides)).collapsed()
    loops = list(zip(walk.extents, *walk.strides, strict=True))
    kept, reduced = [v for v in loops if v[2]], [v for v in loops if not v[2]]
    columns = bool(loops) and bool(loops[-1][2]) and bool(reduced)
    if len(kept) > LOOPS or len(reduced) > LOOPS:
        raise ValueError(f"a reduction of {list(shape)} over {list(axes)} has more than {LOOPS} loops that do not merge")
    spare, spared = (LOOPS - len(kept)), (LOOPS - len(reduced))
    geometry = ReduceGeometry(
        (*(1,) * spare, *(v[0] for v in kept)),
        (*(0,) * spare, *(v[1] for v in kept)),
        (*(1,) * spared, *(v[0] for v in reduced)),
        (*(0,) * spared, *(v[1] for v in reduced)),
        prod(shape[a] for a in axes),
    )
    return Reduce(kind, dtype, columns), geometry


@dataclass(frozen=True, slots=True)
class ArgReduceGeometry(Geometry):
    """x is [outer][extent][inner]."""

    outer: int
    extent: int
    inner: int


@dataclass(frozen=True, slots=True)
class ArgReduce(Kernel):
    """y[outer][inner] = index (int64) along `extent` of the first (`last`: the last) max or min of row-major x."""

    kind: str
    dtype: DType
    last: bool
    family: ClassVar[str] = "arg_reduce"
    template: ClassVar[str] = "arg_reduce.c.j2"
    geometry: ClassVar[type[Geometry]] = ArgReduceGeometry

    def label(self) -> str:
        return f"{self.dtype.value}_arg{self.kind}{'_last' if self.last else ''}"

    def pointers(self) -> tuple[Pointer, ...]:
        return (Pointer("x", self.dtype.c), Pointer("y", "int64_t", const=False))

    def context(self, isa: Isa) -> dict[str, Any]:
        value = "float" if self.dtype in (DType.F16, DType.BF16) else self.dtype.c
        sign = (">" if self.kind == "max" else "<") + ("=" if self.last else "")
        return {"value": value, "sign": sign, "load": lambda stored: load_expression(self.dtype, stored)}


def arg_reduce(kind: str, dtype: DType, shape: Sequence[int], axis: int, last: bool) -> tuple[ArgReduce, ArgReduceGeometry]:
    """The kernel for ArgMax or ArgMin of a row-major tensor along `axis` (>= 0)."""
    return ArgReduce(kind, dtype, last), ArgReduceGeometry(prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :]))
