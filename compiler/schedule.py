"""The schedule: how each node of a graph is computed. The graph says what; this says in which loops, from which memory.

One form for every target: per layer, memory levels from the outermost in, each with the loops that run at that level and the
operands that stay resident there while they run. Which operand is stationary follows from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Any


class LoopKind(Enum):
    """How a loop's iterations are carried out."""

    TEMPORAL = "for"  # one after the other
    SPATIAL = "par"  # at once, over the units named by `axis` (threads, array rows, columns)
    VECTOR = "vec"  # in the lanes of one instruction
    UNROLLED = "unroll"  # in registers, as straight code


@dataclass(frozen=True, slots=True)
class Loop:
    """`extent` iterations over (a tile of) the iteration dimension `dim`."""

    dim: str
    extent: int
    kind: LoopKind = LoopKind.TEMPORAL
    axis: str = ""

    def __str__(self) -> str:
        return f"{self.kind.value} {self.dim}:{self.extent}{f'@{self.axis}' if self.axis else ''}"


@dataclass(frozen=True, slots=True)
class Level:
    """A memory level, the loops that run at it (outermost first) and the operands resident in it meanwhile."""

    memory: str
    loops: tuple[Loop, ...]
    resident: tuple[str, ...] = ()

    def __str__(self) -> str:
        body = ", ".join(map(str, self.loops))
        return f"{self.memory}[{body}]{{{', '.join(self.resident)}}}"


@dataclass(frozen=True, slots=True)
class Cost:
    """A prediction for one layer. `bytes` is traffic by memory level; `bound_by` names what limits it. A model's estimate."""

    cycles: float
    macs: int = 0
    bytes: Mapping[str, int] = field(default_factory=dict)
    bound_by: str = "compute"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to compute a node that was considered.

    `kernel` is its family in words, `sparse` says that it leaves zeros of the weights out, and `note` what it does with this
    layer or what limits it, as a clause with a subject of its own: "panels of 16 outputs fill in to 61 % of the weight rows".
    """

    kernel: str
    cycles: float
    sparse: bool
    note: str = ""


@dataclass(frozen=True, slots=True)
class LayerSchedule:
    """The chosen way to compute one node: the kernel's name, its loops, its predicted cost, and why it was chosen.

    `candidates` are all ways that were considered, the chosen one first, then by predicted cycles. `plan` is the backend's own
    description of the kernel (opaque outside of the backend that made it).
    """

    node: str
    kernel: str
    levels: tuple[Level, ...]
    cost: Cost
    plan: Any = None
    reason: str = ""
    candidates: tuple[Candidate, ...] = ()

    @property
    def stationary(self) -> tuple[str, ...]:
        """Operands resident in the innermost memory."""
        return self.levels[-1].resident if self.levels else ()

    def __str__(self) -> str:
        return " ".join(map(str, self.levels))


@dataclass(frozen=True)
class Schedule:
    """A layer schedule for every node that computes something."""

    layers: Mapping[str, LayerSchedule]

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", MappingProxyType(dict(self.layers)))
