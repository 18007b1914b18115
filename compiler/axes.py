"""Axis maps: how each operand dimension of an operator takes part in its iteration space.

Every op declares one. Channel coupling, layout assignment, tiling and quantisation read only this, never the op's name; a
dimension that no op declares is `Fixed`, which is always safe. The form is that of an affine loop nest: named iteration
dimensions with extents, and for every operand dimension the expression that indexes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from math import prod


class DimKind(Enum):
    """What an iteration dimension does."""

    PARALLEL = "parallel"  # every output element along it is independent of the others
    REDUCED = "reduced"  # summed (or max-ed) away
    NORMALISED = (
        "normalised"  # kept, but every output depends on the whole line (softmax, layer normalisation): permutable, not tileable
    )


@dataclass(frozen=True, slots=True)
class Dim:
    """A dimension of the iteration space."""

    name: str
    extent: int
    kind: DimKind = DimKind.PARALLEL


@dataclass(frozen=True, slots=True)
class Iter:
    """The operand dimension is the iteration dimension `dim`, index for index."""

    dim: str


@dataclass(frozen=True, slots=True)
class Window:
    """Index = dim * stride + kernel * dilation - pad_before (sliding window)."""

    dim: str
    kernel: str
    stride: int
    dilation: int
    pad_before: int


@dataclass(frozen=True, slots=True)
class Offset:
    """Index = dim - start: this operand holds the part [start, start + extent) of `dim` (concatenation, slicing)."""

    dim: str
    start: int
    step: int = 1


@dataclass(frozen=True, slots=True)
class Merged:
    """The operand dimension is the row-major merger of several iteration dimensions (reshape, groups, heads)."""

    dims: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fixed:
    """Nothing is known: indices must keep their meaning."""


@dataclass(frozen=True, slots=True)
class Broadcast:
    """The operand has extent 1 here and is read for every index of the iteration dimension."""


Access = Iter | Window | Offset | Merged | Fixed | Broadcast
FIXED = Fixed()
BROADCAST = Broadcast()


@dataclass(frozen=True, slots=True)
class AxisMap:
    """Iteration dimensions, and one Access for every dimension of every operand (absent operands have an empty tuple)."""

    dims: tuple[Dim, ...]
    inputs: tuple[tuple[Access, ...], ...]
    outputs: tuple[tuple[Access, ...], ...]

    def dim(self, name: str) -> Dim:
        """The iteration dimension called `name`."""
        return next(d for d in self.dims if d.name == name)

    @property
    def points(self) -> int:
        """Size of the iteration space (for a contraction: its multiply-accumulates)."""
        return prod(d.extent for d in self.dims)


def fixed(inputs: list[int], outputs: list[int]) -> AxisMap:
    """The map that promises nothing, for operands of the given ranks."""
    return AxisMap((), tuple((FIXED,) * r for r in inputs), tuple((FIXED,) * r for r in outputs))
