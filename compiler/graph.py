"""The graph IR: nodes in topological order over named values in single assignment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np

from sparsec.compiler.ops.base import Op
from sparsec.compiler.types import TensorType

Array = np.ndarray[Any, Any]
ABSENT = ""  # the name of an optional operand that is not there, as in ONNX


@dataclass(frozen=True, slots=True)
class Node:
    """One operation. `origin` names the ONNX nodes that it came from, so that reports and errors can name them."""

    name: str
    op: Op
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    origin: tuple[str, ...] = ()

    @property
    def output(self) -> str:
        """The name of the first output."""
        return self.outputs[0]


@dataclass(frozen=True, slots=True)
class Port:
    """A graph output: the public name under which the value `value` leaves."""

    name: str
    value: str


@dataclass(frozen=True)
class Graph:
    """A network. Values are named; `types` types every one of them; `constants` holds those known at compile time.

    `inputs` are value names and public names at once. Nodes are in topological order, each value has one definition.
    Graphs are immutable: passes build new ones through `editor.GraphEditor`.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[Port, ...]
    nodes: tuple[Node, ...]
    types: Mapping[str, TensorType]
    constants: Mapping[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "types", MappingProxyType(dict(self.types)))
        for array in self.constants.values():
            array.flags.writeable = False
        object.__setattr__(self, "constants", MappingProxyType(dict(self.constants)))

    @cached_property
    def producers(self) -> Mapping[str, Node]:
        """The node that defines each computed value."""
        return {out: node for node in self.nodes for out in node.outputs}

    @cached_property
    def users(self) -> Mapping[str, tuple[Node, ...]]:
        """The nodes that read each value, in order, each once."""
        found: dict[str, list[Node]] = {v: [] for v in self.types}
        for node in self.nodes:
            for v in dict.fromkeys(node.inputs):
                if v != ABSENT:
                    found[v].append(node)
        return {v: tuple(n) for v, n in found.items()}

    @cached_property
    def output_values(self) -> frozenset[str]:
        """The values that leave the graph."""
        return frozenset(p.value for p in self.outputs)

    def in_types(self, node: Node) -> tuple[TensorType | None, ...]:
        """The types of a node's operands, None where absent."""
        return tuple(self.types[v] if v != ABSENT else None for v in node.inputs)

    def out_types(self, node: Node) -> tuple[TensorType, ...]:
        """The types of a node's results."""
        return tuple(self.types[v] for v in node.outputs)

    def only_user(self, value: str) -> Node | None:
        """The single node that reads `value`, or None when there are others or it leaves the graph."""
        users = self.users[value]
        return users[0] if len(users) == 1 and value not in self.output_values else None

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)
