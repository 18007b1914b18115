"""Verilog of an array for 8-bit products that executes the same micro-ops."""

from __future__ import annotations

import struct
from dataclasses import fields
from functools import cache

import jinja2

from sparsec.backends.systolic.isa import OPS, Format, MicroOp, Mode, Number, Stationary, Windows
from sparsec.backends.systolic.machine import Machine
from sparsec.backends.systolic.stream import HEADER_BYTES

DATA_BITS = 10  # a difference of an 8-bit datum and its zero point
FILES = ("pe.v", "delay.v", "array.v", "windows.vh", "decompress.vh", "decode.vh", "drain.vh")  # array.v includes the last ones


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("sparsec.templates", "systolic"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )


def emit_rtl(machine: Machine) -> dict[str, str]:
    """The Verilog sources by file name: PE, edge registers, and the array with its controller, which includes its units."""
    values = {
        "rows": machine.rows,
        "cols": machine.cols,
        "lanes": machine.lanes,
        "lane_bits": max(1, (machine.lanes - 1).bit_length()),
        "widest": max(machine.rows, machine.cols),
        "data_bits": DATA_BITS,
        "header_bytes": HEADER_BYTES,
        "codes": {op.name: op.code for op in OPS},
        "sizes": {op.name: 1 + struct.calcsize("<" + op.LAYOUT) for op in OPS},
        "fields": {op.name: _offsets(op) for op in OPS},
        "windows": [f.name for f in fields(Windows)],
        "stationary": _numbers(Stationary),
        "number": _numbers(Number),
        "format": _numbers(Format),
        "mode": _numbers(Mode),
    }
    return {name: _environment().get_template(f"{name}.j2").render(values) for name in FILES}


def emit_bench(program_bytes: int, weight_bytes: int, data_bytes: int, sums: int, limit: int) -> str:
    """A test bench that reads program.hex, weights.hex and data.hex and writes sums.hex; it gives up after `limit` cycles."""
    sizes = {"program_bytes": program_bytes, "weight_bytes": weight_bytes, "data_bytes": data_bytes, "sums": sums}
    return _environment().get_template("bench.v.j2").render(limit=limit, **sizes)


def _offsets(op: type[MicroOp]) -> dict[str, tuple[int, int]]:
    """Of every field: where it is, from the code byte on, and how many bytes it takes."""
    found, at = {}, 1
    for field, letter in zip(fields(op), op.LAYOUT, strict=True):
        size = struct.calcsize("<" + letter)
        found[field.name] = (at, size)
        at += size
    return found


def _numbers(known: type[Stationary] | type[Number] | type[Format] | type[Mode]) -> dict[str, int]:
    return {e.name: int(e) for e in known}
