"""Coupling: the classes of channels that must share an order, found from axis maps alone.

Every dimension of every value is a term of atoms (coupling_terms.py); an atom that constants have and nothing fixes is a class of
channels whose order is free. Grouping channels that depend on each other follows Fang et al., "DepGraph: Towards Any Structural
Pruning" (CVPR 2023), where rules by layer type do it; here the axis maps do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Literal

import numpy as np

from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.sparsity.weights import LayerWeights, View, layer_weights
from sparsec.passes.permutation.coupling_nest import nests
from sparsec.passes.permutation.coupling_slots import FLAT, Nest, Slot, slots
from sparsec.passes.permutation.coupling_ties import Ties, tie

Array = np.ndarray[Any, Any]
Role = Literal["outputs", "inputs"]


@dataclass(frozen=True, eq=False, slots=True)
class Place:
    """A class in the filters [OC, taps, IC] of a layer: on OC (role "outputs") or on IC ("inputs").

    `slot.index` [rows, extent, repeats] are indices of that axis of the filters. Where `slot.outer` is given, row r holds for
    those indices of the other axis only (grouped convolutions: the filters of a group).
    """

    layer: LayerWeights
    role: Role
    slot: Slot


@dataclass(frozen=True, eq=False, slots=True)
class ChannelClass:
    """Channels that share an order wherever they occur.

    An order is an array [extent] of int: new channel i is old channel order[i]. With `outer` > 1 it is [outer, extent], an order
    for each index of outer classes, counted in their old order (the channels of each head, of each group). `fixed` says why there
    can be no other order than the present one ("" if there can). `slots` are in constants only, `places` those of layers'
    weights, `values` what nodes make that has the channels. `producers` are the ONNX nodes that make the channels, `weights` how
    many constant entries the class orders.
    """

    name: str
    extent: int
    outer: int
    slots: tuple[Slot, ...]
    places: tuple[Place, ...]
    values: tuple[str, ...]
    fixed: str
    producers: tuple[str, ...]
    weights: int

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an order."""
        return (self.outer, self.extent) if self.outer > 1 else (self.extent,)

    @property
    def identity(self) -> Array:
        """The order that changes nothing."""
        return np.broadcast_to(np.arange(self.extent), self.shape)

    def __str__(self) -> str:
        orders = f" in each of {self.outer} orders" if self.outer > 1 else ""
        fixed = f", fixed: {self.fixed}" if self.fixed else ""
        return f"{self.name}: {self.extent} channels{orders}, {self.weights:,} weights{fixed}"


@dataclass(frozen=True, eq=False, slots=True)
class Coupling:
    """All classes of a graph, inner before outer: those that are free, and fixed ones that layers' channels have."""

    classes: tuple[ChannelClass, ...]

    @property
    def free(self) -> tuple[ChannelClass, ...]:
        """The classes whose order may be chosen."""
        return tuple(c for c in self.classes if not c.fixed)


def couple(graph: Graph, blocked: Callable[[str], str] = lambda _: "") -> Coupling:
    """The coupling of a graph, before any fusion or behind it.

    `blocked` says why the data of a constant cannot be replaced ("" where it can): its dimensions are fixed then. A constant
    whose entries are all equal needs no replacing, and is not asked for.
    """
    ties = tie(graph, lambda value: "" if _uniform(graph.constants[value]) else blocked(value))
    fixed = ties.terms.fixed()
    layers = {layer.value: layer for layer in layer_weights(graph) if len(graph.types[layer.value].shape) > 1}
    held = _holders(graph, ties, layers)
    free = [a for a in held if a not in fixed]
    outer = nests(ties, graph.constants, free)
    made = {
        atom: _class(graph, ties, layers, atom, held[atom], outer.get(atom, FLAT), fixed.get(atom, ""))
        for atom in [*_inner_first(free, outer), *(a for a in held if a in fixed)]
    }
    return Coupling(tuple(_named(made, outer)))


def _holders(graph: Graph, ties: Ties, layers: Mapping[str, LayerWeights]) -> dict[int, list[str]]:
    """The atoms of the layers' channels -> the constants that have them."""
    terms = ties.terms
    found: dict[int, list[str]] = {}
    for value, layer in layers.items():
        for axis, term in enumerate(ties.axes[value]):
            if _role(layer, axis):
                found.update({a: [] for a in terms.atoms(term) if terms.extent(a) > 1})
    for value in graph.constants:
        for atom in dict.fromkeys(a for axis in ties.axes[value] for a in terms.atoms(axis)):
            if atom in found:
                found[atom].append(value)
    return found


def _uniform(array: Array) -> bool:
    return bool(array.size) and bool((array == array.flat[0]).all())


def _inner_first(atoms: Sequence[int], outer: Mapping[int, Nest]) -> list[int]:
    """The atoms in their order, but those with an order for each index of others before these."""
    depth: dict[int, int] = {}

    def below(atom: int) -> int:
        if atom not in depth:
            depth[atom] = 1 + max((below(a) for a in outer[atom].first if a in outer), default=-1)
        return depth[atom]

    return sorted(atoms, key=lambda a: -below(a))


def _class(
    graph: Graph, ties: Ties, layers: Mapping[str, LayerWeights], atom: int, held: Sequence[str], outer: Nest, why: str
) -> ChannelClass:
    found = [slot for value in held for slot in slots(ties.terms, value, ties.axes[value], atom, outer)]
    places = [Place(layers[s.value], role, s) for s in found if s.value in layers and (role := _role(layers[s.value], s.axis))]
    producers, readers = (
        tuple(dict.fromkeys(_label(n) for p in places if p.role == role for n in p.layer.nodes)) for role in ("outputs", "inputs")
    )
    made = tuple(v for n in graph.nodes for v in n.outputs if any(atom in ties.terms.atoms(axis) for axis in ties.axes[v]))
    name = producers[0] if producers else f"inputs of {readers[0]}"
    weights = sum(_ordered(graph.types[value].shape, [s for s in found if s.value == value]) for value in held)
    return ChannelClass(name, ties.terms.extent(atom), outer.rows, tuple(found), tuple(places), made, why, producers, weights)


def _role(layer: LayerWeights, axis: int) -> Role | None:
    """Which axis of a layer's filters an axis of its weights is; None for a tap."""
    outputs, inputs = (1, 0) if layer.view is View.KN else (0, 1)
    return "outputs" if axis == outputs else "inputs" if axis == inputs else None


def _label(node: Node) -> str:
    return node.origin[0] if node.origin else node.name


def _ordered(shape: Sequence[int], found: Sequence[Slot]) -> int:
    """How many entries of a constant lie where a slot has them."""
    outside = 1.0
    for axis in {s.axis for s in found}:
        outside *= 1 - len(np.unique(np.concatenate([s.index.reshape(-1) for s in found if s.axis == axis]))) / shape[axis]
    return round(prod(shape) * (1 - outside))


def _named(made: Mapping[int, ChannelClass], outer: Mapping[int, Nest]) -> Iterator[ChannelClass]:
    """The classes with a name each: that of the first producer, and what tells it from others with the same."""
    around = {a for nest in outer.values() for a in nest.first}
    count: dict[str, int] = {}
    for atom, found in made.items():
        name = found.name + ("[inner]" if found.outer > 1 else "[outer]" if atom in around else "")
        count[name] = count.get(name, 0) + 1
        yield replace(found, name=name if count[name] == 1 else f"{name}#{count[name]}")
