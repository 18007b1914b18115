"""The type of a value: element type, static shape, storage order and sparsity."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from sparsec.compiler.dtypes import DType
from sparsec.compiler.layout import ROW_MAJOR, Layout, storage_elements
from sparsec.compiler.sparsity import DENSE, Sparsity


@dataclass(frozen=True, slots=True)
class TensorType:
    """`dtype` and `shape` say what a value is; `layout` and `sparsity` say how it is stored."""

    dtype: DType
    shape: tuple[int, ...]
    layout: Layout = ROW_MAJOR
    sparsity: Sparsity = DENSE

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def elements(self) -> int:
        """Logical elements (a scalar has one)."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the buffer that holds the value, halo and padded lanes included."""
        return storage_elements(self.shape, self.layout, self.dtype.itemsize) * self.dtype.itemsize

    def with_layout(self, layout: Layout) -> TensorType:
        """The same value stored in another order."""
        return replace(self, layout=layout)

    def __str__(self) -> str:
        return f"{self.dtype.value}[{','.join(map(str, self.shape))}]{self.layout}{self.sparsity}"
