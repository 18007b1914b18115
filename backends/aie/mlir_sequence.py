"""The runtime sequence of a control stream: one operation of mlir-aie's `aiex` dialect for each of the stream's."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from sparsec.backends.aie.descriptor_forms import WORD_BYTES
from sparsec.backends.aie.descriptors import CLASSES, Axi
from sparsec.backends.aie.mlir_text import I32, Region, Value, boolean, dense, i32, memref, operation, quoted, signed, ui32
from sparsec.backends.aie.registers import DMAS, LOCK_VALUE, Direction, Grid, Kind, Tile, register_name, split
from sparsec.backends.aie.transaction import BlockWrite, MaskWrite, Operation, Patch, Sync, Write, descriptor_at, task_of
from sparsec.compiler.errors import StreamError

# The attributes of aiex.npu.writebd that hold what a descriptor's registers hold, by the field; where a kind of tile has no such
# field, 0. `buffer_offset` and `burst_length` count otherwise, see `_write_descriptor`.
_FIELDS = {
    "buffer_length": "length",
    "enable_packet": "packet",
    "out_of_order_id": "out_of_order",
    "packet_id": "packet_id",
    "packet_type": "packet_type",
    "d0_size": "d0_wrap",
    "d0_stride": "d0_step",
    "d1_size": "d1_wrap",
    "d1_stride": "d1_step",
    "d2_stride": "d2_step",
    "iteration_current": "iteration_current",
    "iteration_size": "iteration_wrap",
    "iteration_stride": "iteration_step",
    "next_bd": "next",
    "use_next_bd": "use_next",
    "valid_bd": "valid",
    "lock_rel_val": "release_value",
    "lock_rel_id": "release_lock",
    "lock_acq_enable": "acquire_enable",
    "lock_acq_val": "acquire_value",
    "lock_acq_id": "acquire_lock",
    **{f"d{i}_zero_{side}": f"d{i}_{side}" for i in range(3) for side in ("before", "after")},
}
_SIGNED_FIELDS = ("release_value", "acquire_value")
_BURSTS = {0: 64, 1: 128, 2: 256}  # bytes by what a shim's descriptor stores
_BASE = {Kind.CORE: ("base", WORD_BYTES), Kind.MEMORY: ("base", 1), Kind.SHIM: ("base_low", WORD_BYTES)}


class Sequencer:
    """Collects a runtime sequence. Constants and the data of blocks come first, each once."""

    def __init__(self, grid: Grid, locks: Mapping[tuple[Tile, int], Value]) -> None:
        self.grid, self.locks = grid, locks
        self._lines: list[str] = []
        self._constants: dict[int, Value] = {}
        self._data: dict[tuple[int, ...], Value] = {}

    def add(self, op: Operation) -> None:
        """Append what an operation of the control stream means."""
        if isinstance(op, Write):
            self._write(op)
        elif isinstance(op, BlockWrite):
            self._lines += [*self._meaning(op), *(self._write_descriptor(op) or self._block(op))]
        elif isinstance(op, MaskWrite):
            at, place = self._place(op.address)
            self._emit("npu.maskwrite32", (at, self._constant(op.value), self._constant(op.mask)), place)
        elif isinstance(op, Sync):
            parts = (op.tile.column, op.tile.row, op.direction.value, op.channel, op.columns, op.rows)
            self._emit("npu.sync", [self._constant(p) for p in parts])
        else:
            self._patch(op)

    def globals(self) -> Iterator[str]:
        """The data of blocks, to stand in the device."""
        for values, value in self._data.items():
            properties = {
                "constant": "",
                "initial_value": dense(values),
                "sym_name": quoted(value.name),
                "sym_visibility": quoted("private"),
                "type": value.type,
            }
            yield from operation("memref.global", (), properties)

    def region(self, arguments: Sequence[int]) -> Iterator[str]:
        """The sequence, whose arguments are host buffers of so many bytes."""
        lines = [
            line
            for number, value in self._constants.items()
            for line in operation("arith.constant", (), {"value": i32(number)}, value)
        ]
        for value in self._data.values():
            lines += operation("memref.get_global", (), {"name": f"@{value.name}"}, value)
        given = [Value(f"arg{i}", memref(-(-size // WORD_BYTES))) for i, size in enumerate(arguments)]
        region = Region([*lines, *self._lines], given)
        yield from operation("aie.runtime_sequence", (), {"sym_name": quoted("sequence")}, None, region)

    def _emit(self, name: str, operands: Sequence[Value] = (), properties: Mapping[str, str] | None = None) -> None:
        self._lines += operation(f"aiex.{name}", operands, properties)

    def _constant(self, word: int) -> Value:
        number = signed(word)
        return self._constants.setdefault(number, Value(f"c{number}" if number >= 0 else f"cm{-number}", I32))

    def _place(self, address: int) -> tuple[Value, dict[str, str]]:
        """An address as operand and attributes: within its tile where the array has that, else as a whole."""
        tile, offset = split(address)
        if not self.grid.has(tile):
            return self._constant(address), {}
        return self._constant(offset), {"column": i32(tile.column), "row": i32(tile.row)}

    def _write(self, op: Write) -> None:
        tile, offset = split(op.address)
        name = register_name(self.grid.kind(tile), offset) if self.grid.has(tile) else ""
        lock = re.fullmatch(r"lock(\d+)", name)
        queue = re.fullmatch(r"(s2mm|mm2s)(\d+)\.queue", name)
        if lock and op.value <= LOCK_VALUE.maximum:
            self._emit("set_lock", (self.locks[tile, int(lock[1])],), {"value": i32(op.value)})
        elif not queue or not self._start(tile, Direction[queue[1].upper()], int(queue[2]), op.value):
            at, place = self._place(op.address)
            self._emit("npu.write32", (at, self._constant(op.value)), place)

    def _start(self, tile: Tile, direction: Direction, channel: int, value: int) -> bool:
        """A write to a task queue; False where it has bits that mean nothing."""
        try:
            task = task_of(self.grid.kind(tile), value)
        except StreamError:
            return False
        properties = {
            "column": i32(tile.column),
            "row": i32(tile.row),
            "direction": i32(direction.value),
            "channel": i32(channel),
            "issue_token": boolean(task.token),
        }
        self._emit("npu.push_queue", (self._constant(task.repeat - 1), self._constant(task.descriptor)), properties)
        return True

    def _patch(self, op: Patch) -> None:
        properties = {"addr": ui32(op.address), "arg_idx": i32(op.argument)}
        self._emit("npu.address_patch", (self._constant(op.offset),), properties)

    def _block(self, op: BlockWrite) -> list[str]:
        value = self._data.setdefault(op.values, Value(f"blockwrite_data_{len(self._data)}", memref(len(op.values))))
        tile, offset = split(op.address)
        inside = self.grid.has(tile)
        place = {"column": i32(tile.column), "row": i32(tile.row)} if inside else {}
        properties = {"address": ui32(offset if inside else op.address), **place}
        return [*operation("aiex.npu.blockwrite", (value,), properties)]

    def _meaning(self, op: BlockWrite) -> Iterator[str]:
        """A comment that says what a descriptor does."""
        found = descriptor_at(self.grid, op.address)
        if found is None:
            return
        tile, number = found
        try:
            yield f"// tile {tile}, bd {number}: {CLASSES[self.grid.kind(tile)].decode(op.values)}"
        except StreamError:
            return  # the words say what there is

    def _write_descriptor(self, op: BlockWrite) -> list[str]:
        """aiex.npu.writebd; nothing where the block is no descriptor, or holds what that does not write."""
        found = descriptor_at(self.grid, op.address)
        if found is None:
            return []
        tile, number = found
        kind = self.grid.kind(tile)
        if len(op.values) != DMAS[kind].words:
            return []
        left = list(op.values)
        fields = CLASSES[kind].FORM.fields

        def take(name: str) -> int:
            if name not in fields:
                return 0
            field = fields[name]
            left[field.word] &= ~field.mask
            value = field.get(op.values[field.word])
            return value - 2 * (value & 1 << field.width - 1) if name in _SIGNED_FIELDS else value

        values = {attribute: take(name) for attribute, name in _FIELDS.items()}
        base, unit = _BASE[kind]
        values |= {"column": tile.column, "row": tile.row, "bd_id": number, "buffer_offset": unit * take(base), "d2_size": 0}
        if kind is Kind.SHIM:
            burst, cache = take("burst"), take("cache")
            if burst not in _BURSTS or cache != Axi().cache:
                return []
            values["burst_length"] = _BURSTS[burst]
        if any(left):
            return []
        return [*operation("aiex.npu.writebd", (), {name: i32(v) for name, v in values.items()})]
