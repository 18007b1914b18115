"""What a backend promises to the rest: which layouts and kernels are legal for a node, what they cost, and how to lower."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.layout import Layout
from sparsec.compiler.schedule import LayerSchedule, Schedule


@dataclass(frozen=True, slots=True)
class LayoutOption:
    """One way to run a node: the storage order of every operand and result (halo apart), and its predicted cycles.

    None for an operand means that it is read whatever its order (absent operands, and constants that the backend packs itself).
    """

    inputs: tuple[Layout | None, ...]
    outputs: tuple[Layout, ...]
    cycles: float


@dataclass(frozen=True)
class Ties:
    """Which values share storage. `leader` maps a value to its group's name; groups in `bare` cannot carry a halo."""

    leader: Mapping[str, str]
    bare: frozenset[str]

    def group(self, value: str) -> str:
        """The name of the group that `value` belongs to."""
        return self.leader.get(value, value)


class Target(Protocol):
    """A machine that graphs are compiled for."""

    @property
    def name(self) -> str:
        """As the user writes it."""

    def legal(self, graph: Graph, node: Node) -> Sequence[LayoutOption]:
        """The layouts in which `node` can run; empty when it cannot run at all."""

    def conversion_cycles(self, graph: Graph, value: str, source: Layout, target: Layout) -> float:
        """Predicted cycles of converting `value` between two storage orders."""

    def halo(self, graph: Graph, node: Node, operand: int) -> tuple[tuple[int, int], ...]:
        """The halo that `node` wants on a blocked operand, per non-channel dimension; empty for none."""

    def ties(self, graph: Graph) -> Ties:
        """Values that the target keeps in one buffer (views, concatenations without copies)."""

    def cost(self, graph: Graph, node: Node) -> LayerSchedule:
        """The best schedule for `node` with the layouts that the graph now has."""

    def lower(self, graph: Graph, schedule: Schedule) -> Any:
        """The target's program for a scheduled graph."""
