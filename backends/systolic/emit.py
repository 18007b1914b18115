"""A network's files: streams, their text and weights, a manifest that orders them, and the graph for those who compare with it.

manifest.json        parts in order, and of every layer: its products, its dataflow, what every dataflow would take
NNN.stream, .txt     the micro-ops of a layer, and the same as text
NNN.weights          its weights, as its dataflow reads them; a layer whose weights the network computes has none
partK/               the library of the host's part K (made by the C backend)
graph.txt            the network after the passes
constants/HASH.bin   its constants, but for those that a file of weights holds
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping as Map
from dataclasses import asdict, dataclass
from typing import Any

from sparsec.backends.systolic.choose import Choice
from sparsec.backends.systolic.lower import Lowered
from sparsec.backends.systolic.network import Network
from sparsec.backends.systolic.parts import network_parts
from sparsec.backends.systolic.stream import decode
from sparsec.backends.systolic.text import disassemble
from sparsec.compiler.errors import UsageError
from sparsec.compiler.graph import Graph
from sparsec.compiler.segments import host_record, interface
from sparsec.compiler.text.printer import print_graph
from sparsec.compiler.text.store import ConstantStore

MANIFEST, FORMAT = "manifest.json", 2
GRAPH, CONSTANTS = "graph.txt", "constants"


@dataclass(frozen=True)
class Emission:
    """Contents by path in the output folder, and the graphs that libraries of the host are to be made of, by their folder."""

    files: Map[str, bytes]
    host: Map[str, Graph]


def emit(network: Network) -> Emission:
    """The files of a network, the same for the same network to the byte. UsageError for a dataflow that a layer cannot take."""
    store = ConstantStore()
    files = {GRAPH: print_graph(network.graph, store).encode("ascii")}
    stems = {c.layer.node.name: f"{i:03d}" for i, c in enumerate(network.choices)}
    encoded, records = set[str](), dict[str, dict[str, Any]]()
    for choice in network.choices:
        node, stem = choice.layer.node.name, stems[choice.layer.node.name]
        made = _lowered(network, choice)
        files[f"{stem}.stream"] = made.stream
        files[f"{stem}.txt"] = disassemble(decode(made.stream)).encode("ascii")
        digest = store.digest(network.graph.constants[choice.layer.weights]) if choice.layer.constant else None
        if digest is not None:
            files[f"{stem}.weights"] = made.weights
            encoded.add(digest)
        records[node] = _record(network, choice, stem, digest)
    for digest in dict.fromkeys(re.findall(r"sha256:([0-9a-f]{64})", files[GRAPH].decode("ascii"))):
        if digest not in encoded:
            files[f"{CONSTANTS}/{digest}.bin"] = store.raw(digest)
    parts, host = list[dict[str, Any]](), dict[str, Graph]()
    for i, segment in enumerate(network_parts(network)):
        graph = segment.graph
        if segment.on_array:
            layers = [records[n.name] | {"sums": _tensor(graph, n.output)} for n in graph]
            made_values = [p.value for p in graph.outputs]
            parts.append({"kind": "array", "inputs": list(graph.inputs), "outputs": made_values, "layers": layers})
        else:
            host[f"part{i}"] = graph
            parts.append(host_record(graph, f"part{i}"))
    head = {"format": FORMAT, "target": network.machine.name, **interface(network.graph)}
    memory = asdict(network.memory) if network.memory else None
    manifest = {**head, "memory": memory, "parts": parts, "on_host": dict(network.host)}
    files[MANIFEST] = (json.dumps(manifest, indent=1) + "\n").encode("ascii")
    return Emission(files, host)


def _lowered(network: Network, choice: Choice) -> Lowered:
    if not choice.layer.constant and choice.mapping.dataflow.sparse:
        raise UsageError(
            f"layer {choice.layer.node.name!r} multiplies by {choice.layer.weights!r}, which the network computes: "
            f"{choice.mapping.dataflow.value} leaves out zeros that are known before; allow a dense dataflow"
        )
    return network.lowered(choice)


def _record(network: Network, choice: Choice, stem: str, digest: str | None) -> dict[str, Any]:
    """Of a layer; `digest` is the hash of its weights, None where the network computes them."""
    layer, products = choice.layer, choice.products()
    first = products[0]
    return {
        "node": layer.node.name,
        "origin": list(layer.node.origin),
        "dataflow": choice.mapping.dataflow.value,
        "grouping": [choice.mapping.keep, choice.mapping.group],
        "joined": choice.joined,
        "products": len(products),
        "shape": [first.m, first.k, first.n],
        "stream": f"{stem}.stream",
        "weights": f"{stem}.weights" if layer.constant else None,
        "data": _tensor(network.graph, layer.data),
        "operand": {
            **_tensor(network.graph, layer.weights),
            "sha256": digest,
            "view": list(layer.arrangement.view),
            "order": list(layer.arrangement.order),
        },
        "cycles": {d.value: cycles for d, cycles in choice.table.items()},
        "traffic": {d.value: asdict(moved) for d, moved in choice.traffic.items()},
    }


def _tensor(graph: Graph, value: str) -> dict[str, Any]:
    t = graph.types[value]
    return {"value": value, "dtype": t.dtype.value, "shape": list(t.shape)}
