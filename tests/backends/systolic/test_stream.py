"""The stream's bytes and text: back and forth, and what is rejected, where and why."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.backends.systolic import (
    SEVEN,
    Dataflow,
    Level,
    Machine,
    Mapping,
    assemble,
    decode,
    disassemble,
    encode,
    lower,
    product,
)
from sparsec.backends.systolic.isa import (
    Configure,
    Decompress,
    Drain,
    Format,
    LoadData,
    Mac,
    MicroOp,
    Mode,
    Move,
    Number,
    Repeat,
    Windows,
)
from sparsec.backends.systolic.simulate.run import simulate
from sparsec.backends.systolic.stream import HEADER_BYTES
from sparsec.backends.systolic.stream_error import StreamError
from sparsec.compiler.errors import UsageError
from tests.backends.systolic.cases import Case, cases

RNG = np.random.default_rng(7)
W = np.where(RNG.random((7, 9)) < 0.4, RNG.integers(1, 9, (7, 9)), 0).astype(np.int8)
X = RNG.integers(-9, 9, (9, 6)).astype(np.int8)
ARRAY = Machine("flexisaga", 3, 4, 2)


def lowered(dataflow: Dataflow, form: Format | None = None) -> tuple[bytes, bytes]:
    made = lower(ARRAY, [(product(W, X), Mapping(dataflow, form))])
    return made.stream, made.weights


def summed(body: bytes, head: bytes) -> bytes:
    """A stream with the checksum that its bytes have."""
    return head + struct.pack("<I", zlib.crc32(body, zlib.crc32(head))) + body


@given(cases(), st.sampled_from(SEVEN))
@settings(max_examples=40, deadline=None)
def test_text_assembles_to_the_same_bytes(case: Case, dataflow: Dataflow) -> None:
    stream = case.lowered(Mapping(dataflow)).stream
    decoded = decode(stream)
    assert encode(decoded.rows, decoded.cols, [line.op for line in decoded.lines]) == stream
    assert assemble(disassemble(decoded)) == stream


def test_text_shows_operands_and_offsets() -> None:
    text = disassemble(decode(lowered(Dataflow.SWS, Format.BITMAP)[0])).splitlines()
    assert text[0] == "systolic 3x4"
    assert text[1].split() == ["configure", "stationary=ws", "lanes=1", "weights=i8", "data=i8", "zero=0", "#", "0x0012"]
    assert text[4].startswith("decompress address=0 size=") and "format=bitmap rows=4" in text[4]
    assert text[6].startswith("  move count=3 first=0 stride=3 ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "does not begin with the array"),
        ("systolic 3x4\nconfigur", "line 2: no micro-op is called 'configur'"),
        ("systolic 3x4\n\nmac step=3", "line 3: mac takes steps, in this order, not 'step'"),
        ("systolic 3x4\nmac steps=x", "line 2: steps is a number, not 'x'"),
        ("systolic 3x4\nconfigure stationary=rs lanes=1 weights=i8 data=i8 zero=0", "stationary is one of os, ws, is, not 'rs'"),
    ],
)
def test_text_that_is_none(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("(", r"\(")):
        assemble(text)


@given(st.integers(0, 10_000), st.integers(1, 255), st.sampled_from(SEVEN))
def test_every_changed_byte_is_noticed(at: int, change: int, dataflow: Dataflow) -> None:
    stream = bytearray(lowered(dataflow)[0])
    stream[at % len(stream)] ^= change
    with pytest.raises(StreamError):
        decode(bytes(stream))


@given(st.integers(0, 10_000))
def test_every_truncation_is_noticed(size: int) -> None:
    stream = lowered(Dataflow.SOS)[0]
    with pytest.raises(StreamError, match=r"ends in its header|there are"):
        decode(stream[: size % len(stream)])


@given(st.integers(HEADER_BYTES, 10_000), st.integers(1, 255), st.sampled_from(SEVEN))
@settings(max_examples=300, deadline=None)
def test_with_a_new_checksum_nothing_worse_than_a_stream_error_happens(at: int, change: int, dataflow: Dataflow) -> None:
    stream, weights = lowered(dataflow)
    body = bytearray(stream[HEADER_BYTES:])
    body[at % len(body)] ^= change
    forged = summed(bytes(body), stream[: HEADER_BYTES - 4])
    try:
        simulate(forged, weights, X, 64)
    except StreamError as exc:
        assert 0 <= exc.offset <= len(forged) and exc.reason


@given(st.integers(0, 10_000), st.integers(1, 255), st.sampled_from([Dataflow.SOS, Dataflow.CSOS, Dataflow.SWS, Dataflow.SIS]))
@settings(max_examples=200, deadline=None)
def test_corrupt_weights_give_sums_or_a_stream_error(at: int, change: int, dataflow: Dataflow) -> None:
    stream, weights = lowered(dataflow)
    image = bytearray(weights)
    image[at % len(image)] ^= change
    try:
        simulate(stream, bytes(image), X, 42)
    except StreamError as exc:
        assert "weights at" in exc.reason or "row" in exc.reason


CHANGES: list[tuple[Dataflow, type[MicroOp], Callable[[MicroOp], MicroOp | None], str]] = [
    (Dataflow.DOS, Windows, lambda op: None, "output where windows is expected"),
    (Dataflow.DOS, Mac, lambda op: None, "drain where mac is expected"),
    (Dataflow.DWS, Move, lambda op: None, "load.data where move is expected"),
    (Dataflow.DOS, Repeat, lambda op: Repeat(0), "runs its body no times"),
    (Dataflow.DOS, Repeat, lambda op: Repeat(3), "its last iteration takes what begins at 8 of 6"),
    (Dataflow.DOS, Mac, lambda op: Mac(8), "8 operands stream by, and there are 9"),
    (Dataflow.DWS, Move, lambda op: Move(2, 0, 3), "shifts 2 rows into an array of 3"),
    (Dataflow.DWS, Move, lambda op: Move(3, 1, 3), "the weights of other steps are resident"),
    (Dataflow.DOS, LoadData, lambda op: LoadData(1, 0, 4, 6), "begins at row 1"),
    (Dataflow.DOS, LoadData, lambda op: LoadData(0, 0, 4, 7), "takes columns of 7, and X has 6"),
    (Dataflow.SWS, Decompress, lambda op: replace(op, rows=5), "5 weights a step, and the array takes 1 to 4"),
    (Dataflow.SWS, Decompress, lambda op: replace(op, keep=2), "BITMAP has no groups"),
    (Dataflow.SIS, Decompress, lambda op: replace(op, format=Format.PACKED), "the data of IS stay"),
    (Dataflow.DOS, Drain, lambda op: replace(op, first=1), "drains other columns than those that load.data takes, from 0 by 4"),
    (Dataflow.DWS, Drain, lambda op: replace(op, stride=1), "WS drains all columns in every iteration"),
    (Dataflow.DIS, Drain, lambda op: replace(op, mode=Mode.RESUME), "only WS comes to the same sums again"),
    (Dataflow.DIS, Drain, lambda op: replace(op, rows=1), "takes 1 rows from PEs that hold 0"),
    (Dataflow.DOS, Configure, lambda op: replace(op, data=Number.F32), "weights I8 do not go with data F32"),
    (Dataflow.DOS, Configure, lambda op: replace(op, zero=400), "400 cannot stand for 0 in I8"),
]


@pytest.mark.parametrize(("dataflow", "kind", "change", "message"), CHANGES, ids=[c[3][:32] for c in CHANGES])
def test_what_no_array_could_run_is_refused(
    dataflow: Dataflow, kind: type[MicroOp], change: Callable[[MicroOp], MicroOp | None], message: str
) -> None:
    form = Format.BITMAP if dataflow in (Dataflow.SWS, Dataflow.SIS) else None
    ops, changed = list[MicroOp](), False
    for line in decode(lowered(dataflow, form)[0]).lines:
        new = change(line.op) if isinstance(line.op, kind) and not changed else line.op
        changed = changed or isinstance(line.op, kind)
        ops += [] if new is None else [new]
    with pytest.raises(StreamError, match=message.replace("(", r"\(")):
        encode(3, 4, ops)


def test_accesses_outside_of_the_memories_are_refused() -> None:
    stream, weights = lowered(Dataflow.DOS)
    for level in Level:
        with pytest.raises(StreamError, match="a memory of 0x3e bytes"):
            simulate(stream, weights[:-1], X, 42, level)
        with pytest.raises(StreamError, match="the windows reach element 53 of a data memory of 53"):
            simulate(stream, weights, X.reshape(-1)[:-1], 42, level)
    with pytest.raises(StreamError, match="element 41 of an output memory of 41 is written"):
        simulate(stream, weights, X, 41)
    with pytest.raises(StreamError, match="data are I8, and the data memory holds float32"):
        simulate(stream, weights, X.astype(np.float32), 42)
