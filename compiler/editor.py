"""GraphEditor: how passes build a changed graph from an immutable one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sparsec.compiler.dtypes import DType
from sparsec.compiler.errors import ModelError
from sparsec.compiler.graph import ABSENT, Graph, Node, Port
from sparsec.compiler.ops.base import Op
from sparsec.compiler.sparsity import DENSE, Sparsity
from sparsec.compiler.topology import sort_nodes
from sparsec.compiler.types import TensorType

Array = np.ndarray[Any, Any]


class GraphEditor:
    """A mutable working copy of a graph. Edits keep definitions and uses consistent; `finish` sorts, sweeps and freezes."""

    def __init__(self, graph: Graph) -> None:
        """Start from `graph`, which is not changed."""
        self._graph = graph
        self.name = graph.name
        self.inputs = list(graph.inputs)
        self.outputs = list(graph.outputs)
        self.types: dict[str, TensorType] = dict(graph.types)
        self.constants: dict[str, Array] = dict(graph.constants)
        self._nodes: dict[str, Node] = {n.name: n for n in graph.nodes}
        self._producer: dict[str, str] = {v: n.name for n in graph.nodes for v in n.outputs}
        self._users: dict[str, dict[str, None]] = {}
        self._orphans: list[str] = []
        for node in graph.nodes:
            self._link(node)
        self._serial = 0
        self.changed = False

    # ---- reading
    @property
    def nodes(self) -> tuple[Node, ...]:
        """The current nodes (a snapshot; safe to edit while iterating)."""
        return tuple(self._nodes.values())

    def has(self, node: Node) -> bool:
        """Whether this very node is still in the graph."""
        return self._nodes.get(node.name) is node

    def node(self, name: str) -> Node | None:
        """The current node of this name."""
        return self._nodes.get(name)

    def producer(self, value: str) -> Node | None:
        """The node that defines `value`, or None for an input or constant."""
        name = self._producer.get(value)
        return self._nodes[name] if name is not None else None

    def users(self, value: str) -> tuple[Node, ...]:
        """The nodes that read `value`, each once."""
        return tuple(self._nodes[n] for n in self._users.get(value, ()))

    def is_output(self, value: str) -> bool:
        """Whether `value` leaves the graph."""
        return any(p.value == value for p in self.outputs)

    def only_user(self, value: str) -> Node | None:
        """The single reader of `value`, or None when there are others or it leaves the graph."""
        users = self._users.get(value, {})
        return self._nodes[next(iter(users))] if len(users) == 1 and not self.is_output(value) else None

    def constant_of(self, value: str) -> Array | None:
        """The array of a constant value, else None."""
        return self.constants.get(value)

    def in_types(self, node: Node) -> tuple[TensorType | None, ...]:
        """The types of a node's operands, None where absent."""
        return tuple(self.types[v] if v != ABSENT else None for v in node.inputs)

    # ---- writing
    def fresh_value(self, hint: str) -> str:
        """A value name that is not taken, close to `hint`."""
        return self._fresh(hint, self.types)

    def add_constant(self, array: Array, hint: str, sparsity: Sparsity = DENSE) -> str:
        """Add a constant (row-major) and return its value name."""
        array = np.asarray(array, order="C")
        name = self.fresh_value(hint)
        self.constants[name] = array
        self.types[name] = TensorType(DType.from_numpy(array.dtype), tuple(array.shape), sparsity=sparsity)
        self.changed = True
        return name

    def add(
        self,
        op: Op,
        inputs: Sequence[str],
        *,
        hint: str,
        origin: Sequence[str] = (),
        outputs: Sequence[str] | None = None,
        name: str | None = None,
    ) -> Node:
        """Add a node; output types are inferred; `outputs` reuses value names that currently have no definition."""
        inferred = op.infer([self.types[v] if v != ABSENT else None for v in inputs])
        if outputs is None:
            outputs = [self.fresh_value(hint if len(inferred) == 1 else f"{hint}.{i}") for i in range(len(inferred))]
            for v in outputs:
                self.types[v] = inferred[0]
        node = Node(name or self._fresh(hint, self._nodes), op, tuple(inputs), tuple(outputs), tuple(dict.fromkeys(origin)))
        if node.name in self._nodes:
            raise ModelError(f"two nodes are called {node.name!r}", node=node.name)
        for v, t in zip(outputs, inferred, strict=True):
            self.types[v] = t
            self._producer[v] = node.name
        self._nodes[node.name] = node
        self._link(node)
        self.changed = True
        return node

    def remove(self, node: Node) -> None:
        """Take a node out; its outputs lose their definition and must be replaced or redefined before `finish`."""
        self._unlink(node)
        del self._nodes[node.name]
        for v in node.outputs:
            if self._producer.get(v) == node.name:
                del self._producer[v]
        self.changed = True

    def fold(self, node: Node, arrays: Sequence[Array]) -> None:
        """Put constants in a node's place, under the names of its outputs."""
        self.remove(node)
        for v, array in zip(node.outputs, arrays, strict=True):
            self.constants[v] = np.asarray(array, order="C")
            self.types[v] = TensorType(DType.from_numpy(array.dtype), tuple(array.shape))

    def sweep(self) -> None:
        """Remove the nodes whose last reader was removed since the last sweep, and so on towards the inputs."""
        while self._orphans:
            value = self._orphans.pop()
            node = self.producer(value)
            if node is not None and not any(self.users(v) or self.is_output(v) for v in node.outputs):
                self.remove(node)

    def replace(
        self, node: Node, op: Op, inputs: Sequence[str], *, origin: Sequence[str] = (), outputs: Sequence[str] = ()
    ) -> Node:
        """Put another op in a node's place: it keeps the name, the origin and (unless given) the outputs."""
        self.remove(node)
        outs = tuple(outputs) or node.outputs
        for v in outs:
            other = self.producer(v)
            if other is not None:
                self.remove(other)
        return self.add(op, inputs, hint=outs[0], origin=(*node.origin, *origin), outputs=outs, name=node.name)

    def replace_uses(self, old: str, new: str) -> None:
        """Every reader of `old`, and every output port that carries it, takes `new` instead."""
        for user in self.users(old):
            self._unlink(user)
            node = Node(user.name, user.op, tuple(new if v == old else v for v in user.inputs), user.outputs, user.origin)
            self._nodes[user.name] = node
            self._link(node)
        self.outputs = [Port(p.name, new if p.value == old else p.value) for p in self.outputs]
        self.changed = True

    def set_sparsity(self, value: str, sparsity: Sparsity) -> None:
        """Say what is known of a constant's zeros."""
        if self.types[value].sparsity != sparsity:
            self.types[value] = replace(self.types[value], sparsity=sparsity)
            self.changed = True

    def set_layout(self, value: str, layout: Any) -> None:
        """Change the storage order of a value (layout assignment only)."""
        self.types[value] = self.types[value].with_layout(layout)
        self.changed = True

    def finish(self) -> Graph:
        """The edited graph: nodes sorted, dead nodes, constants and types swept. The original when nothing changed."""
        if not self.changed:
            return self._graph
        live_values = {p.value for p in self.outputs}
        nodes = sort_nodes(self._nodes.values())
        kept: list[Node] = []
        for node in reversed(nodes):
            if any(v in live_values for v in node.outputs):
                kept.append(node)
                live_values.update(v for v in node.inputs if v != ABSENT)
        kept.reverse()
        live_values.update(self.inputs)
        live_values.update(v for n in kept for v in n.outputs)
        return Graph(
            self.name,
            tuple(self.inputs),
            tuple(self.outputs),
            tuple(kept),
            {v: t for v, t in self.types.items() if v in live_values},
            {v: c for v, c in self.constants.items() if v in live_values},
        )

    # ---- bookkeeping
    def _link(self, node: Node) -> None:
        for v in node.inputs:
            if v != ABSENT:
                self._users.setdefault(v, {})[node.name] = None

    def _unlink(self, node: Node) -> None:
        for v in node.inputs:
            if v != ABSENT:
                users = self._users.get(v, {})
                users.pop(node.name, None)
                if not users:
                    self._orphans.append(v)

    def _fresh(self, hint: str, taken: dict[str, Any]) -> str:
        if hint and hint not in taken:
            return hint
        while True:
            self._serial += 1
            name = f"{hint}.{self._serial}"
            if name not in taken:
                return name
