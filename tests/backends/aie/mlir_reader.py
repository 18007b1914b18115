"""Modules of mlir-aie's dialects read by xDSL: what operations look like there, and which control stream they mean.

`FORMS` and the words of `packed` were written down from mlir-aie's AIEOps.td, AIEX.td and AIEDmaToNpu.cpp (development of
version 1.4, 2026), apart from the code that writes modules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.arith import Arith, ConstantOp
from xdsl.dialects.builtin import Builtin, DenseIntOrFPElementsAttr, IntegerAttr, ModuleOp, StringAttr, UnregisteredOp
from xdsl.dialects.memref import GetGlobalOp, GlobalOp, MemRef
from xdsl.ir import Operation as IrOperation
from xdsl.ir import OpResult, SSAValue
from xdsl.parser import Parser

from sparsec.backends.aie.registers import Direction, Tile
from sparsec.backends.aie.transaction import BlockWrite, MaskWrite, Operation, Patch, Sync, Write

WORD = 1 << 32


@dataclass(frozen=True)
class Form:
    """An operation: its operands' types, its attributes' types by name (optional ones with ?), result, regions."""

    operands: tuple[str, ...] = ()
    attributes: str = ""
    result: str | None = None
    regions: int = 0


_PLACE = " column?:i32 row?:i32"
_BD = """
    column bd_id buffer_length buffer_offset enable_packet out_of_order_id packet_id packet_type d0_size d0_stride d1_size
    d1_stride d2_size d2_stride iteration_current iteration_size iteration_stride next_bd row use_next_bd valid_bd lock_rel_val
    lock_rel_id lock_acq_enable lock_acq_val lock_acq_id d0_zero_before d1_zero_before d2_zero_before d0_zero_after d1_zero_after
    d2_zero_after burst_length?
"""
FORMS = {
    "aie.device": Form((), "device:i32 sym_name:string", None, 1),
    "aie.tile": Form((), "col:i32 row:i32", "index"),
    "aie.lock": Form(("index",), "lockID:i32 init:i32", "index"),
    "aie.buffer": Form(("index",), "sym_name:string address:i32", "memref"),
    "aie.flow": Form(("index", "index"), "source_bundle:i32 source_channel:i32 dest_bundle:i32 dest_channel:i32"),
    "aie.switchbox": Form(("index",), "", "index", 1),
    "aie.shim_mux": Form(("index",), "", "index", 1),
    "aie.connect": Form((), "source_bundle:i32 source_channel:i32 dest_bundle:i32 dest_channel:i32"),
    "aie.core": Form(("index",), "elf_file:string", "index", 1),
    "aie.end": Form(),
    "aie.runtime_sequence": Form((), "sym_name:string", None, 1),
    "aiex.set_lock": Form(("index",), "value:i32"),
    "aiex.npu.write32": Form(("i32", "i32"), _PLACE),
    "aiex.npu.maskwrite32": Form(("i32", "i32", "i32"), _PLACE),
    "aiex.npu.blockwrite": Form(("memref",), "address:ui32" + _PLACE),
    "aiex.npu.sync": Form(("i32",) * 6),
    "aiex.npu.address_patch": Form(("i32",), "addr:ui32 arg_idx:i32"),
    "aiex.npu.push_queue": Form(("i32", "i32"), "column:i32 row:i32 direction:i32 channel:i32 issue_token:i1"),
    "aiex.npu.writebd": Form((), " ".join(f"{name}:i32" for name in _BD.split())),
}

# Which bits of which word an attribute of aiex.npu.writebd fills: (word, lowest bit, bits).
_LOCKS_LOW = {
    "next_bd": (27, 4),
    "use_next_bd": (26, 1),
    "valid_bd": (25, 1),
    "lock_rel_val": (18, 7),
    "lock_rel_id": (13, 4),
    "lock_acq_enable": (12, 1),
    "lock_acq_val": (5, 7),
    "lock_acq_id": (0, 4),
}
_PACKET_LOW = {"enable_packet": (30, 1), "out_of_order_id": (24, 6), "packet_id": (19, 5), "packet_type": (16, 3)}
LAYOUT: Mapping[str, Mapping[str, tuple[int, int, int]]] = {
    "shim": {
        "buffer_length": (0, 0, 32),
        "buffer_offset": (1, 0, 32),
        **{k: (2, *v) for k, v in _PACKET_LOW.items()},
        "d0_size": (3, 20, 10),
        "d0_stride": (3, 0, 20),
        "d1_size": (4, 20, 10),
        "d1_stride": (4, 0, 20),
        "d2_stride": (5, 0, 20),
        "iteration_current": (6, 26, 6),
        "iteration_size": (6, 20, 6),
        "iteration_stride": (6, 0, 20),
        **{k: (7, *v) for k, v in _LOCKS_LOW.items()},
    },
    "memory": {
        "enable_packet": (0, 31, 1),
        "packet_type": (0, 28, 3),
        "packet_id": (0, 23, 5),
        "out_of_order_id": (0, 17, 6),
        "buffer_length": (0, 0, 17),
        "d0_zero_before": (1, 26, 6),
        "next_bd": (1, 20, 6),
        "use_next_bd": (1, 19, 1),
        "buffer_offset": (1, 0, 19),
        "d0_size": (2, 17, 10),
        "d0_stride": (2, 0, 17),
        "d1_zero_before": (3, 27, 5),
        "d1_size": (3, 17, 10),
        "d1_stride": (3, 0, 17),
        "d2_zero_before": (4, 27, 4),
        "d2_stride": (4, 0, 17),
        "d2_zero_after": (5, 28, 4),
        "d1_zero_after": (5, 23, 5),
        "d0_zero_after": (5, 17, 6),
        "iteration_current": (6, 23, 6),
        "iteration_size": (6, 17, 6),
        "iteration_stride": (6, 0, 17),
        "valid_bd": (7, 31, 1),
        "lock_rel_val": (7, 24, 7),
        "lock_rel_id": (7, 16, 8),
        "lock_acq_enable": (7, 15, 1),
        "lock_acq_val": (7, 8, 7),
        "lock_acq_id": (7, 0, 8),
    },
    "core": {
        "buffer_offset": (0, 14, 14),
        "buffer_length": (0, 0, 14),
        **{k: (1, *v) for k, v in _PACKET_LOW.items()},
        "d1_stride": (2, 13, 13),
        "d0_stride": (2, 0, 13),
        "d1_size": (3, 21, 8),
        "d0_size": (3, 13, 8),
        "d2_stride": (3, 0, 13),
        "iteration_current": (4, 19, 6),
        "iteration_size": (4, 13, 6),
        "iteration_stride": (4, 0, 13),
        **{k: (5, *v) for k, v in _LOCKS_LOW.items()},
    },
}
BASES = {"shim": 0x1D000, "memory": 0xA0000, "core": 0x1D000}
_BURSTS = {64: 0, 128: 1, 256: 2}


def packed(kind: str, attributes: Mapping[str, int]) -> tuple[int, ...]:
    """The words that mlir-aie makes of an aiex.npu.writebd on a tile of a kind."""
    words = [0] * (6 if kind == "core" else 8)
    for name, (word, low, bits) in LAYOUT[kind].items():
        value = attributes[name] // 4 if (kind, name) == ("core", "buffer_offset") else attributes[name]
        words[word] |= (value & (1 << bits) - 1) << low
    if kind == "shim":
        words[4] |= _BURSTS[attributes["burst_length"]] << 30
        words[5] |= 2 << 24
    return tuple(words)


def parse(text: str) -> ModuleOp:
    """The module, verified as far as xDSL knows its operations."""
    context = Context(allow_unregistered=True)
    for dialect in (Builtin, Arith, MemRef):
        context.load_dialect(dialect)
    module = Parser(context, text).parse_module()
    module.verify()
    return module


def named(module: ModuleOp, name: str) -> list[IrOperation]:
    """All operations of a name, in order."""
    return [op for op in module.walk() if name_of(op) == name]


def name_of(op: IrOperation) -> str:
    """An operation's name, registered or not."""
    return op.op_name.data if isinstance(op, UnregisteredOp) else op.name


def number(op: IrOperation, name: str) -> int:
    """An attribute that is a whole number."""
    found = op.properties[name]
    assert isinstance(found, IntegerAttr)
    return int(found.value.data)


def text_of(op: IrOperation, name: str) -> str:
    """An attribute that is a string."""
    found = op.properties[name]
    assert isinstance(found, StringAttr)
    return found.data


def tile_of(value: SSAValue) -> Tile:
    """The tile that an aie.tile made."""
    assert isinstance(value, OpResult)
    return Tile(number(value.op, "col"), number(value.op, "row"))


def misfits(module: ModuleOp) -> Iterator[str]:
    """What differs from `FORMS`, in words."""
    for op in module.walk():
        name = name_of(op)
        if not name.startswith("aie"):
            continue
        form = FORMS[name]
        expected = dict(part.split(":") for part in form.attributes.split())
        got = {key: _type(op, key) for key in op.properties}
        known = {key.rstrip("?"): kind for key, kind in expected.items()}
        if any(known.get(key) != kind for key, kind in got.items()):
            yield f"{name}: attributes {got}"
        if missing := [key for key in expected if not key.endswith("?") and key not in got]:
            yield f"{name}: no attributes {missing}"
        types = tuple(str(o.type).partition("<")[0] for o in op.operands)
        results = [str(r.type).partition("<")[0] for r in op.results]
        if types != form.operands or results != ([form.result] if form.result else []) or len(op.regions) != form.regions:
            yield f"{name}: {types} -> {results}, {len(op.regions)} regions"
        if others := sorted(op.attributes.keys() - {"op_name__"}):  # where xDSL keeps the name
            yield f"{name}: other attributes {others}"


def _type(op: IrOperation, key: str) -> str:
    found = op.properties[key]
    return "string" if isinstance(found, StringAttr) else str(found.type) if isinstance(found, IntegerAttr) else str(found)


def operations(module: ModuleOp, memory_rows: int = 1) -> list[Operation]:
    """The control stream that a runtime sequence means."""
    (sequence,) = named(module, "aie.runtime_sequence")
    data = {op.sym_name.data: _words(op) for op in module.walk() if isinstance(op, GlobalOp)}
    return [made for op in sequence.regions[0].block.ops for made in _meaning(op, data, memory_rows)]


def _words(op: GlobalOp) -> tuple[int, ...]:
    assert isinstance(op.initial_value, DenseIntOrFPElementsAttr)
    return tuple(int(v) % WORD for v in op.initial_value.get_values())


def constants(op: IrOperation) -> list[int]:
    """Operands that are constants, as words without sign."""
    found = []
    for value in op.operands:
        assert isinstance(value, OpResult) and isinstance(value.op, ConstantOp) and isinstance(value.op.value, IntegerAttr)
        found.append(int(value.op.value.value.data) % WORD)
    return found


def _address(op: IrOperation, at: int) -> int:
    return number(op, "column") << 25 | number(op, "row") << 20 | at if "column" in op.properties else at


def _meaning(op: IrOperation, data: Mapping[str, tuple[int, ...]], memory_rows: int) -> Iterator[Operation]:
    def kind(row: int) -> str:
        return "shim" if row == 0 else "memory" if row <= memory_rows else "core"

    match name_of(op):
        case "aiex.npu.write32":
            at, value = constants(op)
            yield Write(_address(op, at), value)
        case "aiex.npu.maskwrite32":
            at, value, mask = constants(op)
            yield MaskWrite(_address(op, at), value, mask)
        case "aiex.npu.blockwrite":
            (source,) = op.operands
            assert isinstance(source, OpResult) and isinstance(source.op, GetGlobalOp)
            yield BlockWrite(_address(op, number(op, "address")), data[source.op.name_.string_value()])
        case "aiex.npu.writebd":
            row = number(op, "row")
            words = packed(kind(row), {key: number(op, key) for key in op.properties})
            yield BlockWrite(_address(op, BASES[kind(row)] + 0x20 * number(op, "bd_id")), words)
        case "aiex.npu.push_queue":
            repeat, bd = constants(op)
            base = {"shim": 0x1D200, "memory": 0xA0600, "core": 0x1DE00}[kind(number(op, "row"))]
            stride = 0x30 if kind(number(op, "row")) == "memory" else 0x10
            at = base + stride * number(op, "direction") + 8 * number(op, "channel") + 4
            yield Write(_address(op, at), bd | repeat << 16 | abs(number(op, "issue_token")) << 31)
        case "aiex.set_lock":
            (lock,) = op.operands
            assert isinstance(lock, OpResult)
            tile = tile_of(lock.op.operands[0])
            base = {"shim": 0x14000, "memory": 0xC0000, "core": 0x1F000}[kind(tile.row)]
            at = tile.column << 25 | tile.row << 20 | base + 0x10 * number(lock.op, "lockID")
            yield Write(at, number(op, "value"))
        case "aiex.npu.sync":
            column, row, direction, channel, columns, rows = constants(op)
            yield Sync(Tile(column, row), Direction(direction), channel, columns, rows)
        case "aiex.npu.address_patch":
            (offset,) = constants(op)
            yield Patch(number(op, "addr"), number(op, "arg_idx"), offset)
