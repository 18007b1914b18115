"""What an operator is: a frozen dataclass of its attributes with a shape rule, a numpy meaning and an axis map."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np

from sparsec.compiler import axes
from sparsec.compiler.axes import AxisMap
from sparsec.compiler.errors import ModelError
from sparsec.compiler.types import TensorType

Array = np.ndarray[Any, Any]
InTypes = Sequence[TensorType | None]
InArrays = Sequence[Array | None]


class Op(ABC):
    """Base of all operators. Subclasses are frozen, slotted dataclasses: equal attributes, equal op.

    Field types that print and parse: bool, int, float, str, DType, Layout, Program, and tuples of int or float or str or of
    tuples of those.
    """

    __slots__ = ()
    name: ClassVar[str]
    summary: ClassVar[str] = ""

    @abstractmethod
    def infer(self, inputs: InTypes) -> tuple[TensorType, ...]:
        """Output types from input types (None = absent). Raises ModelError saying what was expected."""

    @abstractmethod
    def evaluate(self, inputs: InArrays) -> tuple[Array, ...]:
        """Output values from input values, all row-major numpy arrays: the meaning of the op."""

    def axes(self, inputs: InTypes) -> AxisMap:
        """How operand dimensions take part; the default promises nothing."""
        outputs = self.infer(inputs)
        return axes.fixed([t.rank if t else 0 for t in inputs], [t.rank for t in outputs])

    def macs(self, inputs: InTypes) -> int:
        """Multiply-accumulates of the dense computation (0 for what does not contract)."""
        return 0

    def workspace(self, inputs: InTypes) -> int:
        """About how many bytes `evaluate` needs besides operands and results, where that may be far more than those."""
        return 0


OPS: dict[str, type[Op]] = {}
T = TypeVar("T", bound=type[Op])


def register(cls: T) -> T:
    """Class decorator: make the op known by its name (used by the parser and by `sparsec ops`)."""
    if cls.name in OPS:
        raise ValueError(f"two ops are called {cls.name}")
    OPS[cls.name] = cls
    return cls


def need(inputs: InTypes, index: int, what: str) -> TensorType:
    """The type of a required input, or a ModelError that names its role."""
    found = inputs[index] if index < len(inputs) else None
    if found is None:
        raise ModelError(f"input {index} ({what}) is missing")
    return found


def value(inputs: InArrays, index: int) -> Array:
    """The value of a required input."""
    found = inputs[index]
    assert found is not None
    return found


def broadcast_shapes(*shapes: Sequence[int]) -> tuple[int, ...]:
    """numpy's broadcasting of static shapes, as a ModelError when they do not fit."""
    try:
        return tuple(int(d) for d in np.broadcast_shapes(*(tuple(s) for s in shapes)))
    except (ValueError, RuntimeError) as exc:  # RuntimeError: more dimensions than numpy has
        raise ModelError(f"shapes {', '.join(str(list(s)) for s in shapes)} do not broadcast together") from exc


def broadcasts_to(shape: Sequence[int], target: Sequence[int]) -> bool:
    """Whether numpy would broadcast `shape` to exactly `target`."""
    lead = len(target) - len(shape)
    return lead >= 0 and all(n in (1, target[i + lead]) for i, n in enumerate(shape))


def normal_axis(axis: int, rank: int) -> int:
    """`axis`, which may count from the end, as one from 0; a ModelError when it is out of range."""
    if not -rank <= axis < rank:
        raise ModelError(f"axis {axis} is out of range for rank {rank}")
    return axis % rank
