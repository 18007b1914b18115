"""Put channel orders into the constants of a graph, and check that its outputs stay what they were."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from sparsec.compiler.dtypes import DType
from sparsec.compiler.errors import InternalError, UsageError
from sparsec.compiler.graph import Graph
from sparsec.compiler.interpreter import interpret
from sparsec.passes.permutation.coupling import ChannelClass, Coupling
from sparsec.passes.permutation.coupling_slots import Slot

Array = np.ndarray[Any, Any]


def permuted(graph: Graph, coupling: Coupling, orders: Mapping[str, Array]) -> dict[str, Array]:
    """The constants that change when classes get the orders given by their names; classes without one keep theirs.

    Orders are as `ChannelClass` says. Nothing else of the graph changes. UsageError for an order of no class, of a fixed one, or
    that is no order of its channels.
    """
    by_name = {c.name: c for c in coupling.classes}
    for name, order in orders.items():
        _check_order(by_name.get(name), name, np.asarray(order))
    changes: dict[str, _Change] = {}
    for c in coupling.classes:  # inner before outer: orders count outer indices in their old order
        if c.name in orders and not np.array_equal(orders[c.name], c.identity):
            order = np.asarray(orders[c.name]).reshape(c.outer, c.extent)
            for slot in c.slots:
                if slot.value not in changes:
                    changes[slot.value] = _Change(graph.constants[slot.value])
                changes[slot.value].reorder(slot, order)
    arrays = {value: change.finish() for value, change in changes.items()}
    return {v: a for v, a in arrays.items() if a.tobytes() != graph.constants[v].tobytes()}


def with_constants(graph: Graph, constants: Mapping[str, Array]) -> Graph:
    """The same graph with other data in some constants."""
    merged = {**graph.constants, **constants}
    return Graph(graph.name, graph.inputs, graph.outputs, graph.nodes, graph.types, merged)


def random_orders(coupling: Coupling, rng: np.random.Generator) -> dict[str, Array]:
    """A random order for every free class."""
    return {c.name: rng.permuted(c.identity, axis=-1) for c in coupling.free}


def check_permuted(graph: Graph, constants: Mapping[str, Array], feeds: Mapping[str, Array], *, tolerance: float = 1e-6) -> float:
    """Run the graph with its own and with permuted constants on `feeds`; the largest difference over the largest value.

    Both runs are in double precision, so that what another order of additions changes is far below `tolerance` even in deep
    networks (but where the graph itself casts to another type). InternalError when an output differs by more: then the coupling
    is wrong.
    """
    worst = 0.0
    found = _run(with_constants(graph, constants), feeds)
    for name, expected in _run(graph, feeds).items():
        error = _difference(expected, found[name])
        if not error <= tolerance:
            raise InternalError(
                f"output {name!r} changes by {error:.1e} of its largest value when channels are permuted, expected at most "
                f"{tolerance:.0e}: report the model, and leave the permutation out",
                tensor=name,
            )
        worst = max(worst, error)
    return worst


def check_coupling(
    graph: Graph, coupling: Coupling, feeds: Mapping[str, Array], *, seed: int = 0, tolerance: float = 1e-6
) -> float:
    """`check_permuted` with random orders of all free classes at once.

    InternalError names the class, where one alone changes the outputs.
    """
    orders = random_orders(coupling, np.random.default_rng(seed))
    try:
        return check_permuted(graph, permuted(graph, coupling, orders), feeds, tolerance=tolerance)
    except InternalError as exc:
        for name, order in orders.items():
            try:
                check_permuted(graph, permuted(graph, coupling, {name: order}), feeds, tolerance=tolerance)
            except InternalError as alone:
                raise InternalError(f"the channels of {name!r} are coupled wrongly: {alone}", node=name) from exc
        raise


def _run(graph: Graph, feeds: Mapping[str, Array]) -> dict[str, Array]:
    types = {v: replace(t, dtype=DType.F64) if t.dtype.is_float else t for v, t in graph.types.items()}
    constants, wide = (
        {v: a.astype(np.float64) if v in types and types[v].dtype is DType.F64 else a for v, a in arrays.items()}
        for arrays in (graph.constants, feeds)
    )
    return interpret(Graph(graph.name, graph.inputs, graph.outputs, graph.nodes, types, constants), wide)


class _Change:
    """New data of one constant, gathered axis by axis as late as possible."""

    def __init__(self, array: Array) -> None:
        self.array = array
        self.sources: dict[int, Array] = {}  # axis -> old index of every new one

    def reorder(self, slot: Slot, order: Array) -> None:
        """Item i of each row of the slot becomes item order[row, i]."""
        axis, n = slot.axis, self.array.shape[slot.axis]
        picked = np.take_along_axis(slot.index, order[slot.rows][:, :, None], axis=1)
        if slot.outer is None:
            source = np.arange(n)
            source[slot.index] = picked
            self.sources[axis] = self.sources.get(axis, np.arange(n))[source]
            return
        self.array = self.finish().copy()
        lines = np.moveaxis(self.array, (slot.outer_axis, axis), (0, 1))
        for outer, old, new in zip(slot.outer, slot.index, picked, strict=True):
            source = np.arange(n)
            source[old] = new
            lines[outer] = lines[outer][:, source]

    def finish(self) -> Array:
        """The array as reordered so far."""
        for axis, source in self.sources.items():
            self.array = np.take(self.array, source, axis=axis)
        self.sources = {}
        return np.ascontiguousarray(self.array).reshape(self.array.shape)


def _check_order(found: ChannelClass | None, name: str, order: Array) -> None:
    if found is None:
        raise UsageError(f"no class of channels is called {name!r}: `Coupling.classes` lists them")
    if found.fixed and not np.array_equal(order, found.identity):
        raise UsageError(f"the channels of {name!r} cannot be permuted: {found.fixed}")
    if order.shape != found.shape or not np.array_equal(np.sort(order, axis=-1), found.identity):
        raise UsageError(
            f"the order of {name!r} has to be an array {list(found.shape)} with each of 0 to {found.extent - 1} once a row"
        )


def _difference(expected: Array, found: Array) -> float:
    if not DType.from_numpy(expected.dtype).is_float:
        return 0.0 if np.array_equal(expected, found) else float("inf")
    a, b = expected.astype(np.float64), found.astype(np.float64)
    finite = np.isfinite(a)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return float("inf")
    return float(np.max(np.abs(a - b)[finite], initial=0) / np.max(np.abs(a[finite]), initial=1e-30))
