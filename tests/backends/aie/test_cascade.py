"""The cascade between cores: its instructions, its values and cycles, and what goes wrong with it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.backends.aie.core.assembly import assemble, disassemble
from sparsec.backends.aie.core.cascade import GET, PUT, Events
from sparsec.backends.aie.core.core import Core
from sparsec.backends.aie.core.timing import Latencies
from sparsec.backends.aie.machine import Machine
from sparsec.backends.aie.registers import CASCADE_INPUT, CASCADE_OUTPUT, Tile
from sparsec.backends.aie.simulate.cascade import Coupling, Link
from sparsec.backends.aie.simulate.gantt import gantt
from sparsec.backends.aie.simulate.report import Layer, measure
from sparsec.backends.aie.simulate.run import Finished
from sparsec.backends.aie.simulate.timeline import Cause
from sparsec.backends.aie.simulate.trace import chrome_trace
from sparsec.compiler.errors import ModelError, StreamError, UsageError
from tests.backends.aie.arrays import CORE, MACHINE, UPPER, Stream

Array = np.ndarray[Any, Any]
EAST = Tile(1, 3)
TO_THE_EAST = {UPPER: CASCADE_OUTPUT.put(1), EAST: CASCADE_INPUT.put(1)}
_IDLE = "nop\n"
AT = 4096  # where words that were taken are stored


def _putting(times: int, idle: int = 0) -> str:
    """Memory into the cascade, 2 words a turn, with `idle` bundles between turns."""
    loads = "".join(f"b.ldc c0, {i}, p0, 32\n" for i in range(4))
    return f"movi r1, {times}\nloop r1, end\n{loads}{_IDLE * idle}putc c0, 0\nputc c0, 1\nend:\ndone\n"


def _getting(times: int, idle: int = 0) -> str:
    """The cascade into memory, 2 words a turn, with `idle` bundles between turns."""
    stores = "".join(f"stc c1, {i}, p1, 32\n" for i in range(4))
    return (
        f"movi r1, {times}\nmovi r2, {AT}\nmovp p1, r2\nloop r1, end\n{_IDLE * idle}getc c1, 0\ngetc c1, 1\n{stores}end:\ndone\n"
    )


def _run(
    programs: Mapping[Tile, str], data: Array, directions: Mapping[Tile, int] | None = None, machine: Machine = MACHINE
) -> Finished:
    """Cores that start when `data` are in the upper one's memory."""
    stream = Stream([])
    for i, value in enumerate(data.view(np.uint32).tolist()):
        stream.write(UPPER, f"data+{4 * i:#x}", value)
    for tile, value in (directions or {}).items():
        stream.write(tile, "accumulators", value)
    for tile in programs:
        stream.enable(tile)
    for _ in range(200):  # the run ends with the control stream
        stream.write(CORE, "lock15", 0)
    return stream.run([np.zeros(4, np.uint8)], programs, machine=machine)


def _sums(times: int) -> Array:
    return (np.arange(32 * times, dtype=np.int32) * 77777 - 5).astype(np.int32)


@pytest.mark.parametrize("word", ["stw w0, p3, 32 | getc c3, 1", "putc c8, 0 | mac c0, w1, x4, 1 | getc c1, 0"])
def test_text_and_bytes(word: str) -> None:
    assert disassemble(assemble(word)) == f"{word}\n"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("putc c0, 0 | stw w0, p0, 32", "slot store is taken twice, by putc and stw"),
        ("getc c0, 0 | acq 0, 1", "slot scalar is taken twice, by getc and acq"),
        ("putc c0, 0 | putc c1, 0", "slot store is taken twice"),
        ("getc c0, 0 | mac c0, w0, x4, 0", "getc and mac write c0 in one bundle"),
        ("getc c0, 2", "cannot be 2: it is from 0 to 1"),
        ("putc c9, 0", "cannot be 9"),
        ("getc w0, 0", "operand 1 is a register c"),
    ],
)
def test_one_word_each_way_a_cycle(line: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        assemble(line)


def _alone(text: str, words: Array, fast: bool) -> Core:
    core = Core(assemble(text), Latencies(4, 4, 4), 65536, 8192, fast)
    core.state.write(0, np.arange(8192, dtype=np.uint8), 32)
    core.state.inbox.push(words)
    return core


_LOOP = """
    movi r1, {times}
    movi r3, {inner}
    movi r2, 4096
    movp p1, r2
    movp p2, r2
    loop r1, end
    a.ldw w0, p0, 32 | b.ldw w8, p3, 0 | putc c4, 0 | getc c4, 0
    b.ldw w9, p3, 0 | putc c4, 1
    mul c0, w0, x4, 1 | getc c4, 1
    putc c5, 0
    loop r3, inner
    a.ldw w1, p0, 0 | mac c0, w1, x4, 0
inner:
    addmac c4, c0, c4, w0, x4, 1
    stw w0, p1, 32 | macc c5, c4, w1, x4, 1
end:
    done
"""


@settings(max_examples=15, deadline=None)
@given(times=st.integers(0, 9), inner=st.integers(0, 3), came=st.integers(0, 30))
def test_whole_loops_do_what_their_bundles_do(times: int, inner: int, came: int) -> None:
    """Registers, memory, words and cycles, as far as there are words."""
    words = np.random.default_rng(came).integers(0, 256, (came, 64)).astype(np.uint8)
    found = []
    for fast in (True, False):
        core = _alone(_LOOP.format(times=times, inner=inner), words, fast)
        meeting = core.resume()
        s, e = core.state, core.events
        sent = np.concatenate([np.zeros((0, 64), np.uint8), *s.outbox]).tobytes()
        found.append(
            (
                meeting.kind,
                core.pc,
                core.now,
                s.c.tobytes(),
                s.memory.tobytes(),
                sent,
                len(s.inbox),
                [*map(e.__getitem__, range(len(e)))],
            )
        )
        assert meeting.kind == ("done" if came >= 2 * times else "get")
    assert found[0] == found[1]


@settings(max_examples=15, deadline=None)
@given(pieces=st.lists(st.integers(1, 5), min_size=4, max_size=9), inner=st.integers(0, 3))
def test_iterations_that_wait_in_the_middle_do_what_their_bundles_do(pieces: list[int], inner: int) -> None:
    """Words come a few at a time: an iteration goes on with what is left of it, up to the next word that is not there yet."""
    pieces[-1] += sum(pieces) % 2  # an iteration takes two
    words = np.random.default_rng(inner).integers(0, 256, (sum(pieces), 64)).astype(np.uint8)
    found = []
    for fast in (True, False):
        core = _alone(_LOOP.format(times=sum(pieces) // 2, inner=inner), words[:0], fast)
        met = [core.resume().kind]
        for end, n in zip(accumulate(pieces), pieces, strict=True):
            core.state.inbox.push(words[end - n : end])
            met.append(core.resume().kind)
        s, e = core.state, core.events
        sent = np.concatenate(s.outbox).tobytes()
        numbers = (s.r, s.p, s.m, core.now, core.products, core.stalls, core.executed.tolist(), len(s.inbox))
        found.append((met, numbers, s.w.tobytes(), s.c.tobytes(), s.memory.tobytes(), sent, [*map(e.__getitem__, range(len(e)))]))
        assert met[-1] == "done"
    assert found[0] == found[1]


def test_a_core_goes_on_when_words_come() -> None:
    words = np.arange(8 * 64, dtype=np.uint8).reshape(8, 64)
    core = _alone(_getting(4), words[:3], fast=True)
    assert (core.resume().kind, core.where) == ("get", "bundle 5, `getc c1, 1`")
    core.state.inbox.push(words[3:])
    assert core.resume().kind == "done"
    assert np.array_equal(core.state.memory[AT : AT + 512], words.reshape(-1))
    with pytest.raises(ModelError, match="1 words are to be taken from the cascade, which has brought 0"):
        core.state.inbox.peek(1)


@settings(max_examples=12, deadline=None)
@given(times=st.integers(1, 9), slow=st.tuples(st.integers(0, 9), st.integers(0, 9)), east=st.booleans())
def test_words_arrive_in_order(times: int, slow: tuple[int, int], east: bool) -> None:
    data, receiver = _sums(times), EAST if east else CORE
    programs = {UPPER: _putting(times, slow[0]), receiver: _getting(times, slow[1])}
    run = _run(programs, data, TO_THE_EAST if east else None)
    assert np.array_equal(run.array.cores[receiver].memory.bytes[AT : AT + 128 * times].view(np.int32), data)


def _reference(upper: Sequence[tuple[int, int]], lower: Sequence[tuple[int, int]], depth: int, latency: int) -> list[list[int]]:
    """When two cores do what they do, cycle by cycle: each a list of (cycles behind the last one, PUT or GET)."""
    fifo: list[int] = []  # cycles from which words may be taken
    done: list[list[int]] = [[], []]
    at, ready = [0, 0], [upper[0][0] if upper else 0, lower[0][0] if lower else 0]
    freed: list[int] = []
    for now in range(10_000):
        for who, todo in ((1, lower), (0, upper)):
            if at[who] == len(todo) or now < ready[who]:
                continue
            if todo[at[who]][1] == GET:
                if not fifo or fifo[0] > now:
                    continue
                fifo.pop(0)
                freed.append(now + 1)
            else:
                taken = sum(f <= now for f in freed)
                if len(done[0]) - taken >= depth:
                    continue
                fifo.append(now + latency)
            done[who].append(now)
            at[who] += 1
            ready[who] = now + todo[at[who]][0] if at[who] < len(todo) else 0
    return done


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=30),
    st.integers(1, 4),
    st.integers(1, 3),
    st.data(),
)
def test_times_are_those_of_a_queue_cycle_by_cycle(
    gaps: list[tuple[int, int]], depth: int, latency: int, data: st.DataObject
) -> None:
    """However the two cores' times become known."""
    upper, lower = [(a, PUT) for a, _ in gaps], [(b, GET) for _, b in gaps]
    link = Link("upper", "lower", depth, latency)
    ends = (Coupling(Events(), outgoing=link), Coupling(Events(), incoming=link))
    cycles, left = [0, 0], [list(upper), list(lower)]
    while any(left) or not all(e.settled for e in ends):
        who = data.draw(st.sampled_from([i for i in (0, 1) if left[i]] or [0, 1]))
        if left[who]:
            gap, kind = left[who].pop(0)
            cycles[who] += gap
            ends[who].events.add(cycles[who], kind, 0)
        for _ in range(len(gaps) if not any(left) else 1):
            ends[who].settle()
            ends[1 - who].settle()
    assert [link.puts.tolist(), link.gets.tolist()] == _reference(upper, lower, depth, latency)
    for end, times, own in zip(ends, (link.puts, link.gets), (upper, lower), strict=True):
        assert sum(b - a for a, b in end.waits) == end.shift == times[-1] - sum(gap for gap, _ in own)


def _waited(run: Finished, tile: Tile) -> int:
    return run.array.cores[tile].timeline.cycles(0, run.cycles)[Cause.CASCADE]


def test_who_is_faster_waits() -> None:
    """40 turns: the upper core takes 6 + 3 (a load's latency before it is put, beside that of the vectors) a turn by itself."""
    data = _sums(40)
    quick = _run({UPPER: _putting(40), CORE: _getting(40)}, data)
    receiver = _run({UPPER: _putting(40), CORE: _getting(40, 20)}, data)
    sender = _run({UPPER: _putting(40, 20), CORE: _getting(40)}, data)
    turn = 2 + 4 + 20  # of the slow receiver; its stores wait for what was taken
    assert _waited(receiver, CORE) < 60 < 30 * turn - 40 * 12 < _waited(receiver, UPPER)
    assert _waited(sender, UPPER) == 0
    assert _waited(sender, CORE) > 39 * 10 > _waited(quick, CORE)
    for run in (quick, receiver, sender):
        for tile in (UPPER, CORE):
            causes = run.array.cores[tile].timeline.cycles(0, run.cycles)
            assert sum(causes.values()) == run.cycles
            assert all(n >= 0 for n in causes.values())


def test_a_deeper_queue_and_a_longer_way() -> None:
    """Places for all words: the sender never waits. A word that takes 50 cycles more comes so much later."""
    data = _sums(20)
    slow, quick = ({CORE: _getting(20, idle), UPPER: _putting(20)} for idle in (30, 0))
    deep = replace(MACHINE, streams=replace(MACHINE.streams, cascade_words=40))
    far = replace(deep, costs=replace(MACHINE.costs, cascade=52))
    assert _waited(_run(slow, data, machine=deep), UPPER) == 0 < _waited(_run(slow, data), UPPER)
    assert _waited(_run(quick, data, machine=far), CORE) == 50 + _waited(_run(quick, data, machine=deep), CORE)


def test_waiting_is_shown() -> None:
    run = _run({UPPER: _putting(40), CORE: _getting(40, 20)}, _sums(40))
    layers = (Layer("all", 0, len(run.marks), 0),)
    table = measure(MACHINE, run, layers).text().splitlines()
    assert table[0].split()[-4:] == ["cascade", "idle", "DDR", "MB"]
    assert float(table[1].split()[-3]) == pytest.approx(
        100 * (_waited(run, UPPER) + _waited(run, CORE)) / 4 / run.cycles, abs=0.06
    )
    events = json.loads(chrome_trace(MACHINE, [(run, layers)]))["traceEvents"]
    shown = [e for e in events if e.get("cat") == "wait for cascade"]
    assert sum(e["args"]["cycles"] for e in shown) == _waited(run, UPPER) + _waited(run, CORE)
    picture = gantt(MACHINE, run, layers)
    assert "for the cascade</text>" in picture
    assert picture.count('fill="#00acc1"') > 20


@pytest.mark.parametrize(
    ("programs", "directions", "message"),
    [
        (
            {CORE: _putting(1).replace("b.ldc", "# b.ldc")},
            {},
            r"cycle \d+, core\(0,2\), bundle 3, `putc c0, 1`: its cascade goes south, where the array has no core",
        ),
        (
            {EAST: _putting(1).replace("b.ldc", "# b.ldc")},
            {EAST: CASCADE_OUTPUT.put(1)},
            r"core\(1,3\).*its cascade goes east, where the array has no core",
        ),
        (
            {UPPER: _getting(1)},
            {},
            r"cycle \d+, core\(0,3\), bundle 4, `getc c1, 0`: its cascade comes from north, where the array has no core",
        ),
        (
            {CORE: _getting(1)},
            {CORE: CASCADE_INPUT.put(1)},
            r"core\(0,2\), bundle 4, `getc c1, 0`: its cascade comes from west, where the array has no core",
        ),
        (
            {UPPER: _putting(1), CORE: _getting(1)},
            {CORE: CASCADE_INPUT.put(1)},
            r"core\(0,3\), bundle 7, `putc c0, 1`: its cascade goes south, where the cascade of core\(0,2\) comes from west",
        ),
        (
            {UPPER: _putting(1), CORE: _getting(1)},
            {UPPER: CASCADE_OUTPUT.put(1)},
            r"core\(0,3\).*its cascade goes east, where the cascade of core\(1,3\) comes from north",
        ),
        (
            {UPPER: _putting(2)},
            {},
            r"cycle \d+, core\(0,3\), bundle 6, `putc c0, 0`: core\(0,2\) never takes this word out of the cascade",
        ),
        (
            {UPPER: _putting(3), CORE: _getting(1).replace("done", "acq 3, 1")},
            {},
            r"core\(0,3\), bundle 6, `putc c0, 0`: core\(0,2\) never takes this word",
        ),
        (
            {UPPER: _putting(9)},
            {},
            r"cycle \d+: the control stream has ended, and still waits core\(0,3\), bundle 6, `putc c0, 0`, for core\(0,2\) to "
            r"take a word \(4 words were put into the cascade and 0 taken out\)",
        ),
        (
            {UPPER: _putting(1), CORE: _getting(2)},
            {},
            r"still waits core\(0,2\), bundle 4, `getc c1, 0`, for core\(0,3\) to put a word \(2 words were put into the cascade "
            r"and 2 taken out\)",
        ),
        ({}, {CORE: 4}, r"operation \d+, `write core\(0,2\)\.accumulators.*core\(0,2\) has no bits 0x4 to say where its cascade"),
    ],
)
def test_misuse(programs: Mapping[Tile, str], directions: Mapping[Tile, int], message: str) -> None:
    with pytest.raises(StreamError, match=message):
        _run(programs, _sums(9), directions)


def test_a_deadlock_says_who_waits_for_what() -> None:
    """The lower core waits for a lock that the upper one would give back behind words for which there is no room."""
    stream = Stream([])
    for i in range(32 * 9):
        stream.write(UPPER, f"data+{4 * i:#x}", i)
    stream.enable(UPPER)
    stream.enable(CORE)
    stream.sync()
    with pytest.raises(StreamError) as raised:
        stream.run([np.zeros(4, np.uint8)], {UPPER: _putting(9), CORE: f"acq 2, 1\n{_getting(9)}"})
    told = str(raised.value)
    assert "deadlock" in told
    assert "core(0,3), bundle 6, `putc c0, 0`, for core(0,2) to take a word (4 words were put into the cascade and 0" in told
    assert "core(0,2), bundle 0, `acq 2, 1`, for core(0,2).lock2 to be at least 1 (holds 0)" in told
