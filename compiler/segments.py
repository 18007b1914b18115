"""A graph cut into segments that an array and the host compute in turn, and what their manifests have in common."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsec.compiler.errors import UsageError
from sparsec.compiler.graph import ABSENT, Graph, Node, Port

Array = np.ndarray[Any, Any]
Part = Callable[[Mapping[str, Array]], Mapping[str, Array]]  # from the values that it reads to those that it makes


@dataclass(frozen=True, slots=True)
class Segment:
    """Nodes of one side as a graph: values from outside are inputs, values that others read or that leave are outputs."""

    graph: Graph
    on_array: bool


def segments(graph: Graph, on_array: Collection[str]) -> tuple[Segment, ...]:
    """As few segments as taking turns needs: all that the array (nodes named in `on_array`) can do now, then all that the host
    can, and so on."""
    left = list(graph.nodes)
    known = {*graph.inputs, *graph.constants, ABSENT}
    found: list[Segment] = []
    turn = True
    while left:
        taken = _ready(left, known, on_array, turn)
        left = [n for n in left if n.name not in {t.name for t in taken}]
        if taken:
            name = f"{graph.name}_{'array' if turn else 'host'}{len(found)}"
            found.append(Segment(_subgraph(graph, taken, name), turn))
        turn = not turn
    return tuple(found)


def _ready(left: list[Node], known: set[str], on_array: Collection[str], turn: bool) -> list[Node]:
    """The nodes of one side that can be computed now, in order; their results become known."""
    taken = []
    for node in left:
        if (node.name in on_array) == turn and all(v in known for v in node.inputs):
            taken.append(node)
            known.update(node.outputs)
    return taken


def _subgraph(graph: Graph, nodes: list[Node], name: str) -> Graph:
    made = {v for n in nodes for v in n.outputs}
    inside = {n.name for n in nodes}
    read = {v: None for n in nodes for v in n.inputs if v != ABSENT}
    inputs = tuple(v for v in read if v not in made and v not in graph.constants)
    leaving = [
        v for n in nodes for v in n.outputs if v in graph.output_values or any(u.name not in inside for u in graph.users[v])
    ]
    constants = {v: graph.constants[v] for v in read if v in graph.constants}
    types = {v: graph.types[v] for v in {*read, *made}}
    return Graph(name, inputs, tuple(Port(v, v) for v in leaving), tuple(nodes), types, constants)


def interface(graph: Graph) -> dict[str, Any]:
    """The head of a manifest: the name, inputs by value, and which values leave."""
    return {
        "name": graph.name,
        "inputs": {v: {"dtype": graph.types[v].dtype.value, "shape": list(graph.types[v].shape)} for v in graph.inputs},
        "outputs": {p.name: p.value for p in graph.outputs},
    }


def host_record(graph: Graph, folder: str) -> dict[str, Any]:
    """A segment of the host in a manifest; its library is in `folder`."""
    return {
        "kind": "host",
        "folder": folder,
        "inputs": list(graph.inputs),
        "outputs": [p.value for p in graph.outputs],
        "nodes": [n.name for n in graph],
    }


def run_parts(
    manifest: Mapping[str, Any],
    feeds: Mapping[str, Array],
    host: Callable[[Mapping[str, Any]], Part],
    array: Callable[[Mapping[str, Any]], Part],
) -> dict[str, Array]:
    """All values that parts take or make. `host` and `array` make the function that computes an entry of the manifest's parts."""
    missing = [v for v in manifest["inputs"] if v not in feeds]
    if missing:
        raise UsageError(f"input {missing[0]!r} is missing: the model needs {list(manifest['inputs'])}", tensor=missing[0])
    values: dict[str, Array] = dict(feeds)
    for entry in manifest["parts"]:
        part = (host if entry["kind"] == "host" else array)(entry)
        values.update(part({v: values[v] for v in entry["inputs"]}))
    return values


def outputs_of(manifest: Mapping[str, Any], values: Mapping[str, Array]) -> dict[str, Array]:
    """Those values that are outputs, by public name."""
    return {name: values[v] for name, v in manifest["outputs"].items()}
