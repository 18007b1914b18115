"""Modules of mlir-aie's dialects: xDSL reads and prints them, and they mean the streams that they were made of."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from io import StringIO
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xdsl.printer import Printer

from models.byte_layer import ByteConv, chain_graph, conv_graph
from sparsec.backends.aie.core.assembly import assemble as assemble_core
from sparsec.backends.aie.descriptor_forms import OWN_WORDS
from sparsec.backends.aie.descriptors import (
    OWN_LOCKS,
    Acquire,
    Axi,
    CoreDescriptor,
    Dim,
    Iteration,
    MemoryDescriptor,
    Release,
    ShimDescriptor,
)
from sparsec.backends.aie.emit import emit
from sparsec.backends.aie.lower.choose import candidates
from sparsec.backends.aie.lower.modes import Cut, modes
from sparsec.backends.aie.lower.network import lower, lower_with
from sparsec.backends.aie.lower.reading import conv_layer
from sparsec.backends.aie.machine import machine_named
from sparsec.backends.aie.mlir import CoreFile, device_number, part_text
from sparsec.backends.aie.registers import NPU1, Direction, Grid, Tile, address, describe, register_address
from sparsec.backends.aie.switch import Channel, Flow, route
from sparsec.backends.aie.transaction import (
    BlockWrite,
    MaskWrite,
    Operation,
    Patch,
    Sync,
    Task,
    Transaction,
    Write,
    start,
    write,
    write_descriptor,
)
from sparsec.compiler.errors import StreamError
from sparsec.compiler.graph import Graph, Port
from tests.backends.aie.mlir_reader import (
    BASES,
    LAYOUT,
    constants,
    misfits,
    named,
    number,
    operations,
    packed,
    parse,
    text_of,
    tile_of,
)
from tests.backends.aie.networks import compile_for

NPU = machine_named("aie2:npu1")
TILES = {"shim": Tile(1, 0), "memory": Tile(1, 1), "core": Tile(1, 3)}
SHIM, MEMORY, CORE = TILES.values()
S2MM, MM2S = Direction.S2MM, Direction.MM2S


def text(made: Sequence[Operation], arguments: Sequence[int] = (64, 256), cores: dict[Tile, CoreFile] | None = None) -> str:
    found = part_text(NPU, Transaction(NPU1, tuple(made)), arguments, cores or {})
    assert found is not None
    return found


def printed(source: str) -> str:
    stream = StringIO()
    Printer(stream, print_generic_format=True).print_op(parse(source))
    return stream.getvalue()


FLOWS = [
    Flow(Channel(SHIM, 0), (Channel(MEMORY, 0),)),
    Flow(Channel(MEMORY, 0), (Channel(CORE, 0),)),
    Flow(Channel(CORE, 0), (Channel(SHIM, 0),)),
]


def tiny() -> list[Operation]:
    """One tensor from DDR through a memory tile into a core and back, with everything that a stream has."""
    blocked = MemoryDescriptor(
        OWN_WORDS,
        32,
        (Dim(1, 2), Dim(8, 4), Dim(2, 4), Dim(32)),
        acquire=Acquire(OWN_LOCKS, 1),
    )
    return [
        *route(NPU1, FLOWS).writes(),
        write(NPU1, CORE, "core.control", 1),
        write(NPU1, MEMORY, "lock0", 0),
        BlockWrite(register_address(NPU1, CORE, "data+0xff00"), (1, 0xFFFFFFFF)),
        write_descriptor(NPU1, CORE, 0, CoreDescriptor(0x100, 32, acquire=Acquire(0), release=Release(1))),
        start(NPU1, CORE, S2MM, 0, Task(0, 2)),
        write_descriptor(NPU1, MEMORY, 0, MemoryDescriptor(OWN_WORDS, 32, release=Release(OWN_LOCKS))),
        start(NPU1, MEMORY, S2MM, 0, Task(0)),
        write_descriptor(NPU1, MEMORY, 1, blocked),
        start(NPU1, MEMORY, MM2S, 0, Task(1)),
        write_descriptor(NPU1, SHIM, 0, ShimDescriptor(0, 32)),
        Patch(register_address(NPU1, SHIM, "bd0.1"), 0, 16),
        start(NPU1, SHIM, MM2S, 0, Task(0)),
        write_descriptor(NPU1, SHIM, 1, ShimDescriptor(0, 32)),
        Patch(register_address(NPU1, SHIM, "bd1.1"), 1),
        start(NPU1, SHIM, S2MM, 0, Task(1, token=True)),
        Sync(SHIM, S2MM, 0),
    ]


def without_switches(made: Sequence[Operation]) -> list[Operation]:
    """All but the writes to switches before the first task starts."""
    starts = (i for i, op in enumerate(made) if isinstance(op, Write) and describe(NPU1, op.address).endswith(".queue"))
    first = next(starts, len(made))
    return [op for i, op in enumerate(made) if i >= first or not _switch(op)]


def _switch(op: Operation) -> bool:
    if isinstance(op, Sync | Patch):
        return False
    offset = op.address & 0xFFFFF
    return (
        0x3F000 <= offset < 0x3F200
        or 0xB0000 <= offset < 0xB0200
        or (offset in (0x1F000, 0x1F004) and op.address >> 20 & 31 == 0)
    )


CORE_FILE = CoreFile("../core.bin", assemble_core("acq 7, 1\nrel 6, 1\ndone\n"))


def test_golden(golden: Callable[[str, str], None]) -> None:
    golden("aie/tiny.mlir", text(tiny(), cores={CORE: CORE_FILE}))


def test_the_published_descriptor_is_packed_as_published() -> None:
    """mlir-aie, test/Targets/NPU/npu_blockwrite_instgen.mlir."""
    given_there = dict.fromkeys(LAYOUT["memory"], 0) | {
        "buffer_length": 1, "buffer_offset": 2, "d0_stride": 5, "d0_size": 6, "d1_stride": 7, "d1_size": 8, "d2_stride": 9,
        "iteration_current": 11, "iteration_stride": 12, "iteration_size": 13, "lock_acq_enable": 1, "lock_acq_id": 1,
        "lock_acq_val": 2, "lock_rel_id": 3, "lock_rel_val": 4, "next_bd": 5, "use_next_bd": 1, "valid_bd": 1,
    }  # fmt: skip
    words = (0x00000001, 0x00580002, 0x000C0005, 0x00100007, 0x00000009, 0x00000000, 0x059A000C, 0x84038201)
    assert packed("memory", given_there) == words
    module = parse(text([BlockWrite(0x061A00C0, words)]))
    (op,) = named(module, "aiex.npu.writebd")
    assert {name: number(op, name) for name in given_there} == given_there
    assert [number(op, name) for name in ("column", "row", "bd_id")] == [3, 1, 6]


@pytest.mark.parametrize(
    ("tile", "lock", "offset"),
    [(Tile(2, 2), 0, 126976), (Tile(2, 2), 15, 127216), (MEMORY, 3, 786480), (MEMORY, 56, 787328), (Tile(0, 0), 5, 82000)],
)
def test_published_lock_addresses(tile: Tile, lock: int, offset: int) -> None:
    """mlir-aie's test of its pass aie-lower-set-lock."""
    (op,) = named(parse(text([Write(address(tile, offset), 1)])), "aiex.set_lock")
    (made,) = named(parse(text([Write(address(tile, offset), 1)])), "aie.lock")
    assert (tile_of(made.operands[0]), number(made, "lockID"), number(op, "value")) == (tile, lock, 1)


@pytest.mark.parametrize(
    ("column", "offset", "value", "attributes", "repeat", "bd"),
    [
        (0, 119308, 2147483651, {"direction": 0, "channel": 1, "issue_token": -1}, 0, 3),
        (2, 119316, 196610, {"direction": 1, "channel": 0, "issue_token": 0}, 3, 2),
    ],
)
def test_published_queue_words(column: int, offset: int, value: int, attributes: dict[str, int], repeat: int, bd: int) -> None:
    """mlir-aie, test/Conversion/DmaToNpu/push_to_queue.mlir; xDSL reads a true i1 as -1."""
    (op,) = named(parse(text([Write(address(Tile(column, 0), offset), value)])), "aiex.npu.push_queue")
    assert {name: number(op, name) for name in attributes} == attributes
    assert (number(op, "column"), number(op, "row"), *constants(op)) == (column, 0, repeat, bd)


def test_published_addresses_and_sync() -> None:
    """mlir-aie, test/Targets/NPU/npu_instgen.mlir."""
    sync = Transaction.decode(Transaction(NPU1, (Sync(Tile(3, 4), MM2S, 5, 1, 2),)).encode())
    assert sync.operations[0].words()[2:] == (0x00030401, 0x05010200)
    module = parse(text([Write(0x06400DEF, 0x42), MaskWrite(0x0430567A, 0x1001, 0xF00FF00F), *sync.operations]))
    (write32,), (mask,) = named(module, "aiex.npu.write32"), named(module, "aiex.npu.maskwrite32")
    assert (number(write32, "column"), number(write32, "row"), *constants(write32)) == (3, 4, 0xDEF, 0x42)
    assert (number(mask, "column"), number(mask, "row"), *constants(mask)) == (2, 3, 0x567A, 0x1001, 0xF00FF00F)
    assert constants(named(module, "aiex.npu.sync")[0]) == [3, 4, 1, 5, 1, 2]


@pytest.mark.parametrize("source", [text(tiny(), cores={CORE: CORE_FILE}), text([])])
def test_xdsl_prints_back_an_equal_module(source: str) -> None:
    assert parse(source).is_structurally_equivalent(parse(printed(source)))


def test_operations_are_those_of_the_dialects() -> None:
    module = parse(text(tiny(), cores={CORE: CORE_FILE}))
    assert not list(misfits(module))


def test_the_sequence_means_the_stream() -> None:
    assert operations(parse(text(tiny()))) == without_switches(tiny())


@st.composite
def descriptor_writes(draw: st.DrawFn) -> BlockWrite:
    """A block where descriptors are: what aiex.npu.writebd can write, or any words."""
    kind = draw(st.sampled_from(list(TILES)))
    number = draw(st.integers(0, 15))
    at = TILES[kind].column << 25 | TILES[kind].row << 20 | BASES[kind] + 0x20 * number
    if draw(st.booleans()):
        size = draw(st.sampled_from([1, 6, 8]))
        return BlockWrite(at, tuple(draw(st.lists(st.integers(0, 2**32 - 1), min_size=size, max_size=size))))
    attributes = {name: draw(st.integers(0, 2**bits - 1)) for name, (_, _, bits) in LAYOUT[kind].items()}
    attributes["buffer_offset"] *= 4 if kind == "core" else 1
    attributes["buffer_offset"] &= ~3 if kind == "shim" else -1
    return BlockWrite(at, packed(kind, attributes | {"burst_length": draw(st.sampled_from([64, 128, 256]))}))


def other_operations() -> st.SearchStrategy[Operation]:
    words = st.integers(0, 2**32 - 1)
    names = st.sampled_from(["lock3", "mm2s1.queue", "s2mm0.queue", "mm2s0.ctrl", "bd2.1"])
    addresses = st.builds(lambda t, n: register_address(NPU1, t, n), st.sampled_from(list(TILES.values())), names)
    # columns from 4 on are outside of the array: such an address is written as a whole
    addresses |= st.builds(lambda c, r, o: c << 25 | r << 20 | o << 2, st.integers(0, 127), st.integers(0, 31), st.just(0x4000))
    bytes_ = st.integers(0, 255)
    return st.one_of(
        st.builds(Write, addresses, words | st.integers(0, 63)),
        st.builds(MaskWrite, addresses, words, words),
        st.builds(BlockWrite, addresses, st.lists(words, min_size=1, max_size=4).map(tuple)),
        st.builds(Sync, st.sampled_from(list(TILES.values())), st.sampled_from(Direction), bytes_, bytes_, bytes_),
        st.builds(Patch, addresses, st.integers(0, 1), words),
    )


@settings(max_examples=40)
@given(st.lists(descriptor_writes() | other_operations(), max_size=6))
def test_any_sequence_means_its_stream(made: list[Operation]) -> None:
    module = parse(text(made))
    assert operations(module) == made
    assert not list(misfits(module))


def test_descriptors_that_can_be_are_written_as_such() -> None:
    plain = [
        write_descriptor(NPU1, CORE, 3, CoreDescriptor(0x40, 9, (Dim(2, 3), Dim(7, 3), Dim(5)), Iteration(8, 4, 1))),
        write_descriptor(NPU1, MEMORY, 3, MemoryDescriptor(OWN_WORDS, 9, (Dim(2, 3), Dim(7, 3), Dim(5)))),
        write_descriptor(NPU1, SHIM, 3, ShimDescriptor(64, 9, axi=Axi(burst=0))),
    ]
    beyond = [
        write_descriptor(NPU1, CORE, 3, CoreDescriptor(0, 9, compression=True)),
        write_descriptor(NPU1, MEMORY, 3, MemoryDescriptor(OWN_WORDS, 8, (Dim(1, 2), Dim(2, 2), Dim(4, 2)))),
        write_descriptor(NPU1, MEMORY, 3, MemoryDescriptor(OWN_WORDS, 8, (Dim(1, 2), Dim(2, 2), Dim(4), Dim(9)))),
        write_descriptor(NPU1, SHIM, 3, ShimDescriptor(64, 9, axi=Axi(cache=3))),
        write_descriptor(NPU1, SHIM, 3, ShimDescriptor(1 << 40, 9)),
    ]
    module = parse(text([*plain, *beyond]))
    assert len(named(module, "aiex.npu.writebd")) == len(plain)
    assert len(named(module, "aiex.npu.blockwrite")) == len(beyond)
    core = named(module, "aiex.npu.writebd")[0]
    assert {n: number(core, n) for n in ("buffer_offset", "d0_stride", "d0_size", "iteration_size", "iteration_stride")} == {
        "buffer_offset": 0x100, "d0_stride": 1, "d0_size": 3, "iteration_size": 3, "iteration_stride": 7,
    }  # fmt: skip


def test_flows_are_the_circuits() -> None:
    module = parse(text(tiny()))
    flows = {
        (tile_of(op.operands[0]), number(op, "source_channel"), tile_of(op.operands[1]), number(op, "dest_channel"))
        for op in named(module, "aie.flow")
    }
    assert flows == {(SHIM, 0, MEMORY, 0), (MEMORY, 0, CORE, 0), (CORE, 0, SHIM, 0)}
    assert all(number(op, f"{end}_bundle") == 1 for op in named(module, "aie.flow") for end in ("source", "dest"))


def test_a_stream_that_changes_circuits_has_the_switches_of_the_start() -> None:
    """Ports by mlir-aie's WireBundle: DMA 1, South 3, West 4, North 5, East 6."""
    later: list[Operation] = [write(NPU1, CORE, "master.dma0", 0), MaskWrite(register_address(NPU1, SHIM, "mux"), 0, 0xC00)]
    module = parse(text([*tiny(), *later]))
    assert not list(misfits(module)) and not named(module, "aie.flow")
    bundles = {1: "dma", 3: "south", 4: "west", 5: "north", 6: "east"}
    found = {
        kind: {
            (
                tile_of(op.operands[0]),
                f"{bundles[number(c, 'source_bundle')]}{number(c, 'source_channel')}",
                f"{bundles[number(c, 'dest_bundle')]}{number(c, 'dest_channel')}",
            )
            for op in named(module, kind)
            for c in op.regions[0].block.ops
            if c.properties
        }
        for kind in ("aie.switchbox", "aie.shim_mux")
    }
    connections = {(c.tile, str(c.slave), str(c.master)) for r in route(NPU1, FLOWS).routes for c in r.connections}
    assert found["aie.switchbox"] == connections
    assert found["aie.shim_mux"] == {(SHIM, "dma0", "north3"), (SHIM, "north2", "dma0")}
    assert operations(module) == [*without_switches(tiny()), *later]


def test_a_broadcast_is_a_flow_to_each_end() -> None:
    ends = tuple(Channel(Tile(c, 2), 1) for c in range(4))
    module = parse(text(route(NPU1, [Flow(Channel(Tile(0, 1), 1), ends)]).writes()))
    assert [tile_of(op.operands[1]) for op in named(module, "aie.flow")] == [c.tile for c in ends]
    assert not operations(module)


def test_locks_of_the_stream_of_descriptors_and_of_cores() -> None:
    module = parse(text([*tiny(), write(NPU1, SHIM, "lock4", 3)], cores={Tile(2, 4): CORE_FILE}))
    locks = {(tile_of(op.operands[0]), number(op, "lockID")) for op in named(module, "aie.lock")}
    assert locks == {(MEMORY, 0), (CORE, 0), (CORE, 1), (SHIM, 4), (Tile(2, 4), 7), (Tile(2, 4), 6)}


def test_a_neighbours_locks_and_memory() -> None:
    made = MemoryDescriptor(2 * OWN_WORDS - 8, 16, acquire=Acquire(3), release=Release(2 * OWN_LOCKS + 5))
    module = parse(text([write_descriptor(NPU1, MEMORY, 0, made)]))
    locks = {(tile_of(op.operands[0]), number(op, "lockID")) for op in named(module, "aie.lock")}
    assert locks == {(Tile(0, 1), 3), (Tile(2, 1), 5)}
    assert buffers(text([write_descriptor(NPU1, MEMORY, 0, made)])) == [
        (MEMORY, 4 * (OWN_WORDS - 8), 8),
        (Tile(2, 1), 0, 8),
    ]


def buffers(source: str) -> list[tuple[Tile, int, int]]:
    """Tile, first byte and words of every buffer."""
    return [
        (tile_of(op.operands[0]), number(op, "address"), int(str(op.results[0].type)[len("memref<") :].partition("x")[0]))
        for op in named(parse(source), "aie.buffer")
    ]


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(st.integers(0, 400), st.integers(1, 40), st.integers(1, 5), st.integers(1, 4), st.integers(1, 9)),
        min_size=1,
        max_size=5,
    )
)
def test_buffers_are_disjoint_and_hold_what_descriptors_walk(walks: list[tuple[int, int, int, int, int]]) -> None:
    made = [
        CoreDescriptor(base, length, (Dim(1, wrap), Dim(step)), Iteration(3, times)) for base, length, wrap, times, step in walks
    ]
    found = buffers(text([write_descriptor(NPU1, CORE, i, d) for i, d in enumerate(made)]))
    ranges = sorted((at // 4, at // 4 + words) for _, at, words in found)
    assert all(end <= first for (_, end), (first, _) in pairwise(ranges))
    for d in made:
        for _ in range(d.iteration.wrap):
            walked = d.addresses()
            assert any(first <= walked.min() and walked.max() < end for first, end in ranges)
            d = d.advanced()


def test_a_core_descriptor_that_leads_out_of_its_memory_is_one_range() -> None:
    """Words beyond what a memory tile has, which would be a neighbour's there."""
    far = CoreDescriptor(0, 100, (Dim(1, 4), Dim(8191)), Iteration())
    assert int(far.offsets().max()) > OWN_WORDS
    assert [words for _, _, words in buffers(text([write_descriptor(NPU1, CORE, 0, far)]))] == [int(far.offsets().max()) + 1]


@pytest.mark.parametrize(
    ("name", "device"),
    [("aie2:npu1", 4), ("aie2:2x2", 6), ("aie2:3x3", 7), ("aie2:4x4", 4), ("aie2:5x5", None), ("aie2:ve2802", 3)],
)
def test_devices(name: str, device: int | None) -> None:
    machine = machine_named(name)
    assert device_number(machine) == device
    grid = Grid(machine.columns, machine.rows, machine.memory_rows, machine.shim.columns)
    made = part_text(machine, Transaction(grid, ()), (4,), {})
    assert (made is None) == (device is None)
    if made is not None:
        (op,) = named(parse(made), "aie.device")
        assert (number(op, "device"), text_of(op, "sym_name")) == (device, "main")


def test_a_file_name_is_quoted() -> None:
    source = text([], cores={CORE: CoreFile('a "b" \\é', CORE_FILE.bundles)})
    assert 'elf_file = "a \\22b\\22 \\5C\\C3\\A9"' in source
    assert parse(source).is_structurally_equivalent(parse(printed(source)))


def test_an_argument_that_is_not_given() -> None:
    with pytest.raises(StreamError, match="the control stream asks for argument 1: there are 1"):
        text(tiny(), arguments=(64,))


def two_layers() -> Graph:
    """A 3 x 3 convolution with stride 2, and a block-sparse product of what it makes."""
    rng = np.random.default_rng(5)
    first = conv_graph(rng, (8, 16), (24, 20), (3, 3), stride=2, pads=(1, 1, 1, 1))
    second = conv_graph(rng, (16, 64), (12, 10), density=0.5)
    names = {"x": "y", "w": "w2", "b": "b2", "y": "z"}
    node = replace(second.nodes[0], name="second", inputs=("y", "w2", "b2"), outputs=("z",))
    types = {**first.types, **{names[v]: t for v, t in second.types.items()}}
    constants = {**first.constants, **{names[v]: c for v, c in second.constants.items()}}
    return Graph("two", ("x",), (Port("z", "z"),), (*first.nodes, node), types, constants)


def check_module(files: Mapping[str, bytes]) -> None:
    """The module of the only part says its stream, is one that xDSL prints back, and names the cores' files."""
    (part,) = json.loads(files["manifest.json"])["parts"]
    source = files[part["mlir"]].decode()
    module = parse(source)
    made = Transaction.decode(files[part["control"]]).operations
    rewired = list(named(module, "aie.switchbox"))  # else flows say all that switches are ever set to
    assert operations(module) == (without_switches(made) if rewired else [op for op in made if not _switch(op)])
    assert not list(misfits(module))
    assert module.is_structurally_equivalent(parse(printed(source)))
    cores = {tile_of(op.operands[0]): text_of(op, "elf_file") for op in named(module, "aie.core")}
    folder = posixpath.dirname(part["mlir"])
    assert {posixpath.normpath(f"{folder}/{file}") for file in cores.values()} == {f for f in files if f.startswith("core_")}


def test_a_compiled_network() -> None:
    check_module(emit(compile_for(two_layers(), "aie2:2x2")))


@pytest.mark.parametrize("cut", [Cut.PAIRS, Cut.HALVES], ids=lambda c: c.name)
def test_residuals_that_come_with_weights(cut: Cut) -> None:
    """A stream for each core, and one of data for all of a column."""
    npu = machine_named("aie2:npu1")
    plain, own = (next(m for m in modes(npu.grid) if m.cut is cut and m.own is own) for own in (False, True))
    convs = [ByteConv(0, 64), ByteConv(1, 64), ByteConv(2, 64, residual=1)]
    graph = chain_graph(np.random.default_rng(4), 64, (4 * own.position_parts, 9), convs)
    ways = {}
    for node, mode in zip(graph.nodes, (plain, plain, own), strict=True):
        layer = conv_layer(graph, node)
        assert not isinstance(layer, str)
        ways[node.name] = next(t for t in candidates(npu, layer, (mode,), *graph.types[layer.y].shape[2:]) if t.rows == 2)
    check_module(emit(lower_with(graph, npu, ways)))


def test_an_array_that_mlir_aie_does_not_know() -> None:
    graph = conv_graph(np.random.default_rng(1), (8, 8), (6, 6))
    files = emit(lower(graph, machine_named("aie2:5x5")))
    assert not any(f.endswith(".mlir") for f in files)
    assert [p["mlir"] for p in json.loads(files["manifest.json"])["parts"]] == [None]
