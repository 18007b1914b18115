"""A network's files: for every layer a stream, its text and its weights, and a manifest that orders them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from sparsec.backends.systolic.lower import Lowered
from sparsec.backends.systolic.network import Network
from sparsec.backends.systolic.simulate.counts import Run
from sparsec.backends.systolic.simulate.run import Level, simulate
from sparsec.backends.systolic.stream import decode
from sparsec.backends.systolic.text import disassemble
from sparsec.compiler.errors import UsageError

MANIFEST, FORMAT = "manifest.json", 1


def emit(network: Network) -> dict[str, bytes]:
    """The files by name. A layer whose weights the network computes gets the stream of dense ones, and no file of weights."""
    files: dict[str, bytes] = {}
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
    dataflow: str
    made: Lowered
    dtype: str
    shape: tuple[int, ...]

    def timed(self) -> Run:
        """Its counts, without values."""
        numpy = {"f32": np.float32, "i8": np.int8, "u8": np.uint8}[self.dtype]
        return simulate(self.made.stream, self.made.weights, np.zeros(prod(self.shape), numpy), 0, Level.TIMING)


def read_folder(folder: Path) -> Iterator[EmittedLayer]:
    """The layers of a folder that `emit`'s files were written to; UsageError when it is none."""
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise UsageError(f"{folder / MANIFEST} has the format {manifest['format']}, and this version reads {FORMAT}")
        for layer in manifest["layers"]:
            weights = layer["weights"]
            image = (folder / weights).read_bytes() if weights else bytes(layer["weight_bytes"])
            made = Lowered((folder / layer["stream"]).read_bytes(), image)
            data = layer["data"]
            yield EmittedLayer(layer["node"], layer["dataflow"], made, data["dtype"], tuple(data["shape"]))
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise UsageError(f"{folder} holds no systolic program: {type(exc).__name__} {exc}") from exc
