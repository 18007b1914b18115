import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsec.backends.aie.descriptors import Acquire, CoreDescriptor, Dim, MemoryDescriptor, Release, ShimDescriptor
from sparsec.backends.aie.registers import NPU1, Direction, Grid, Kind, Tile, address
from sparsec.backends.aie.transaction import (
    BlockWrite,
    MaskWrite,
    Operation,
    Patch,
    Sync,
    Task,
    Transaction,
    Write,
    assemble,
    descriptor_at,
    start,
    task_of,
    write,
    write_descriptor,
)
from sparsec.compiler.errors import FitError, StreamError, UsageError

HEADER = (0x06030001, 0x00000104)  # npu1: six rows, generation 3, version 1.0; one row of memory tiles, four columns


def packed(*words: int) -> bytes:
    """A transaction for npu1 of so many operations and their words."""
    count, *rest = words
    return struct.pack(f"<{4 + len(rest)}I", *HEADER, count, 16 + 4 * len(rest), *rest)


ONE_OF_EACH: list[tuple[Operation, tuple[int, ...], str]] = [
    (Write(0x0021F030, 5), (0x00, 0x0021F030, 5), "write core(0,2).lock3 0x00000005"),
    (
        BlockWrite(0x02000000 | 0x1D024, (0x10, 0x20)),
        (0x01, 0x0201D024, 20, 0x10, 0x20),
        "block shim(1,0).bd1.1 0x00000010 0x00000020",
    ),
    (MaskWrite(0x0401F000, 0x400, 0xC00), (0x03, 0x0401F000, 0x400, 0xC00), "mask shim(2,0).mux 0x00000400 0x00000c00"),
    (Sync(Tile(2, 0), Direction.S2MM, 1), (0x80, 16, 0x00020000, 0x01010100), "sync shim(2,0).s2mm1 1x1"),
    (
        Sync(Tile(1, 1), Direction.MM2S, 5, columns=3, rows=2),
        (0x80, 16, 0x00010101, 0x05030200),
        "sync memory(1,1).mm2s5 3x2",
    ),
    (Patch(0x0001D044, 2, 4096), (0x81, 24, 0x0001D044, 2, 4096, 0), "patch shim(0,0).bd2.1 argument 2 offset 4096"),
]


@pytest.mark.parametrize(("operation", "words", "text"), ONE_OF_EACH)
def test_operations_by_hand(operation: Operation, words: tuple[int, ...], text: str) -> None:
    made = Transaction(NPU1, (operation,))
    assert made.encode() == packed(1, *words)
    assert Transaction.decode(packed(1, *words)) == made
    assert made.text().splitlines() == ["npu 1.0 generation 3 columns 4 rows 4 memory 1", text]


def test_many_operations_follow_each_other() -> None:
    made = Transaction(NPU1, tuple(o for o, _, _ in ONE_OF_EACH))
    assert made.encode() == packed(len(ONE_OF_EACH), *(w for _, words, _ in ONE_OF_EACH for w in words))
    assert assemble(made.text()).encode() == made.encode()


def test_what_mlir_aie_writes_for_an_output_of_a_matrix_product_is_read() -> None:
    data = packed(
        *(6, 0x01, 0x0001D000, 0x2C, 0x400, 0, 0, 0x00800000, 0x8400000F, 0x1F, 0x001003FF, 0x02000000),
        *(0x81, 0x18, 0x0001D004, 2, 0, 0),
        *(0x03, 0x0001D200, 0xF00, 0xF00),
        *(0x00, 0x0001D204, 0x80010000),
        *(0x00, 0x0001D21C, 0x00000002),
        *(0x80, 0x10, 0x00030000, 0x00010100),
    )
    made = Transaction.decode(data)
    assert made.encode() == data
    assert made.text().splitlines()[1:] == [
        "block shim(0,0).bd0 0x00000400 0x00000000 0x00000000 0x00800000 0x8400000f 0x0000001f 0x001003ff 0x02000000"
        " ; base 0x0, length 1024, d0 8x1, d1 64x16, d2 -x32, iteration 0 of 2x1024",
        "patch shim(0,0).bd0.1 argument 2 offset 0",
        "mask shim(0,0).s2mm0.ctrl 0x00000f00 0x00000f00",
        "write shim(0,0).s2mm0.queue 0x80010000 ; start bd0, 2 times, token",
        "write shim(0,0).mm2s1.queue 0x00000002 ; start bd2",
        "sync shim(3,0).s2mm0 1x1",
    ]


words = st.integers(0, (1 << 32) - 1)
addresses = st.one_of(
    words.map(lambda w: w & ~3),
    st.builds(lambda t, o: address(t, o & ~3), st.sampled_from(sorted(NPU1.tiles())), st.integers(0, (1 << 20) - 1)),
)
bytes_ = st.integers(0, 255)
operations = st.one_of(
    st.builds(Write, addresses, words),
    st.builds(BlockWrite, addresses, st.lists(words, min_size=1, max_size=9).map(tuple)),
    st.builds(MaskWrite, addresses, words, words),
    st.builds(Sync, st.builds(Tile, bytes_, bytes_), st.sampled_from(Direction), bytes_, bytes_, bytes_),
    st.builds(Patch, addresses, words, words),
)
transactions = st.builds(
    Transaction, st.sampled_from([NPU1, Grid(2, 2), Grid(38, 8, 2)]), st.lists(operations, max_size=8).map(tuple), bytes_
)


@given(transactions)
def test_bytes_and_text_are_read_back(made: Transaction) -> None:
    data = made.encode()
    assert Transaction.decode(data) == made
    assert assemble(made.text()).encode() == data


@given(transactions, st.data())
def test_a_truncated_file_is_refused(made: Transaction, data: st.DataObject) -> None:
    whole = made.encode()
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(StreamError):
        Transaction.decode(whole[:cut])


@given(transactions, st.data())
def test_a_truncated_file_that_says_so_is_refused_too(made: Transaction, data: st.DataObject) -> None:
    whole = made.encode()
    cut = data.draw(st.integers(4, len(whole) // 4)) * 4
    short = whole[:12] + struct.pack("<I", cut) + whole[16:cut]
    if cut == len(whole):
        assert Transaction.decode(short) == made
        return
    with pytest.raises(StreamError, match="at byte"):
        Transaction.decode(short)


@given(st.binary(max_size=120))
def test_no_bytes_end_in_another_error(data: bytes) -> None:
    for bytes_given in (data, packed(1)[:12] + struct.pack("<I", 16 + len(data)) + data):
        with suppress(StreamError):
            assert Transaction.decode(bytes_given).encode() == bytes_given


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "a transaction of 0 bytes is truncated"),
        (packed(0)[:-1], "15 bytes is truncated: expected a header of 16 and whole words"),
        (packed(0) + bytes(4), "at byte 12: the transaction says that it has 16 bytes, and there are 20"),
        (packed(2, 0x00, 0, 0), "at byte 8: the transaction says that it has 2 operations, and there are 1"),
        (packed(2, 0x00, 0, 0, 0x02, 0, 0), "at byte 28: there is no operation 0x2"),
        (packed(2, 0x00, 0, 0, 0x00, 0), "at byte 28: the write is truncated: it has 3 words, and 2 are left"),
        (packed(1, 0x01, 0, 24, 1, 2), "at byte 16: the block is truncated: it has 6 words, and 5 are left"),
        (packed(1, 0x01, 0, 12), "at byte 16: the block has 12 bytes: expected 16 or more"),
        (packed(1, 0x01, 0, 18, 1), "at byte 16: the block has 18 bytes"),
        (packed(1, 0x00, 2, 0), "at byte 16: 0x00000002 is not the address of a word"),
        (packed(1, 0x80, 12, 0, 0), "at byte 16: the sync has words 0xc .*: expected size 16"),
        (packed(1, 0x80, 16, 2, 0), "at byte 16: the sync has words .*: expected size 16, direction 0 or 1 and no other bits"),
        (packed(1, 0x80, 16, 0, 1), "at byte 16: the sync"),
        (packed(1, 0x81, 20, 0, 0, 0, 0), "at byte 16: the patch has size 20"),
        (packed(1, 0x81, 24, 0, 0, 0, 7), "at byte 16: the patch has size 24 and last word 0x7"),
        (struct.pack("<4I", 0x06030100, 0x0104, 0, 16), r"at byte 0: the transaction has version 0\.1: expected 1\.0"),
        (struct.pack("<4I", 0x06030001, 0x0504, 0, 16), "at byte 0: an array of 4 columns .* has no cores"),
        (struct.pack("<4I", 0x06030001, 0x0100, 0, 16), "at byte 0: an array of 0 columns"),
        (struct.pack("<4I", 0x06030001, 0x10104, 0, 16), "at byte 4: bits 0x10000 are set"),
    ],
)
def test_bytes_that_are_no_transaction(data: bytes, message: str) -> None:
    with pytest.raises(StreamError, match=message):
        Transaction.decode(data)


HEAD = "npu 1.0 generation 3 columns 4 rows 4 memory 1\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("; nothing\n\n", "the text has no line 'npu 1.0"),
        ("write core(0,2).lock0 0x1\n", "line 1: expected 'npu 1.0 generation G columns C rows R memory M'"),
        ("npu 0.1 generation 3 columns 4 rows 4 memory 1", r"line 1: version 0\.1"),
        (HEAD + "\nmove core(0,2).lock0 0x1", "line 3: there is no operation 'move': expected one of write, block"),
        (HEAD + "write core(0,2).lock0", "line 2: expected 'write ADDRESS VALUE'"),
        (HEAD + "write", "line 2: expected 'write ADDRESS VALUE'"),
        (HEAD + "write core(0,2).lock0 five", "line 2: expected 'write ADDRESS VALUE'"),
        (HEAD + "write core(0,2).lock0 4294967296", "line 2: operation 0 .write.: its numbers are to be words"),
        (HEAD + "write core(0,9).lock0 1", r"line 2: there is no tile \(0,9\)"),
        (HEAD + "write core(0,2).data+0x2 1", "line 2: .* is not the address of a word"),
        (HEAD + "block core(0,2).bd0", "line 2: expected 'block ADDRESS VALUE...'"),
        (HEAD + "mask core(0,2).bd0 1", "line 2: expected 'mask ADDRESS VALUE MASK'"),
        (HEAD + "sync core(0,1).s2mm0 1x1", r"line 2: tile \(0,1\) is a memory tile"),
        (HEAD + "sync shim(0,0).s2mm256 1x1", "line 2: operation 0 .sync.: .* are to be below 256"),
        (HEAD + "patch shim(0,0).bd0.1 argument 1", "line 2: expected 'patch ADDRESS argument N offset BYTES'"),
    ],
)
def test_text_that_means_no_transaction(text: str, message: str) -> None:
    with pytest.raises(StreamError, match=message):
        assemble(text)


def test_numbers_that_have_no_place() -> None:
    for operation, message in (
        (Write(0x20, 1 << 32), "its numbers are to be words"),
        (Write(0x22, 0), "0x22 is not the address of a word"),
        (BlockWrite(0x20, ()), "there are no words to write"),
        (Sync(Tile(0, 0), Direction.S2MM, 0, columns=256), "are to be below 256"),
    ):
        with pytest.raises(UsageError, match=f"operation 1 .*{message}"):
            Transaction(NPU1, (Write(0, 0), operation)).encode()


def test_descriptors_and_tasks_are_spelled_out_in_remarks() -> None:
    core = CoreDescriptor(64, 256, (Dim(1, 8), Dim(16)), acquire=Acquire(0), release=Release(1), next=1)
    made = Transaction(
        NPU1,
        (
            write_descriptor(NPU1, Tile(0, 2), 3, core),
            start(NPU1, Tile(0, 2), Direction.MM2S, 1, Task(3, 7, True)),
            write(NPU1, Tile(0, 2), "lock2", 1),
            BlockWrite(address(Tile(0, 2), 0x1D000), (0xFFFFFFFF,) * 6),
        ),
    )
    lines = made.text().splitlines()[1:]
    assert lines[0].endswith(" ; base 0x40, length 256, d0 8x1, d1 -x16, acquire 0 >= 1, release 1 +1, next 1")
    assert lines[1] == "write core(0,2).mm2s1.queue 0x80060003 ; start bd3, 7 times, token"
    assert all(";" not in line for line in lines[2:])
    assert assemble(made.text()) == made


def test_tasks_are_stored_with_repeats_less_one() -> None:
    memory = start(NPU1, Tile(1, 1), Direction.S2MM, 1, Task(47))
    assert (memory.address, memory.value) == (0x021A060C, 47)
    assert start(NPU1, Tile(0, 0), Direction.MM2S, 1, Task(15, 256)).value == 0x00FF000F
    for task in (Task(0), Task(5, 256, True), Task(15, 3)):
        assert task_of(Kind.CORE, start(NPU1, Tile(0, 2), Direction.S2MM, 0, task).value) == task
    with pytest.raises(StreamError, match="bits 0x10 set, which nothing reads"):
        task_of(Kind.CORE, 0x10)


def test_tasks_and_descriptors_that_do_not_fit() -> None:
    with pytest.raises(FitError, match="257 repeats, the bound is 1 to 256; queue several tasks"):
        start(NPU1, Tile(0, 2), Direction.S2MM, 0, Task(0, 257))
    with pytest.raises(FitError, match="descriptor 24, the bound is descriptors 0 to 23"):
        start(NPU1, Tile(0, 1), Direction.S2MM, 0, Task(24))
    with pytest.raises(FitError, match="descriptor 16, the bound is 16 descriptors, from 0; reuse"):
        write_descriptor(NPU1, Tile(0, 2), 16, CoreDescriptor(0, 1))
    with pytest.raises(UsageError, match=r"tile \(0,1\) is a memory tile: it cannot hold a shim descriptor"):
        write_descriptor(NPU1, Tile(0, 1), 0, ShimDescriptor(0, 1))


def test_descriptors_are_found_by_their_first_word() -> None:
    block = write_descriptor(NPU1, Tile(1, 1), 47, MemoryDescriptor(0, 1))
    assert descriptor_at(NPU1, block.address) == (Tile(1, 1), 47)
    assert descriptor_at(NPU1, block.address + 4) is None
    assert descriptor_at(NPU1, block.address + 32) is None
    assert descriptor_at(Grid(1, 1), block.address) is None
