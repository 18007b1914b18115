"""A folder that `emit`'s files were written to: its layers, its network again, and its outputs."""

from __future__ import annotations

import json
from collections.abc import Callable
from collections.abc import Mapping as Map
from dataclasses import dataclass
from functools import cached_property, partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from sparsec.backends.systolic.choose import Choice
from sparsec.backends.systolic.dataflow import Dataflow
from sparsec.backends.systolic.emit import CONSTANTS, FORMAT, GRAPH, MANIFEST
from sparsec.backends.systolic.layers import Arrangement, network_layers, parted
from sparsec.backends.systolic.lower import Mapping, dense_image
from sparsec.backends.systolic.machine import Machine, parse_machine
from sparsec.backends.systolic.network import Network, NetworkRun
from sparsec.backends.systolic.simulate.counts import Run
from sparsec.backends.systolic.simulate.run import Level, simulate
from sparsec.backends.systolic.traffic import Memory, Traffic
from sparsec.backends.systolic.unpack import unpack
from sparsec.compiler.dtypes import DType
from sparsec.compiler.errors import UsageError, VerificationError
from sparsec.compiler.segments import Part, outputs_of, run_parts
from sparsec.compiler.text.parser import parse_graph
from sparsec.compiler.text.store import ConstantStore, content_hash

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Tensor:
    """A value that a layer reads or makes."""

    value: str
    dtype: DType
    shape: tuple[int, ...]


@dataclass(frozen=True)
class EmittedLayer:
    """A layer as its files say. `weights` is its image, None where the network computes them; `sha256` is that of the constant
    that they are of, `arrangement` where it is in W [M, K] of `products` products."""

    node: str
    machine: Machine
    mapping: Mapping
    joined: bool
    shape: tuple[int, int]
    cycles: Map[Dataflow, int]
    traffic: Map[Dataflow, Traffic]
    stream: bytes
    weights: bytes | None
    data: Tensor
    operand: Tensor
    sums: Tensor
    sha256: str | None
    arrangement: Arrangement

    def timed(self) -> Run:
        """Its counts, without values."""
        operand = np.broadcast_to(np.ones((), self.operand.dtype.numpy), self.operand.shape)
        data = np.zeros(prod(self.data.shape), self.data.dtype.numpy)
        return simulate(self.stream, self._image(operand), data, 0, Level.TIMING)

    def run(self, values: Map[str, Array], level: Level) -> Run:
        """With values: the sums of all products are its output, in the order of `sums`."""
        operand = values.get(self.operand.value, np.empty(0))
        data = np.ascontiguousarray(values[self.data.value])
        return simulate(self.stream, self._image(operand), data, prod(self.sums.shape), level)

    def _image(self, operand: Array) -> bytes:
        if self.weights is not None:
            return self.weights
        return dense_image(self.machine, self.mapping.dataflow, self.arrangement.matrices(operand))

    def constant(self) -> Array:
        """The constant that the weights encode; VerificationError when it is not the one that was compiled."""
        assert self.weights is not None
        matrices = unpack(self.stream, self.weights, *self.shape)
        if self.joined:
            matrices = parted(matrices[0], self.arrangement.view[0], self.arrangement.view[2])
        found = self.arrangement.value(matrices, self.operand.shape)
        if content_hash(found) != self.sha256:
            raise VerificationError(
                f"the weights of {self.node!r} in its file are not {self.operand.value!r} of the graph: compile the model again",
                node=self.node,
                tensor=self.operand.value,
            )
        return found


class _Constants(ConstantStore):
    """The folder of constants, and those that layers hold encoded."""

    def __init__(self, folder: Path, layers: Map[str, EmittedLayer]) -> None:
        super().__init__(folder)
        self._layers = layers

    def raw(self, digest: str) -> bytes:
        """The data of this hash."""
        return self._layers[digest].constant().tobytes() if digest in self._layers else super().raw(digest)


@dataclass(frozen=True)
class Emitted:
    """A folder that `emit`'s files were written to."""

    folder: Path
    machine: Machine
    manifest: Map[str, Any]
    layers: tuple[EmittedLayer, ...]

    @property
    def memory(self) -> Memory | None:
        """What its traffic was counted with, if it was."""
        given = self.manifest["memory"]
        return Memory(**given) if given else None

    @cached_property
    def _network(self) -> Network:
        encoded = {e.sha256: e for e in self.layers if e.sha256 is not None}
        store = _Constants(self.folder / CONSTANTS, encoded)
        graph = parse_graph((self.folder / GRAPH).read_text(encoding="ascii"), store)
        found, host = network_layers(graph)
        if [layer.node.name for layer in found] != [e.node for e in self.layers]:
            raise UsageError(f"{self.folder / GRAPH} has other layers than {self.folder / MANIFEST}: compile again")
        pairs = zip(found, self.layers, strict=True)
        choices = tuple(Choice(layer, e.cycles, e.mapping, e.joined, e.traffic) for layer, e in pairs)
        return Network(self.machine, graph, choices, host, self.memory)

    def network(self) -> Network:
        """The network again, from the graph and the weights. UsageError when its layers are not those of the manifest,
        VerificationError when weights are not those of the graph."""
        return self._network

    def run(self, feeds: Map[str, Array], host: Callable[[Map[str, Any]], Part], level: Level = Level.FOLDS) -> NetworkRun:
        """The network's outputs, every layer simulated from its files; `host` makes what computes a host part of the manifest."""
        runs, layers = dict[str, Run](), {e.node: e for e in self.layers}
        values = run_parts(self.manifest, feeds, host, lambda entry: partial(_array_part, entry, layers, level, runs))
        return NetworkRun(outputs_of(self.manifest, values), runs)


def _array_part(
    entry: Map[str, Any], layers: Map[str, EmittedLayer], level: Level, runs: dict[str, Run], values: Map[str, Array]
) -> dict[str, Array]:
    """What a part of the array makes of `values`; the runs of its layers are noted."""
    known = dict(values)
    for record in entry["layers"]:
        layer = layers[record["node"]]
        runs[layer.node] = layer.run(known, level)
        known[layer.sums.value] = runs[layer.node].output.reshape(layer.sums.shape)
    return {v: known[v] for v in entry["outputs"]}


def read_folder(folder: Path) -> Emitted:
    """What `emit` wrote; UsageError when it is not whole, or of another version."""
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise UsageError(f"{folder / MANIFEST} has the format {manifest['format']}, and this version reads {FORMAT}")
        machine = parse_machine(manifest["target"])
        records = [record for part in manifest["parts"] if part["kind"] == "array" for record in part["layers"]]
        layers = [_layer(folder, machine, record) for record in sorted(records, key=lambda r: str(r["stream"]))]
        return Emitted(folder, machine, manifest, tuple(layers))
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise UsageError(f"{folder} holds no systolic program: {type(exc).__name__} {exc}") from exc


def _layer(folder: Path, machine: Machine, record: dict[str, Any]) -> EmittedLayer:
    weights, operand = record["weights"], record["operand"]
    return EmittedLayer(
        record["node"],
        machine,
        Mapping(Dataflow(record["dataflow"]), None, *record["grouping"]),
        record["joined"],
        (record["shape"][0], record["shape"][1]),
        {Dataflow(name): int(count) for name, count in record["cycles"].items()},
        {Dataflow(name): Traffic(**moved) for name, moved in record["traffic"].items()},
        (folder / record["stream"]).read_bytes(),
        (folder / weights).read_bytes() if weights else None,
        _tensor(record["data"]),
        _tensor(operand),
        _tensor(record["sums"]),
        operand["sha256"],
        Arrangement(tuple(operand["view"]), tuple(operand["order"])),
    )


def _tensor(record: dict[str, Any]) -> Tensor:
    return Tensor(record["value"], DType(record["dtype"]), tuple(record["shape"]))
