"""softmax: softmax or its logarithm along any axis of a row-major float32 tensor."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernel import Geometry, Kernel, Pointer


@dataclass(frozen=True, slots=True)
class SoftmaxGeometry(Geometry):
    """x is [outer][extent][inner]; lines run along `extent`."""

    outer: int
    extent: int
    inner: int


@dataclass(frozen=True, slots=True)
class Softmax(Kernel):
    """y = exp(x - max) / sum(exp(x - max)), or with `log` x - max - log(sum). `inner_one`: lines are contiguous (inner is 1)."""

    log: bool
    inner_one: bool
    family: ClassVar[str] = "softmax"
    template: ClassVar[str] = "softmax.c.j2"
    geometry: ClassVar[type[Geometry]] = SoftmaxGeometry

    def label(self) -> str:
        return f"f32_{'log' if self.log else ''}softmax_{'rows' if self.inner_one else 'columns'}"

    def pointers(self) -> tuple[Pointer, ...]:
        return (Pointer("x"), Pointer("y", const=False))

    def context(self, isa: Isa) -> dict[str, Any]:
        return {}


def softmax(shape: tuple[int, ...], axis: int, *, log: bool = False) -> tuple[Softmax, SoftmaxGeometry]:
    """The kernel for softmax along `axis` (>= 0); y may be x."""
    inner = prod(shape[axis + 1 :])
    return Softmax(log, inner == 1), SoftmaxGeometry(prod(shape[:axis]), shape[axis], inner)
