"""Run an emitted program as a whole: array parts in the simulator, host parts in their libraries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sparsec.backends.aie.emit import FORMAT, MANIFEST, parse_manifest
from sparsec.backends.aie.images import pack, surround, unpack
from sparsec.backends.aie.lower.geometry import Image
from sparsec.backends.aie.machine import Machine, machine_of
from sparsec.backends.aie.registers import Tile
from sparsec.backends.aie.simulate.array import grid_of
from sparsec.backends.aie.simulate.memory import Words
from sparsec.backends.aie.simulate.run import Finished, simulate
from sparsec.backends.aie.transaction import Transaction
from sparsec.compiler.dtypes import DType
from sparsec.compiler.errors import ModelError, UsageError

Array = np.ndarray[Any, Any]
Host = Callable[[Mapping[str, Array]], Mapping[str, Array]]


@dataclass(frozen=True)
class PartRun:
    """One array part that has run: its manifest entry and how it went."""

    entry: Mapping[str, Any]
    finished: Finished


@dataclass(frozen=True)
class ModelRun:
    """Outputs by name, and the array parts."""

    outputs: Mapping[str, Array]
    parts: tuple[PartRun, ...]

    @property
    def cycles(self) -> int:
        """Cycles of all array parts together."""
        return sum(p.finished.cycles for p in self.parts)


class ArrayModel:
    """A folder that `sparsec compile --target aie2:...` wrote."""

    def __init__(self, directory: str | Path) -> None:
        """Open `directory`. UsageError when it is not one, ModelError when its manifest is of another format."""
        self.directory = Path(directory)
        path = self.directory / MANIFEST
        if not path.is_file():
            raise UsageError(f"{self.directory} has no {MANIFEST}: give a folder that was compiled for an array")
        self.manifest = parse_manifest(path.read_text(encoding="utf-8"))
        if self.manifest.get("format") != FORMAT:
            raise ModelError(
                f"{path} is of format {self.manifest.get('format')!r}, this program reads {FORMAT}: compile the model again"
            )
        self.machine: Machine = machine_of(self.manifest["machine"]["name"], self.manifest["machine"]["parameters"])
        keys = ("offset", "channels", "rows", "columns", "top", "left", "height", "width")
        self.images = {v: Image(**{k: i[k] for k in keys}) for v, i in self.manifest["images"].items()}

    def run(self, feeds: Mapping[str, Array], host: Callable[[Mapping[str, Any]], Host]) -> ModelRun:
        """Outputs for `feeds`; `host` makes the function that computes a host part of the manifest."""
        values: dict[str, Array] = dict(feeds)
        activations = np.zeros(self.manifest["activation_bytes"], np.uint8)
        for value, image in self.images.items():
            surround(image, self.manifest["images"][value]["zero"], activations)
        runs = []
        for entry in self.manifest["parts"]:
            if entry["kind"] == "host":
                values.update(host(entry)({v: values[v] for v in entry["inputs"]}))
                continue
            for v in entry["inputs"]:
                pack(self.images[v], values[v], self.manifest["images"][v]["zero"], activations)
            runs.append(PartRun(entry, self._array(entry, activations)))
            for v in entry["outputs"]:
                values[v] = unpack(self.images[v], activations, DType(self.manifest["images"][v]["dtype"]).numpy)
        return ModelRun({name: values[v] for name, v in self.manifest["outputs"].items()}, tuple(runs))

    def _array(self, entry: Mapping[str, Any], activations: Array) -> Finished:
        control = Transaction.decode((self.directory / entry["control"]).read_bytes())
        weights = np.frombuffer((self.directory / entry["weights"]).read_bytes(), np.uint8).copy()
        programs = {t: self._program(t) for t in grid_of(self.machine).cores()}
        arguments = [
            Words("weights", weights, np.ones(weights.size // 4, np.bool_)),
            Words("activations", activations, np.ones(activations.size // 4, np.bool_)),
        ]
        return simulate(self.machine, control, programs, arguments)

    def _program(self, tile: Tile) -> bytes:
        return (self.directory / f"core_{tile.column}_{tile.row}.bin").read_bytes()
