"""A network's files: for every layer a stream, its text and its weights, a manifest that orders them, and the graph."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping as Map
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from sparsec.backends.systolic.choose import Choice
from sparsec.backends.systolic.dataflow import Dataflow
from sparsec.backends.systolic.layers import network_layers
from sparsec.backends.systolic.lower import Lowered, Mapping
from sparsec.backends.systolic.machine import Machine, parse_machine
from sparsec.backends.systolic.network import Network, NetworkRun, run_network
from sparsec.backends.systolic.simulate.counts import Run
from sparsec.backends.systolic.simulate.run import Level, simulate
from sparsec.backends.systolic.stream import decode
from sparsec.backends.systolic.text import disassemble
from sparsec.compiler.errors import UsageError
from sparsec.compiler.text.parser import parse_graph
from sparsec.compiler.text.printer import print_graph
from sparsec.compiler.text.store import ConstantStore

Array = np.ndarray[Any, Any]
MANIFEST, FORMAT = "manifest.json", 1
GRAPH, CONSTANTS = "graph.txt", "constants"


def emit(network: Network) -> dict[str, bytes]:
    """The files by name. A layer whose weights the network computes gets the stream of dense ones, and no file of weights.

    The graph and its constants are there for what the host computes.
    """
    store = ConstantStore()
    files = {GRAPH: print_graph(network.graph, store).encode("ascii")}
    for digest in dict.fromkeys(re.findall(r"sha256:([0-9a-f]{64})", files[GRAPH].decode("ascii"))):
        files[f"{CONSTANTS}/{digest}.bin"] = store.raw(digest)
    layers = []
    for i, choice in enumerate(network.choices):
        layer, made, stem = choice.layer, network.lowered(choice), f"{i:03d}"
        files[f"{stem}.stream"] = made.stream
        files[f"{stem}.txt"] = disassemble(decode(made.stream)).encode("ascii")
        if layer.constant:
            files[f"{stem}.weights"] = made.weights
        data = network.graph.types[layer.data]
        products = choice.products()
        first = products[0]
        record = {
            "node": layer.node.name,
            "origin": list(layer.node.origin),
            "dataflow": choice.mapping.dataflow.value,
            "grouping": [choice.mapping.keep, choice.mapping.group],
            "joined": choice.joined,
            "products": len(products),
            "shape": [first.m, first.k, first.n],
            "stream": f"{stem}.stream",
            "weights": f"{stem}.weights" if layer.constant else None,
            "weight_bytes": len(made.weights),
            "data": {"dtype": data.dtype.value, "shape": list(data.shape)},
            "cycles": {d.value: cycles for d, cycles in choice.table.items()},
        }
        layers.append(record)
    manifest = {"format": FORMAT, "target": network.machine.name, "layers": layers, "host": dict(network.host)}
    files[MANIFEST] = (json.dumps(manifest, indent=1) + "\n").encode("ascii")
    return files


@dataclass(frozen=True)
class EmittedLayer:
    """A layer as its files say: the stream, the weights, and the data that it reads."""

    node: str
    mapping: Mapping
    joined: bool
    cycles: dict[Dataflow, int]
    made: Lowered
    dtype: str
    shape: tuple[int, ...]

    def timed(self) -> Run:
        """Its counts, without values."""
        numpy = {"f32": np.float32, "i8": np.int8, "u8": np.uint8}[self.dtype]
        return simulate(self.made.stream, self.made.weights, np.zeros(prod(self.shape), numpy), 0, Level.TIMING)


@dataclass(frozen=True)
class Emitted:
    """A folder that `emit`'s files were written to."""

    folder: Path
    machine: Machine
    layers: tuple[EmittedLayer, ...]

    def network(self) -> Network:
        """The network again, from the graph's files. UsageError when its layers are not those of the manifest."""
        store = ConstantStore(self.folder / CONSTANTS)
        graph = parse_graph((self.folder / GRAPH).read_text(encoding="ascii"), store)
        found, host = network_layers(graph)
        if [layer.node.name for layer in found] != [e.node for e in self.layers]:
            raise UsageError(f"{self.folder / GRAPH} has other layers than {self.folder / MANIFEST}: compile again")
        pairs = zip(found, self.layers, strict=True)
        return Network(self.machine, graph, tuple(Choice(layer, e.cycles, e.mapping, e.joined) for layer, e in pairs), host)

    def run(self, feeds: Map[str, Array], level: Level = Level.FOLDS) -> NetworkRun:
        """The network's outputs, every layer simulated from its files."""
        return run_network(self.network(), feeds, level, {e.node: e.made for e in self.layers})


def read_folder(folder: Path) -> Emitted:
    """What `emit` wrote; UsageError when it is not whole, or of another version."""
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise UsageError(f"{folder / MANIFEST} has the format {manifest['format']}, and this version reads {FORMAT}")
        layers = tuple(_layer(folder, record) for record in manifest["layers"])
        return Emitted(folder, parse_machine(manifest["target"]), layers)
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise UsageError(f"{folder} holds no systolic program: {type(exc).__name__} {exc}") from exc


def _layer(folder: Path, record: dict[str, Any]) -> EmittedLayer:
    weights, data = record["weights"], record["data"]
    image = (folder / weights).read_bytes() if weights else bytes(record["weight_bytes"])
    made = Lowered((folder / record["stream"]).read_bytes(), image)
    mapping = Mapping(Dataflow(record["dataflow"]), None, *record["grouping"])
    cycles = {Dataflow(name): int(count) for name, count in record["cycles"].items()}
    return EmittedLayer(record["node"], mapping, record["joined"], cycles, made, data["dtype"], tuple(data["shape"]))
