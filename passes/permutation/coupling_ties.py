"""Which dimensions of which values must share an order, read from the axis maps of a graph's ops."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sparsec.compiler.axes import Access, AxisMap, Broadcast, Fixed, Iter, Merged, Offset, Window
from sparsec.compiler.graph import ABSENT, Graph, Node
from sparsec.passes.permutation.coupling_terms import Terms


@dataclass(frozen=True, eq=False, slots=True)
class TiedNode:
    """A node, its axis map, and the terms of the iteration dimensions."""

    node: Node
    axis_map: AxisMap
    dims: dict[str, int]

    def operands(self) -> Iterator[tuple[str, tuple[Access, ...]]]:
        """The values that it reads and makes, with their accesses."""
        accesses = (*self.axis_map.inputs, *self.axis_map.outputs)
        return ((v, a) for v, a in zip((*self.node.inputs, *self.node.outputs), accesses, strict=True) if v != ABSENT)


@dataclass(frozen=True, eq=False, slots=True)
class Ties:
    """Unified terms: those of every dimension of every value, and of every node's iteration space."""

    terms: Terms
    axes: dict[str, tuple[int, ...]]
    nodes: tuple[TiedNode, ...]


def tie(graph: Graph, blocked: Callable[[str], str]) -> Ties:
    """Unify what every op ties, and fix what it does not; `blocked` says why a constant cannot be rewritten ("" if it can)."""
    terms = Terms()
    axes = {v: tuple(terms.atom(n) for n in t.shape) for v, t in graph.types.items()}
    for name in graph.inputs:
        _fix(terms, axes[name], f"graph input {name!r} has it")
    for port in graph.outputs:
        _fix(terms, axes[port.value], f"graph output {port.name!r} has it")
    for value in graph.constants:
        if any(terms.extent(a) > 1 for a in axes[value]) and (why := blocked(value)):
            _fix(terms, axes[value], f"constant {value!r} cannot be rewritten: {why}")
    nodes = []
    for node in graph.nodes:
        axis_map = node.op.axes(graph.in_types(node))
        tied = TiedNode(node, axis_map, {d.name: terms.atom(d.extent) for d in axis_map.dims})
        for value, accesses in tied.operands():
            for axis, access in zip(axes[value], accesses, strict=True):
                _tie(terms, tied, axis, access)
        nodes.append(tied)
    return Ties(terms, axes, tuple(nodes))


def dims_of(access: Access) -> tuple[str, ...]:
    """The iteration dimensions whose index an operand's index tells, and the other way round."""
    match access:
        case Iter(dim) | Offset(dim, _, 1):
            return (dim,)
        case Merged(dims):
            return dims
        case _:
            return ()


def _fix(terms: Terms, axes: tuple[int, ...], why: str) -> None:
    for axis in axes:
        terms.fix(axis, why)


def _tie(terms: Terms, tied: TiedNode, axis: int, access: Access) -> None:
    node, extent = tied.node, terms.extent(axis)
    label = f"{node.op.name} node {node.origin[0] if node.origin else node.name!r}"
    match access:
        case Iter(dim):
            terms.unify(tied.dims[dim], axis)
        case Merged(dims):
            wide = [tied.dims[d] for d in dims if terms.extent(tied.dims[d]) != 1]
            if wide:
                terms.unify(terms.product(wide), axis)
        case Offset(dim, start, 1):
            if extent:
                terms.unify(terms.part(tied.dims[dim], start, extent), axis)
        case Offset(dim):
            _fix(terms, (axis, tied.dims[dim]), f"{label} reads it in steps")
        case Window(dim, kernel):
            _fix(terms, (axis, tied.dims[dim], tied.dims[kernel]), f"{label} slides a window over it")
        case Fixed():
            terms.fix(axis, f"{label} tells its indices apart")
        case Broadcast():
            pass
