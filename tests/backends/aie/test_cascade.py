"""The cascade between cores: its instructions, its values and cycles, and what goes wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.backends.aie.core.assembly import assemble, disassemble
from sparsec.backends.aie.registers import CASCADE_INPUT, CASCADE_OUTPUT, Tile
from sparsec.backends.aie.simulate.report import Layer, measure
from sparsec.backends.aie.simulate.run import Finished
from sparsec.backends.aie.simulate.timeline import Cause
from sparsec.backends.aie.transaction import Transaction
from sparsec.compiler.errors import StreamError, UsageError
from tests.backends.aie.arrays import CORE, GRID, MACHINE, UPPER, Stream

EAST = Tile(1, 2)
_PUTTING = """
    movi r1, {times}
    movi r2, {first}
    movp p0, r2
{before}
    loop r1, end
    b.ldc c0, 0, p0, 32
    b.ldc c0, 1, p0, 32
    b.ldc c0, 2, p0, 32
    b.ldc c0, 3, p0, 32
    putc c0, 0
    putc c0, 1
end:
    rel 0, 1
    done
"""
_GETTING = """
    movi r1, {times}
    movi r2, 4096
    movp p1, r2
{before}
    loop r1, end
    getc c1, 0
    getc c1, 1
    {last}stc c1, 0, p1, 32
    stc c1, 1, p1, 32
    stc c1, 2, p1, 32
    stc c1, 3, p1, 32
end:
    rel 0, 1
    done
"""


def _started(programs: dict[Tile, str], data: Sequence[int] = (), machine=MACHINE, directions: dict[Tile, int] | None = None) -> Finished:
    """Cores that run, words in the memory of the upper one."""
    stream = Stream([])
    for i, value in enumerate(data):
        stream.write(UPPER, f"data+{4 * i:#x}", value)
    for tile, value in (directions or {}).items():
        stream.write(tile, "accumulators", value)
    for tile in programs:
        stream.enable(tile)
    return stream.run([np.zeros(4, np.uint8)], programs, machine=machine)


def test_text_and_bytes() -> None:
    text = "stw w0, p3, 32 | getc c3, 1\nputc c8, 0 | mac c0, w1, x4, 1 | getc c0, 0\n"
    assert disassemble(assemble(text)) == text
    for wrong, why in (("putc c0, 0 | stw w0, p0, 32", "slot store is taken twice"), ("getc c0, 2", "it is from 0 to 1"),
                       ("getc c0, 0 | mac c0, w0, x4, 0", "write c0 in one bundle"), ("getc c0, 0 | acq 0, 1", "slot scalar is taken twice")):
        with pytest.raises(UsageError, match=why):
            assemble(wrong)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.sampled_from(["", "movi r5, 3\nmovi r6, 2"]), st.booleans())
def test_words_arrive_in_order(times: int, before: str, to_the_east: bool) -> None:
    data = np.arange(32 * times) * 7 + 1
    first, second = (UPPER, Tile(1, 3)) if to_the_east else (UPPER, CORE)
    directions = {first: CASCADE_OUTPUT.put(1), second: CASCADE_INPUT.put(1)} if to_the_east else {}
    programs = {first: _PUTTING.format(times=times, first=0, before=before), second: _GETTING.format(times=times, before="", last="")}
    run = _started(programs, data.tolist(), directions=directions)
    memory = run.array.cores[second].memory
    assert np.array_equal(memory.data.view(np.int32)[1024 : 1024 + 32 * times], data)
