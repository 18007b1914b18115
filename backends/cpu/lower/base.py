"""What a lowering is, and the context that collects its kernel calls."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernel import Geometry, Kernel
from sparsec.backends.cpu.program import Call, Ref, Space, Weights
from sparsec.backends.cpu.storage import Alias, Strides, strides_of
from sparsec.compiler.dtypes import DType
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.layout import Blocked, Layout
from sparsec.compiler.ops.base import Op
from sparsec.compiler.schedule import Cost, LayerSchedule, Level, Loop
from sparsec.compiler.target import LayoutOption
from sparsec.compiler.types import TensorType

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class View:
    """Where a value is stored: address of its buffer, its type (layout included) and its strides in elements."""

    ref: Ref
    type: TensorType
    strides: Strides

    @property
    def interior(self) -> Ref:
        """Address of the first element that is not halo."""
        return self.ref.at(self.strides.origin * self.type.dtype.itemsize)


@dataclass
class LowerContext:
    """What a lowering reads (graph, views) and writes (calls, packed weights)."""

    graph: Graph
    isa: Isa
    threads: int
    views: dict[str, View]
    weights: Weights = field(default_factory=Weights)
    calls: list[Call] = field(default_factory=list)

    def view(self, value: str) -> View:
        """Where `value` is stored; constants are put into the weights blob row-major on first use."""
        if value not in self.views:
            array = self.graph.constants[value]
            t = self.graph.types[value]
            self.views[value] = View(self.weights.add(array), t, strides_of(t))
        return self.views[value]

    def constant(self, value: str) -> Array | None:
        """The array of a constant value, else None."""
        return self.graph.constants.get(value)

    def pack(self, array: Array) -> Ref:
        """Put an array into the weights blob as it is."""
        return self.weights.add(array)

    def same_place(self, a: str, b: str) -> bool:
        """Whether two values begin at the same address, so that a view needs no copy."""
        return self.view(a).ref == self.view(b).ref

    def call(self, node: Node, kernel: Kernel, geometry: Geometry, operands: Sequence[Ref]) -> None:
        """Append a kernel call."""
        self.call_for(node.name, kernel, geometry, operands)

    def call_for(self, label: str, kernel: Kernel, geometry: Geometry, operands: Sequence[Ref]) -> None:
        """Append a kernel call that belongs to no node (copies into the caller's arrays)."""
        self.calls.append(Call(kernel, geometry, tuple(operands), label, kernel.scratch_bytes(geometry, self.isa)))


class Lowering(ABC):
    """How one op runs on a CPU."""

    op: ClassVar[type[Op]]
    kernels: frozenset[str] | None = None  # families to choose from where one of them applies, None for all

    def choosing_from(self, kernels: frozenset[str] | None) -> Lowering:
        """The same, restricted to kernel families."""
        restricted = copy(self)
        restricted.kernels = kernels
        return restricted

    @abstractmethod
    def legal(self, graph: Graph, node: Node, isa: Isa) -> Sequence[LayoutOption]:
        """Layouts in which the node can run, with predicted cycles."""

    def halo(self, graph: Graph, node: Node, operand: int) -> tuple[tuple[int, int], ...]:
        """The halo that the node wants on a blocked operand."""
        return ()

    def aliases(self, graph: Graph, node: Node) -> Sequence[Alias]:
        """Storage that the node's values may share."""
        return ()

    def overwrites(self, graph: Graph, node: Node) -> Sequence[str]:
        """Operands that the result may be written over: every element is read for the result's own element alone, before it."""
        return ()

    def schedule(self, graph: Graph, node: Node, isa: Isa, threads: int) -> LayerSchedule:
        """The best schedule for the node as the graph is laid out; memory-bound by default."""
        moved = sum(t.nbytes for t in (*graph.in_types(node), *graph.out_types(node)) if t)
        cost = Cost(stream_cycles(moved), 0, {"L2": moved}, "memory")
        found = node.op.axes(graph.in_types(node)).dims
        dims = tuple(Loop(d.name, d.extent) for d in found if d.extent > 1)
        return LayerSchedule(node.name, node.op.name.lower(), (Level("L2", dims),), cost)

    @abstractmethod
    def lower(self, ctx: LowerContext, node: Node, layer: LayerSchedule) -> None:
        """Append the node's kernel calls."""


LOWERINGS: dict[type[Op], Lowering] = {}


def lowering(cls: type[Lowering]) -> type[Lowering]:
    """Class decorator: make the lowering known for its op."""
    LOWERINGS[cls.op] = cls()
    return cls


BLOCKED_TYPES = (DType.F32, DType.BF16)  # what moves in channel blocks; other types have kernels that compute there, at most
BYTES_PER_CYCLE = 12.0  # sustained read + write from L2/L3 by simple loops


def stream_cycles(nbytes: int) -> float:
    """Cycles that a simple pass over `nbytes` takes."""
    return 200.0 + nbytes / BYTES_PER_CYCLE


def blocked(t: TensorType, axis: int, isa: Isa) -> Blocked:
    """The channel-blocked order for a value on this instruction set."""
    return Blocked(axis % t.rank, isa.lanes)


def channel_axes(t: TensorType) -> tuple[int, ...]:
    """Dimensions that a network may use as channels: the second (images) and the last (tokens)."""
    return tuple(dict.fromkeys(a for a in (1, t.rank - 1) if 0 < a < t.rank))


def same_layout_options(graph: Graph, node: Node, isa: Isa, layouts: Sequence[Layout], cycles: float) -> list[LayoutOption]:
    """One option a layout, in which every full-size operand and every result has it."""
    out = graph.types[node.output]
    return [
        LayoutOption(
            tuple(
                None if v == "" or v in graph.constants else layout if t is not None and t.shape == out.shape else None
                for v, t in zip(node.inputs, graph.in_types(node), strict=True)
            ),
            (layout,) * len(node.outputs),
            cycles,
        )
        for layout in layouts
    ]


def is_arena(ref: Ref) -> bool:
    """Whether an address is in the arena."""
    return ref.space is Space.ARENA
