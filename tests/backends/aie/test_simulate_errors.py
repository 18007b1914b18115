"""What an array cannot do: every error says when, where and what, with the line of the stream that did it."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sparsec.backends.aie.core.assembly import assemble
from sparsec.backends.aie.core.core import Core
from sparsec.backends.aie.core.timing import Latencies
from sparsec.backends.aie.descriptors import Acquire, CoreDescriptor, Dim, MemoryDescriptor, Release, ShimDescriptor
from sparsec.backends.aie.machine import machine_named
from sparsec.backends.aie.registers import Kind, Tile, register_address, register_name, split
from sparsec.backends.aie.simulate.memory import Words
from sparsec.backends.aie.simulate.run import simulate
from sparsec.backends.aie.transaction import BlockWrite, Patch, Transaction, Write
from sparsec.compiler.errors import ModelError, SparsecError, StreamError
from tests.backends.aie.arrays import CORE, GRID, IN, MACHINE, MEMORY, OUT, SHIM, Stream, acquire, own, release

DATA = np.arange(256, dtype=np.uint32)
Build = Callable[[Stream], object]


def _fails(build: Build, message: str, program: str = "done") -> None:
    stream = Stream()
    build(stream)
    with pytest.raises(StreamError, match=message):
        stream.run([DATA.copy()], {CORE: program})


def _send(stream: Stream, length: int = 16, offset: int = 0) -> None:
    """Words of DDR to a memory tile's first ones."""
    stream.task(MEMORY, IN, 0, 0, MemoryDescriptor(own(0), length))
    stream.task(SHIM, OUT, 0, 0, ShimDescriptor(offset, length), argument=0)


def _descriptors() -> list[tuple[str, Build, str]]:
    return [
        (
            "words that nothing has written",
            lambda s: (
                s.task(CORE, IN, 0, 0, CoreDescriptor(0, 16)),
                s.task(Tile(0, 3), IN, 0, 0, CoreDescriptor(0, 16)),
                s.task(MEMORY, OUT, 0, 1, MemoryDescriptor(own(8), 16)),
            ),
            r"cycle \d+, memory\(0,1\)\.mm2s0, descriptor 1 \(base 0x20008, length 16\), started by operation \d+, "
            r"`write memory\(0,1\)\.mm2s0\.queue.*the word at 0x20 is read, and nothing has written it",
        ),
        (
            "a walk that leaves the memory",
            lambda s: s.task(CORE, IN, 0, 0, CoreDescriptor(16383, 2)),
            r"cycle \d+, core\(0,2\)\.s2mm0, descriptor 0 .*last word of a core descriptor does not fit",
        ),
        (
            "a neighbour that the array does not have",
            lambda s: (
                s.task(MEMORY, IN, 0, 0, MemoryDescriptor(0, 16)),
                s.task(SHIM, OUT, 0, 0, ShimDescriptor(0, 16), argument=0),
            ),
            r"memory\(0,1\)\.s2mm0.*the word at 0x0 is a neighbour's that the array does not have",
        ),
        (
            "DDR beyond the argument",
            lambda s: _send(s, 16, 4 * 250),
            r"cycle \d+, shim\(0,0\)\.mm2s0.*activations: the word at 0x400 is outside of its 1,024 bytes",
        ),
        (
            "DDR of no argument",
            lambda s: s.task(SHIM, OUT, 0, 0, ShimDescriptor(0, 16), argument=3),
            r"cycle \d+, operation \d+, `patch .*the control stream asks for argument 3: there are 1",
        ),
        (
            "more words than there can be",
            lambda s: s.task(SHIM, OUT, 0, 0, ShimDescriptor(0, 1 << 31), argument=0),
            r"shim\(0,0\)\.mm2s0.*2,147,483,648 words at once",
        ),
        (
            "a descriptor that is not valid",
            lambda s: s.task(CORE, IN, 0, 0, CoreDescriptor(0, 16, valid=False)),
            r"cycle \d+, core\(0,2\)\.s2mm0, descriptor 0, started by operation \d+, `write .*the descriptor is not valid",
        ),
        (
            "a descriptor without words",
            lambda s: s.task(CORE, IN, 0, 0, CoreDescriptor(0, 0)),
            r"cycle \d+, core\(0,2\)\.s2mm0, descriptor 0.*moves no words",
        ),
        (
            "bits that no descriptor has",
            lambda s: (
                s.task(CORE, IN, 0, 0, CoreDescriptor(0, 16, release=Release(3))),
                s.operations.insert(-1, Write(register_address(GRID, CORE, "bd0.4"), 1 << 31)),
            ),
            r"core\(0,2\)\.s2mm0, descriptor 0, started by operation \d+.*bits 0x80000000 set, which nothing reads",
        ),
        (
            "a lock that overflows",
            lambda s: (
                s.write(MEMORY, "lock0", 63),
                s.task(MEMORY, IN, 0, 0, MemoryDescriptor(own(0), 4, release=release(0))),
                s.task(SHIM, OUT, 0, 0, ShimDescriptor(0, 4), argument=0),
            ),
            r"memory\(0,1\)\.s2mm0.*memory\(0,1\)\.lock0 would hold 64: it holds 0 to 63",
        ),
        (
            "a full queue",
            lambda s: [s.task(CORE, IN, 0, 0, CoreDescriptor(0, 16)) for _ in range(6)],
            r"cycle \d+, operation \d+, `write core\(0,2\)\.s2mm0\.queue.*a task is started while 4 wait",
        ),
        (
            "a channel that has not this descriptor",
            lambda s: s.operations.append(Write(register_address(GRID, MEMORY, "mm2s0.queue"), 30)),
            r"cycle \d+, operation \d+, `write memory\(0,1\)\.mm2s0\.queue.*descriptors 0 to 23",
        ),
    ]


@pytest.mark.parametrize(("build", "message"), [pytest.param(b, m, id=i) for i, b, m in _descriptors()])
def test_descriptors_that_cannot_be(build: Build, message: str) -> None:
    _fails(build, message)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("0x3FFFC", r"cycle \d+, operation \d+, `write core\(0,2\)\.0x3fffc.*core\(0,2\) has nothing at offset 0x3fffc"),
        ("program+0x0", r"core\(0,2\) has nothing at offset 0x20000 that a control stream can write here"),
    ],
)
def test_registers_that_there_are_not(name: str, message: str) -> None:
    _fails(lambda s: s.write(CORE, name, 1), message)


def test_a_write_to_a_tile_that_there_is_not() -> None:
    _fails(
        lambda s: s.operations.append(Write(7 << 25 | 0x1D000, 1)),
        r"cycle \d+, operation \d+, `write 0x0e01d000.*no tile \(7,0\)",
    )
    _fails(lambda s: s.operations.append(BlockWrite(9 << 20, (1, 2))), r"operation \d+, `block.*no tile \(0,9\)")
    _fails(lambda s: s.operations.append(Patch(7 << 25, 5, 0)), r"operation \d+, `patch .*argument 5")


def test_the_array_of_the_stream_is_the_machines() -> None:
    control = Transaction.decode(Transaction(GRID, ()).encode())
    with pytest.raises(StreamError, match="is for 2 columns of 1 memory tiles and 2 cores: the machine aie2:npu1 has 4 columns"):
        simulate(machine_named("aie2:npu1"), control, {}, [])


def test_a_file_that_was_cut_off() -> None:
    with pytest.raises(StreamError, match=r"weights has 7 bytes: expected whole words of 4"):
        Words.full("weights", np.zeros(7, np.uint8))
    with pytest.raises(ModelError, match=r"24 bytes end within a bundle of 16"):
        Core(assemble("done") + bytes(8), Latencies(4, 4, 4), 65536, 8192)
    with pytest.raises(ModelError, match=r"bundle 1, ff.*, is none"):
        Core(assemble("done") + b"\xff" * 16, Latencies(4, 4, 4), 65536, 8192)
    stream = Transaction(GRID, tuple(Stream().operations)).encode()
    for length in (0, 15, len(stream) - 4, len(stream) - 1):
        with pytest.raises(StreamError):
            Transaction.decode(stream[:length])


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("nop\na.ldw w1, p1, 32", r"cycle \d+, core\(0,2\), bundle 1, `a.ldw w1, p1, 32`: .*words that nothing has written"),
        ("movi r1, 63\nsrs c0, p1, r1, 0, 0", r"bundle 1, `srs .*`: the register holds 63: expected a shift by -31 to 62 places"),
        ("movi r1, 32\nups c0, w1, r1, 0", r"bundle 1, `ups .*`: the register holds 32: expected a shift by 0 to 31 places"),
        (
            "movi r0, 65536\nmovp p1, r0\nb.ld r1, p1, 4",
            r"core\(0,2\), bundle 2, `b.ld r1, p1, 4`: .*outside of the 65,536 bytes",
        ),
        ("movi r0, -32\nmovp p1, r0\nstw w1, p1, 32", r"bundle 2, `stw w1, p1, 32`: a store of 32 bytes at -0x20 is outside"),
        ("movi r0, 4\nmovp p1, r0\nstw w1, p1, 32", r"bundle 2, `stw w1, p1, 32`: .*is not aligned to 32"),
        ("movi r1, -1\nloop r1, end\nnop\nend:\ndone", r"bundle 1, `loop r1, 1`: a loop of -1 times"),
        ("nop", r"core\(0,2\), the program of 1 bundles goes on at bundle 1"),
        ("jmp 900", r"the program of 1 bundles goes on at bundle 900"),
        ("acq 20, 1", r"cycle \d+, core\(0,2\), bundle 0, `acq 20, 1`: there is no lock 20: the tile has 16"),
        ("rel 3, 64", r"cycle \d+, core\(0,2\), bundle 0, `rel 3, 64`: core\(0,2\)\.lock3 would hold 64"),
    ],
)
def test_bundles_that_cannot_be(program: str, message: str) -> None:
    _fails(lambda s: s.enable(CORE), message, program)


def test_a_core_that_never_comes_to_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparsec.backends.aie.core.core.MOST_BUNDLES", 1000)
    _fails(lambda s: s.enable(CORE), r"cycle \d+, core\(0,2\), bundle 0, `jmp 0`: 1,000 bundles, one by one", "jmp 0")
    huge = "movi r1, 0\nmovh r1, 32767\nloop r1, end\nmace c0, w0, w1, 1\nend:\ndone"
    _fails(lambda s: s.enable(CORE), r"core\(0,2\), bundle 3, `mace c0, w0, w1, 1`: 1,000 bundles", huge)


def test_a_deadlock_says_who_waits_for_what() -> None:
    """The core waits for data that a channel has no lock to bring, the memory tile for DDR, DDR's channel for the memory tile."""

    def build(stream: Stream) -> None:
        stream.enable(CORE)
        stream.task(CORE, IN, 0, 0, CoreDescriptor(0, 16, acquire=Acquire(5), release=Release(1)))
        stream.task(CORE, IN, 1, 1, CoreDescriptor(0, 16))
        stream.task(MEMORY, OUT, 0, 0, MemoryDescriptor(own(0), 16, acquire=acquire(7, 3)))
        stream.task(SHIM, IN, 0, 0, ShimDescriptor(0, 16, (Dim(1),)), token=True, argument=0)
        stream.sync()

    stream = Stream()
    build(stream)
    with pytest.raises(StreamError, match=r"cycle \d+: deadlock") as caught:
        stream.run([DATA.copy()], {CORE: "nop\nacq 1, 2"})
    for part in (
        r"the control stream at operation \d+, `sync ",
        r"core\(0,2\), bundle 1, `acq 1, 2`, for core\(0,2\)\.lock1 to be at least 2 \(holds 0\)",
        r"core\(0,2\)\.s2mm0, descriptor 0 of operation \d+, `write .*`, for core\(0,2\)\.lock5 to be at least 1 \(holds 0\)",
        r"core\(0,2\)\.s2mm1, descriptor 1 of .* with 16 words left, for memory\(0,1\)\.mm2s2",
        r"memory\(0,1\)\.mm2s0, descriptor 0 of .*, for memory\(0,1\)\.lock7 to be at least 3 \(holds 0\)",
        r"shim\(0,0\)\.s2mm0, descriptor 0 of .* with 16 words left, for memory\(0,1\)\.mm2s1",
    ):
        assert re.search(part, str(caught.value)), part


def test_a_channel_without_circuit_waits_for_ever() -> None:
    def build(stream: Stream) -> None:
        stream.task(MEMORY, IN, 5, 24, MemoryDescriptor(own(0), 4), token=True)
        stream.sync(MEMORY, 5)

    _fails(build, r"deadlock.*memory\(0,1\)\.s2mm5, descriptor 24 .* with 4 words left, for a circuit: none begins or ends here")


def test_circuits_that_change_while_words_come_through_them() -> None:
    """Noticed where the next task is started, which is when channels look for their circuits."""

    def build(stream: Stream) -> None:
        written = (op for op in stream.operations if isinstance(op, Write) and split(op.address)[0] == CORE)
        up = next(w for w in written if register_name(Kind.CORE, split(w.address)[1]).startswith("master.north"))
        stream.task(MEMORY, IN, 0, 0, MemoryDescriptor(own(0), 200), token=True)
        stream.task(SHIM, OUT, 0, 0, ShimDescriptor(0, 200), argument=0)
        stream.task(CORE, IN, 0, 0, CoreDescriptor(0, 200))
        stream.task(Tile(0, 3), IN, 0, 0, CoreDescriptor(0, 200))
        stream.sync(MEMORY)
        stream.task(MEMORY, OUT, 0, 1, MemoryDescriptor(own(0), 200))
        stream.operations.append(Write(up.address, 0))
        stream.task(CORE, IN, 1, 1, CoreDescriptor(0, 16))

    _fails(build, r"cycle \d+, operation \d+, .*the circuits of memory\(0,1\)\.mm2s0 have changed while words come through them")


def _good() -> tuple[bytes, bytes]:
    """A control stream and a core's program that work together."""
    stream = Stream()
    stream.enable(CORE)
    stream.task(CORE, IN, 0, 0, CoreDescriptor(0, 64, acquire=Acquire(0), release=Release(1)))
    stream.task(Tile(0, 3), IN, 0, 0, CoreDescriptor(0, 64))
    stream.task(CORE, OUT, 0, 1, CoreDescriptor(256, 16, acquire=Acquire(2)))
    stream.task(MEMORY, IN, 0, 0, MemoryDescriptor(own(0), 64, release=release(0)))
    stream.task(MEMORY, OUT, 0, 1, MemoryDescriptor(own(0), 64, acquire=acquire(0)))
    stream.task(MEMORY, IN, 1, 24, MemoryDescriptor(own(64), 16, release=release(1)))
    stream.task(MEMORY, OUT, 1, 25, MemoryDescriptor(own(64), 16, acquire=acquire(1)))
    stream.task(SHIM, IN, 0, 1, ShimDescriptor(0, 16), token=True, argument=0)
    stream.task(SHIM, OUT, 0, 0, ShimDescriptor(256, 64), argument=0)
    stream.sync()
    program = assemble(
        "rel 0, 1\nacq 1, 1\nmovi r1, 2\nmovi r0, 1024\nmovp p3, r0\n"
        "loop r1, end\na.ldw w0, p1, 32\nstw w0, p3, 32\nend:\nrel 2, 1\ndone"
    )
    return Transaction(GRID, tuple(stream.operations)).encode(), program


@settings(deadline=None, max_examples=100)
@given(st.booleans(), st.integers(0, 10**6), st.integers(0, 7))
@example(True, 70, 0)  # a shift by 1024 places
def test_corrupt_bytes_are_errors_or_other_results(program_too: bool, at: int, bit: int) -> None:
    """One bit of the files flips: the run ends, or says in a sentence what cannot be. Nothing else is raised, nothing hangs."""
    control, program = map(bytearray, _good())
    chosen = program if program_too else control
    chosen[at % len(chosen)] ^= 1 << bit
    data = Words.full("activations", DATA.copy().view(np.uint8))
    try:
        programs = {tile: bytes(program) if tile == CORE else assemble("done") for tile in GRID.cores()}
        simulate(MACHINE, Transaction.decode(bytes(control)), programs, [data], 10**6)
    except SparsecError as exc:
        assert len(str(exc)) > 20


def test_the_good_stream_is_good() -> None:
    """What the corrupt ones are made of: two vectors of DDR, through a core, at its beginning."""
    control, program = _good()
    data = DATA.copy()
    programs = {tile: program if tile == CORE else assemble("done") for tile in GRID.cores()}
    simulate(MACHINE, Transaction.decode(control), programs, [Words.full("activations", data.view(np.uint8))])
    assert np.array_equal(data[:16], DATA[64:80])
