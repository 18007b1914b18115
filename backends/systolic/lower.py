"""From products with a dataflow each to a micro-op stream and the memory image of the weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsec.backends.systolic import formats
from sparsec.backends.systolic.dataflow import Dataflow
from sparsec.backends.systolic.gemm import Gemm
from sparsec.backends.systolic.isa import (
    Configure,
    Decompress,
    Drain,
    End,
    Format,
    Halt,
    LoadData,
    LoadWeights,
    Mac,
    MicroOp,
    Mode,
    Move,
    Repeat,
    Stationary,
)
from sparsec.backends.systolic.machine import Machine
from sparsec.backends.systolic.packing import merge_columns
from sparsec.backends.systolic.stream import encode
from sparsec.compiler.errors import UsageError

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Mapping:
    """How a product is computed.

    `format` stores the weights of sOS, sWS and sIS (None: the shorter of bitmap and columns, strip by strip); `keep` of `group`
    reduced elements are multiplied by nmOS and nmWS.
    """

    dataflow: Dataflow
    format: Format | None = None
    keep: int = 0
    group: int = 0


@dataclass(frozen=True)
class Lowered:
    """The micro-op stream, and the weights that it reads."""

    stream: bytes
    weights: bytes


def lower(machine: Machine, layers: Iterable[tuple[Gemm, Mapping]]) -> Lowered:
    """Products, one after the other. UsageError for a mapping that the array or the weights do not allow."""
    ops, image = list[MicroOp](), bytearray()
    for gemm, mapping in layers:
        ops += _Lowering(machine, gemm, mapping, image).ops()
    return Lowered(encode(machine.rows, machine.cols, [*ops, Halt()]), bytes(image))


def dense_image(machine: Machine, dataflow: Dataflow, matrices: Array) -> bytes:
    """What `lower` stores for W [products, M, K] in a dense dataflow, whatever the values."""
    return b"".join(_stored(strip) for w in matrices for _, strip in _strips(machine, dataflow, w))


def _strips(machine: Machine, dataflow: Dataflow, w: Array) -> Iterator[tuple[int, Array]]:
    """The first row of every strip, and the strip [rows, extent]."""
    turned = w.T if dataflow.stationary is Stationary.IS else w
    side = machine.cols if dataflow.stationary is Stationary.WS else machine.rows
    for first in range(0, turned.shape[0], side):
        yield first, turned[first : first + side]


def _stored(strip: Array) -> bytes:
    """A dense strip, step by step."""
    return bytes(np.ascontiguousarray(strip.T).tobytes())


@dataclass
class _Lowering:
    """One product; strips are appended to `image`."""

    machine: Machine
    gemm: Gemm
    mapping: Mapping
    image: bytearray

    def ops(self) -> Iterator[MicroOp]:
        """Its micro-ops."""
        gemm, flow = self.gemm, self.mapping.dataflow
        yield Configure(flow.stationary, self._lanes(), gemm.weights, gemm.data, gemm.zero)
        yield gemm.windows
        yield gemm.output
        csos = flow is Dataflow.CSOS
        merged = merge_columns(gemm.w != 0, self.machine.rows, self.machine.lanes) if csos else None
        for i, (first, strip) in enumerate(_strips(self.machine, flow, gemm.w)):
            if not flow.sparse:
                yield self._dense(strip)
                yield from self._body(first, *strip.shape)
                continue
            encoded = self._encode(strip, merged[i] if merged else None)
            if encoded.steps:  # else its sums are 0, as the output memory begins
                yield self._decompress(strip, encoded)
                yield from self._body(first, len(strip), encoded.steps)

    def _lanes(self) -> int:
        """How wide links have to be."""
        flow, machine = self.mapping.dataflow, self.machine
        if flow.grouped and not 0 < self.mapping.keep < self.mapping.group <= machine.lanes:
            raise UsageError(
                f"product {self.gemm.name!r}: {self.mapping.keep}:{self.mapping.group} weights need links of a group's values, "
                f"and those of {machine.name} have {machine.lanes}: choose a target with more lanes or a smaller group"
            )
        return machine.lanes if flow is Dataflow.CSOS else self.mapping.group if flow.grouped else 1

    def _dense(self, strip: Array) -> LoadWeights:
        address = self._store(_stored(strip))
        return LoadWeights(address, strip.shape[0], strip.shape[1], 0)

    def _store(self, data: bytes) -> int:
        address = len(self.image)
        self.image += data
        return address

    def _encode(self, strip: Array, merged: list[list[int]] | None) -> formats.Encoded:
        if merged is not None:
            return formats.packed(strip, merged, self.machine.lanes)
        if self.mapping.dataflow.grouped:
            try:
                return formats.nm(strip, self.mapping.keep, self.mapping.group)
            except ValueError as exc:
                raise UsageError(f"product {self.gemm.name!r}: {exc}; prune it to this pattern first") from exc
        found = [make(strip) for form, make in _STORED.items() if self.mapping.format in (form, None)]
        if not found:
            raise UsageError(f"{self.mapping.dataflow.value} stores weights as bitmap or columns, not {self.mapping.format}")
        return min(found, key=lambda e: len(e.data))

    def _decompress(self, strip: Array, encoded: formats.Encoded) -> Decompress:
        address = self._store(encoded.data)
        rows, extent = strip.shape
        return Decompress(address, len(encoded.data), encoded.format, rows, encoded.steps, extent, encoded.keep, encoded.group)

    def _body(self, first: int, rows: int, steps: int) -> Iterator[MicroOp]:
        """The folds of a strip whose first row is `first`."""
        machine, n = self.machine, self.gemm.n
        match self.mapping.dataflow.stationary:
            case Stationary.OS:
                yield Repeat(-(-n // machine.cols))
                yield LoadData(0, 0, machine.cols, n)
                yield Mac(steps)
                yield Drain(first, rows, 0, machine.cols, Mode.WRITE)
            case Stationary.WS:
                yield Repeat(-(-steps // machine.rows))
                yield Move(machine.rows, 0, machine.rows)
                yield LoadData(0, 0, machine.rows, n)
                yield Mac(n)
                yield Drain(first, rows, 0, 0, Mode.RESUME)
            case Stationary.IS:
                yield Repeat(-(-n // machine.cols))
                yield LoadData(first, 0, machine.cols, n)
                yield Move(machine.rows, 0, 0)
                yield Mac(steps)
                yield Drain(0, 0, 0, machine.cols, Mode.ACCUMULATE)
        yield End()


_STORED = {Format.BITMAP: formats.bitmap, Format.COLUMNS: formats.columns}
