"""Micro-ops as bytes: a header, and one code byte and packed fields a micro-op.

    0  magic "SPSA"     4  version u16     6  rows u16     8  cols u16     10  bytes after the header u32     14  CRC-32 u32

The checksum is of everything else. All numbers are little-endian.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, fields

from sparsec.backends.systolic.check import Grammar
from sparsec.backends.systolic.isa import BY_CODE, ENUMS, MicroOp
from sparsec.backends.systolic.stream_error import StreamError

MAGIC, VERSION = b"SPSA", 1
_HEADER = struct.Struct("<4sHHHI")  # the checksum follows
_SUM = struct.Struct("<I")
HEADER_BYTES = _HEADER.size + _SUM.size


@dataclass(frozen=True)
class Line:
    """A micro-op and where its code byte is in the stream."""

    offset: int
    op: MicroOp


@dataclass(frozen=True)
class Stream:
    """A decoded stream for an array of rows x cols."""

    rows: int
    cols: int
    lines: tuple[Line, ...]


def encode(rows: int, cols: int, ops: Iterable[MicroOp]) -> bytes:
    """The bytes of micro-ops; StreamError, as of `decode`, for an order or fields that no array could run."""
    grammar, parts, offset = Grammar(rows, cols), list[bytes](), HEADER_BYTES
    for op in ops:
        grammar.take(offset, op)
        try:
            part = struct.pack("<B" + op.LAYOUT, op.code, *op.numbers)
        except struct.error as exc:
            raise StreamError(offset, f"a field of {op} is out of range ({exc})") from exc
        parts.append(part)
        offset += len(part)
    grammar.finish(offset)
    body = b"".join(parts)
    head = _HEADER.pack(MAGIC, VERSION, rows, cols, len(body))
    return head + _SUM.pack(zlib.crc32(body, zlib.crc32(head))) + body


def decode(data: bytes) -> Stream:
    """The micro-ops of a stream. StreamError, with offset and reason, for bytes that are no stream or that no array could run."""
    if len(data) < HEADER_BYTES:
        raise StreamError(len(data), f"the stream ends in its header of {HEADER_BYTES} bytes")
    magic, version, rows, cols, size = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise StreamError(0, f"it begins with {magic!r}, not {MAGIC!r}")
    if version != VERSION:
        raise StreamError(4, f"its version is {version}, and this decoder reads {VERSION}")
    if len(data) != HEADER_BYTES + size:
        raise StreamError(len(data), f"the header says {size} bytes of micro-ops, and there are {len(data) - HEADER_BYTES}")
    body = data[HEADER_BYTES:]
    if zlib.crc32(body, zlib.crc32(data[: _HEADER.size])) != _SUM.unpack_from(data, _HEADER.size)[0]:
        raise StreamError(_HEADER.size, "the checksum does not fit the bytes")
    grammar, lines, offset = Grammar(rows, cols), list[Line](), HEADER_BYTES
    while offset < len(data):
        op, end = _read(data, offset)
        grammar.take(offset, op)
        lines.append(Line(offset, op))
        offset = end
    grammar.finish(offset)
    return Stream(rows, cols, tuple(lines))


def _read(data: bytes, offset: int) -> tuple[MicroOp, int]:
    """The micro-op at `offset`, and where the next one begins."""
    kind = BY_CODE.get(data[offset])
    if kind is None:
        raise StreamError(offset, f"no micro-op has the code 0x{data[offset]:02x}")
    form = struct.Struct("<" + kind.LAYOUT)
    if offset + 1 + form.size > len(data):
        raise StreamError(offset, f"the stream ends in a {kind.name}, which takes {1 + form.size} bytes")
    values = list(form.unpack_from(data, offset + 1))
    for i, field in enumerate(fields(kind)):
        if field.name in ENUMS:
            known = ENUMS[field.name]
            if values[i] not in list(known):
                raise StreamError(offset, f"{kind.name} has the {field.name} {values[i]}, which is none of {_words(known)}")
            values[i] = known(values[i])
    return kind(*values), offset + 1 + form.size


def _words(known: Iterable[object]) -> str:
    return ", ".join(f"{getattr(e, 'value', e)} ({getattr(e, 'name', '')})" for e in known)
