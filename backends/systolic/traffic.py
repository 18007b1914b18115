"""Bytes between DRAM, buffers and array, what waiting for them adds, and energy: a model, with its parameters in a file.

A strip of weights is fetched once where the weight buffer holds it, else once a fold. Data are fetched once a product where the
data buffer holds all that it reads, else once a strip. Partial sums stay on chip where the buffer of sums holds those of a strip
(WS) or of the product (IS), else they go out and come back. Double-buffered, half of the first two buffers holds what comes next,
and a strip's fetches overlap with the strip before; exposed, they do not. Results leave in the data's element type.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sparsec.backends.systolic.isa import Stationary
from sparsec.backends.systolic.simulate.counts import Counts, Run, StripTrace
from sparsec.compiler.errors import UsageError

SUM_BYTES = 4
_TABLES = {
    "buffers": ("weights", "data", "sums"),
    "dram": ("bytes_per_cycle",),
    "energy": ("mac_i8", "mac_f32", "sram_byte", "dram_byte"),
}


@dataclass(frozen=True)
class Memory:
    """Buffers in bytes, DRAM in bytes a cycle, energies in picojoules; `double` says whether fetches overlap with folds."""

    weights: int
    data: int
    sums: int
    bytes_per_cycle: float
    mac_i8: float
    mac_f32: float
    sram_byte: float
    dram_byte: float
    double: bool = True


def read_memory(path: Path | None = None, *, double: bool = True) -> Memory:
    """Parameters of a TOML file, by default the one beside this module; UsageError that names what is lacking or not positive."""
    file = path or Path(__file__).with_name("memory.toml")
    try:
        found = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise UsageError(f"memory parameters cannot be read from {file}: {exc}") from exc
    values: dict[str, Any] = {}
    for table, names in _TABLES.items():
        given = found.get(table, {})
        if set(given) != set(names):
            raise UsageError(f"{file}: [{table}] needs {', '.join(names)}, and has {', '.join(given) or 'nothing'}")
        for name, value in given.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
                raise UsageError(f"{file}: {table}.{name} is {value!r}, and has to be a positive number")
            values[name] = value
    return Memory(**values, double=double)


@dataclass(frozen=True)
class Traffic:
    """Bytes, cycles with what waiting for DRAM adds to those of the array, and energy in microjoules."""

    sram_bytes: int
    dram_read: int
    dram_written: int
    cycles: int
    energy: float

    @property
    def dram_bytes(self) -> int:
        """Both ways."""
        return self.dram_read + self.dram_written


def total(parts: Iterable[Traffic]) -> Traffic:
    """Of layers that run one after the other."""
    found = tuple(zip(*(astuple(p) for p in parts), strict=True)) or ((0,),) * 5
    return Traffic(*(sum(column) for column in found))


def traffic(run: Run, memory: Memory, data_bytes: int) -> Traffic:
    """Of a run whose data (and weights) take `data_bytes` an element: 4 for float32, 1 for 8-bit."""
    share = 2 if memory.double else 1
    read = written = 0
    fetches, computes = list[int](), list[int]()
    for product in range(len(run.products)):
        strips = [s for s in run.strips if s.product == product]
        for fetched, left, strip in zip(*_moved(strips, memory, share, data_bytes), strips, strict=True):
            read, written = read + fetched, written + left
            fetches.append(int(np.ceil((fetched + left) / memory.bytes_per_cycle)))
            computes.append(strip.cycles)
    sram = _sram(run.total, data_bytes)
    mac = memory.mac_f32 if data_bytes == SUM_BYTES else memory.mac_i8
    picojoules = run.total.macs * mac + sram * memory.sram_byte + (read + written) * memory.dram_byte
    return Traffic(sram, read, written, _time(fetches, computes, memory.double), picojoules / 1e6)


def _moved(strips: Sequence[StripTrace], memory: Memory, share: int, data_bytes: int) -> tuple[list[int], list[int]]:
    """Bytes that every strip of a product reads from DRAM, and that it writes there."""
    touched = {int(c): s.plane for s in strips for c in s.channels}
    rows_of_all = len({int(r) for s in strips for r in s.rows})
    resident = sum(touched.values()) * data_bytes <= memory.data // share
    seen: set[int] = set()
    results: set[int] = set()
    read, written = [], []
    for strip in strips:
        new = set(map(int, strip.channels)) - (seen if resident else set())
        seen |= new
        passes = 1 if strip.weight_bytes <= memory.weights // share or strip.stationary is Stationary.WS else strip.iterations
        fetched = strip.weight_bytes * passes + len(new) * strip.plane * data_bytes
        sums = len(strip.rows) * strip.columns
        spilled = 0
        if strip.stationary is Stationary.WS and sums * SUM_BYTES > memory.sums:
            spilled = (strip.iterations - 1) * sums * SUM_BYTES
        if strip.stationary is Stationary.IS and rows_of_all * strip.columns * SUM_BYTES > memory.sums:
            spilled = sum(int(r) in results for r in strip.rows) * strip.columns * SUM_BYTES
        fresh = set(map(int, strip.rows)) - results
        results |= fresh
        read.append(fetched + spilled)
        written.append(len(fresh) * strip.columns * data_bytes + spilled)
    return read, written


def _sram(counts: Counts, data_bytes: int) -> int:
    values = counts.weight_values + counts.data_values
    return values * data_bytes + counts.index_bytes + (counts.output_writes + counts.output_reads) * SUM_BYTES


def _time(fetches: Sequence[int], computes: Sequence[int], double: bool) -> int:
    """Cycles of fetching and computing all strips: the next one's fetch beside each, or one after the other."""
    if not double or not fetches:
        return sum(fetches) + sum(computes)
    return fetches[0] + sum(max(c, f) for c, f in zip(computes, [*fetches[1:], 0], strict=True))
