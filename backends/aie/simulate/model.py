"""Run an emitted program as a whole: array parts in the simulator, host parts in their libraries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sparsec.backends.aie.emit import FORMAT, MANIFEST, parse_manifest
from sparsec.backends.aie.images import pack, surround, unpack
from sparsec.backends.aie.lower.geometry import Image
from sparsec.backends.aie.machine import Machine, machine_of
from sparsec.backends.aie.part import part_of
from sparsec.backends.aie.simulate.gantt import gantt
from sparsec.backends.aie.simulate.memory import Region, Words
from sparsec.backends.aie.simulate.report import Layer, RunCycles, measure
from sparsec.backends.aie.simulate.run import Finished, simulate
from sparsec.backends.aie.simulate.trace import chrome_trace
from sparsec.backends.aie.transaction import Transaction
from sparsec.compiler.dtypes import DType
from sparsec.compiler.errors import ModelError, StreamError, UsageError
from sparsec.compiler.segments import Part, outputs_of, run_parts

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class PartRun:
    """One array part that has run: its manifest entry, its layers as operations of the control stream, and how it went."""

    entry: Mapping[str, Any]
    layers: tuple[Layer, ...]
    finished: Finished

    def cycles(self, machine: Machine) -> RunCycles:
        """Where its cycles went."""
        return measure(machine, self.finished, self.layers)

    def pictures(self, machine: Machine) -> dict[str, str]:
        """An SVG for each layer by its name."""
        return {layer.name: gantt(machine, self.finished, self.layers, layer.name) for layer in self.layers}


@dataclass(frozen=True)
class ModelRun:
    """Outputs by name, the array parts, and all values that parts took or made."""

    outputs: Mapping[str, Array]
    parts: tuple[PartRun, ...]
    values: Mapping[str, Array] = field(default_factory=dict)

    def trace(self, machine: Machine) -> str:
        """All array parts one after another as a Chrome trace (JSON)."""
        return chrome_trace(machine, [(p.finished, p.layers) for p in self.parts])

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
        try:
            self.manifest = parse_manifest(path.read_text(encoding="utf-8"))
        except ValueError as exc:
            raise ModelError(f"{path} is not a manifest: {exc}; compile the model again") from exc
        if self.manifest.get("format") != FORMAT:
            raise ModelError(
                f"{path} is of format {self.manifest.get('format')!r}, this program reads {FORMAT}: compile the model again"
            )
        try:
            self.machine: Machine = machine_of(self.manifest["machine"]["name"], self.manifest["machine"]["parameters"])
            keys = ("offset", "channels", "rows", "columns", "top", "left", "height", "width", "size", "last", "heads")
            self.images = {v: Image(**{k: i[k] for k in keys}) for v, i in self.manifest["images"].items()}
        except (KeyError, TypeError, AttributeError) as exc:
            raise ModelError(f"{path} lacks what a manifest of format {FORMAT} has ({exc!r}): compile the model again") from exc

    def run(self, feeds: Mapping[str, Array], host: Callable[[Mapping[str, Any]], Part]) -> ModelRun:
        """Outputs for `feeds`; `host` makes the function that computes a host part of the manifest."""
        activations = np.zeros(self.manifest["activation_bytes"], np.uint8)
        for value, image in self.images.items():
            surround(image, self.manifest["images"][value]["zero"], activations)
        runs = list[PartRun]()
        values = run_parts(self.manifest, feeds, host, lambda entry: partial(self._part, entry, activations, runs))
        return ModelRun(outputs_of(self.manifest, values), tuple(runs), values)

    def _part(
        self, entry: Mapping[str, Any], activations: Array, runs: list[PartRun], values: Mapping[str, Array]
    ) -> dict[str, Array]:
        """What an array part makes of `values`."""
        for v, value in values.items():
            pack(self.images[v], value, self.manifest["images"][v]["zero"], activations)
        if entry["layers"]:  # else its concatenations are views of what is there
            runs.append(PartRun(entry, Layer.of(entry), self._array(entry, activations)))
        told = {v: self.manifest["images"][v] for v in entry["outputs"]}
        return {v: unpack(self.images[v], activations, DType(t["dtype"]).numpy, t["shape"]) for v, t in told.items()}

    def _array(self, entry: Mapping[str, Any], activations: Array) -> Finished:
        try:
            control = Transaction.decode(self._bytes(entry["control"]))
        except StreamError as exc:
            raise StreamError(f"{self.directory / entry['control']}: {exc}") from exc
        weights = np.frombuffer(self._bytes(entry["weights"]), np.uint8).copy()
        part = part_of(self.machine.grid)
        programs = {t: self._bytes(f"core_{t.column}_{t.row}.bin") for t in part.cores()} if part else {}
        arguments = [Words.full("weights", weights), Words.full("activations", activations)]
        regions = [Region(1, image.offset, image.offset + image.nbytes, value) for value, image in self.images.items()]
        return simulate(self.machine, control, programs, arguments, regions=regions)

    def _bytes(self, name: str) -> bytes:
        path = self.directory / name
        try:
            return path.read_bytes()
        except OSError as exc:
            raise ModelError(f"{path} cannot be read ({exc.strerror or exc}): compile the model again") from exc
