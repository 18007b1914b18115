"""The arrays: every number that the backend knows of a machine, with where it comes from.

A `Machine` is nested frozen dataclasses, one a kind of tile. `Machine.sources` says for each number, by its dotted key
(`core.data_bytes`), which document it is from, or that it is assumed. `machine_named` reads target names, and TOML files that
describe other arrays.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sparsec.backends.aie.registers import Grid
from sparsec.compiler.errors import UsageError

PREFIX = "aie2:"
ASSUMED = "assumed"


@dataclass(frozen=True, slots=True)
class CoreTile:
    """A core with its data memory and DMA. Sizes in bytes; loads and stores are of `port_bytes` each, so many a cycle."""

    data_bytes: int = 64 * 1024
    data_banks: int = 8
    program_bytes: int = 16 * 1024
    bundle_bytes: int = 16
    port_bytes: int = 32
    loads_per_cycle: int = 2
    stores_per_cycle: int = 1
    s2mm_channels: int = 2
    mm2s_channels: int = 2
    descriptors: int = 16
    locks: int = 16
    lock_maximum: int = 63
    load_latency: int = 4
    vector_latency: int = 4
    jump_cycles: int = 4


@dataclass(frozen=True, slots=True)
class MemoryTile:
    """A memory tile: no core, more memory and channels. Even channels take descriptors of the first half, odd of the second."""

    data_bytes: int = 512 * 1024
    data_banks: int = 16
    s2mm_channels: int = 6
    mm2s_channels: int = 6
    descriptors: int = 48
    locks: int = 64
    lock_maximum: int = 63


@dataclass(frozen=True, slots=True)
class ShimTile:
    """The array's edge to DDR: `columns` are those whose shim reaches the network on chip. Bytes a cycle are of one column."""

    columns: tuple[int, ...]
    s2mm_channels: int = 2
    mm2s_channels: int = 2
    descriptors: int = 16
    locks: int = 16
    lock_maximum: int = 63
    read_bytes_per_cycle: int = 8
    write_bytes_per_cycle: int = 8


@dataclass(frozen=True, slots=True)
class Streams:
    """What connects tiles. `queue_depth` is the tasks that wait in a channel's queue; a cascade joins neighbouring cores, and
    holds `cascade_words` words that have been put and not taken."""

    bytes_per_cycle: int = 4
    queue_depth: int = 4
    cascade_bytes: int = 64
    cascade_words: int = 4


@dataclass(frozen=True, slots=True)
class Matmul:
    """One matrix instruction: A [m, k] x B [k, n]. `macs_per_cycle` counts products with stored operands.

    For B of which two of every four along k are stored (`sparse`), k counts both kinds.
    """

    m: int
    k: int
    n: int
    macs_per_cycle: int
    sparse: bool = False

    @property
    def cycles(self) -> int:
        """Cycles between two issues."""
        return max(1, self.m * self.k * self.n // (2 if self.sparse else 1) // self.macs_per_cycle)


@dataclass(frozen=True, slots=True)
class MatmulModes:
    """The matrix instructions by data type. `load_a_cycles` and `load_b_cycles` fetch one operand of the 8-bit instruction."""

    int8: Matmul = Matmul(4, 8, 8, 256)
    int8_int4: Matmul = Matmul(4, 16, 8, 512)
    int16: Matmul = Matmul(4, 4, 4, 64)
    bf16: Matmul = Matmul(4, 8, 4, 128)
    int8_sparse: Matmul = Matmul(4, 16, 8, 256, sparse=True)
    bf16_sparse: Matmul = Matmul(4, 16, 4, 128, sparse=True)
    load_a_cycles: int = 1
    load_b_cycles: int = 2
    sparse_chunk_bits: int = 512


@dataclass(frozen=True, slots=True)
class Costs:
    """Cycles that things take beside moving data and multiplying. `ddr_bytes_per_cycle` bounds all columns together, each way.

    A DMA channel collects `dma_access_words` words of 32 bits, neighbours in memory, for each access to a core's memory bank
    (0: channels and cores never meet there). A word takes `cascade` cycles from one core to the next.
    """

    hop: int = 3
    lock: int = 6
    descriptor_start: int = 12
    ddr_latency: int = 250
    control_word: int = 2
    kernel_prologue: int = 6
    dma_access_words: int = 4
    ddr_bytes_per_cycle: int = 32
    cascade: int = 2


@dataclass(frozen=True, slots=True)
class Parameter:
    """A number as listings show it."""

    key: str
    value: object
    source: str


@dataclass(frozen=True)
class Machine:
    """An array of `rows` x `columns` cores above `memory_rows` rows of memory tiles above one row of shims.

    Rows count from the shims upwards, so the first core is in row 1 + `memory_rows`. `sources` maps dotted keys of
    parameters to where they come from.
    """

    name: str
    columns: int
    rows: int
    memory_rows: int
    clock_hz: float
    shim: ShimTile
    core: CoreTile = CoreTile()
    memory: MemoryTile = MemoryTile()
    streams: Streams = Streams()
    matmul: MatmulModes = MatmulModes()
    costs: Costs = Costs()
    sources: Mapping[str, str] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sources", MappingProxyType(dict(self.sources)))

    @property
    def cores(self) -> int:
        """All of them."""
        return self.columns * self.rows

    @property
    def first_core_row(self) -> int:
        """The row of the cores next to the memory tiles."""
        return 1 + self.memory_rows

    @property
    def grid(self) -> Grid:
        """Its extent, as addresses count."""
        return Grid(self.columns, self.rows, self.memory_rows, self.shim.columns)

    @property
    def macs_per_cycle(self) -> int:
        """Dense 8-bit products that the whole array can start in a cycle."""
        return self.peak("int8")

    def peak(self, element: str) -> int:
        """Dense products of an element that the whole array can start in a cycle, by the name of the matrix instruction."""
        matmul: Matmul = getattr(self.matmul, element)
        return self.cores * matmul.macs_per_cycle

    def parameters(self) -> tuple[Parameter, ...]:
        """Every parameter with its value and source, in the order of declaration."""
        return tuple(Parameter(key, value, self.sources[key]) for key, value in _leaves(self, ""))


_AM020 = "AMD AM020, AI Engine-ML architecture manual"
_MLIR_AIE = "mlir-aie, target model of AIE2"
_PAPER = "D'Alberto et al., arXiv 2407.09453"
_ISA = "AMD UG1603, AI Engine-ML intrinsics and kernel guide"

# By the longest dotted prefix of the key.
_SOURCES = {
    "core": _AM020,
    "memory": _AM020,
    "shim": _AM020,
    "streams": _AM020,
    "streams.queue_depth": _MLIR_AIE,
    "streams.cascade_words": f"{_AM020}: two at either end",
    "core.bundle_bytes": _AM020,
    "core.load_latency": ASSUMED,
    "core.vector_latency": ASSUMED,
    "core.jump_cycles": ASSUMED,
    "matmul": _ISA,
    "matmul.load_a_cycles": f"{_AM020}: 32 bytes of A from one of two 256-bit load ports",
    "matmul.load_b_cycles": f"{_AM020}: 64 bytes of B from one of two 256-bit load ports",
    "matmul.sparse_chunk_bits": f"{ASSUMED}: revisions of {_AM020} say 256 or 512",
    "costs": ASSUMED,
    "costs.kernel_prologue": f"{ASSUMED}: fits the 85 % of peak of GAMA, arXiv 2504.09688",
    "costs.dma_access_words": f"{ASSUMED}: a bank is 128 bits wide ({_AM020})",
    "costs.ddr_bytes_per_cycle": f"{ASSUMED}: what the shims can move",
}
_PAPER_SOURCES = {
    "columns": _PAPER,
    "rows": _PAPER,
    "memory_rows": _PAPER,
    "clock_hz": _PAPER,
    "shim.columns": f"{_PAPER}: every column has channels of its own",
    "shim.read_bytes_per_cycle": f"{_PAPER}: 4 GB/s for activations and 4 GB/s for weights",
}
_SIZES = range(2, 9)


def _paper_array(k: int) -> Machine:
    shim = ShimTile(tuple(range(k)))
    return Machine(
        f"{PREFIX}{k}x{k}", k, k, 1, 1e9, shim, costs=Costs(ddr_bytes_per_cycle=8 * k), sources=_sourced(_PAPER_SOURCES)
    )


def _npu1() -> Machine:
    own = dict.fromkeys(("columns", "rows", "memory_rows", "shim.columns"), _MLIR_AIE)
    own["clock_hz"] = f"{ASSUMED}: about 1 GHz is published"
    shim = ShimTile((0, 1, 2, 3))
    return Machine(f"{PREFIX}npu1", 4, 4, 1, 1e9, shim, costs=Costs(ddr_bytes_per_cycle=32), sources=_sourced(own))


def _ve2802() -> Machine:
    own = dict.fromkeys(("columns", "rows", "memory_rows", "shim.columns"), _MLIR_AIE)
    own["clock_hz"] = "GAMA, arXiv 2504.09688"
    shim = ShimTile((2, 3, 6, 7, 14, 15, 22, 23, 30, 31, 34, 35))
    return Machine(f"{PREFIX}ve2802", 38, 8, 2, 1.25e9, shim, costs=Costs(ddr_bytes_per_cycle=96), sources=_sourced(own))


@cache
def machines() -> tuple[Machine, ...]:
    """The arrays that have names."""
    return (*(_paper_array(k) for k in _SIZES), _npu1(), _ve2802())


def machine_named(target: str) -> Machine:
    """The array that the user calls `target`: aie2:KxK, aie2:npu1, aie2:ve2802, or aie2:FILE.toml.

    Raises UsageError for other names, and where a file cannot be read or says something else than `load_machine` expects.
    """
    if not target.startswith(PREFIX):
        raise UsageError(f"{target!r} is not the name of an AI-Engine array: give {_known()} or {PREFIX}FILE.toml")
    if target.endswith(".toml"):
        return load_machine(Path(target.removeprefix(PREFIX)))
    found = {m.name: m for m in machines()}.get(target)
    if found is None:
        raise UsageError(f"there is no array {target!r}: give {_known()} or {PREFIX}FILE.toml")
    return found


def machine_of(name: str, parameters: Mapping[str, Any]) -> Machine:
    """The array with these values of `Machine.parameters` by key, as a manifest holds them. UsageError for wrong ones."""
    tables: dict[str, Any] = {}
    for key, value in parameters.items():
        *groups, last = key.split(".")
        table = tables
        for group in groups:
            table = table.setdefault(group, {})
        table[last] = value
    base = next(m for m in machines() if m.name == f"{PREFIX}npu1")
    made: Machine = _changed(base, tables, "", Path("the manifest"), dict(base.sources))
    made = replace(made, name=name)
    _check(made, Path("the manifest"))
    return made


def load_machine(path: Path) -> Machine:
    """An array that a TOML file describes as its differences from a known one.

    `base` names that one (`base = "npu1"`), `name` the new one (the file's name otherwise), the other keys are those of
    `Machine.parameters`, in tables: a value, or { value = ..., source = "..." }. The source of a bare value is the file's name.

    Raises UsageError, naming the file, the key and what it may hold.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise UsageError(f"{path}: the array's description cannot be read: {exc.strerror or exc}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise UsageError(f"{path}: this is not a TOML file: {exc}") from None
    bases = {m.name.removeprefix(PREFIX): m for m in machines()}
    base = data.pop("base", None)
    if not isinstance(base, str) or base not in bases:
        said = "is missing" if base is None else f"is {base!r}"
        raise UsageError(f"{path}: base {said}: expected the array that it differs from, one of {', '.join(bases)}")
    name = data.pop("name", path.stem)
    if not isinstance(name, str) or not name:
        raise UsageError(f"{path}: name is {name!r}: expected the array's name")
    sources = dict(bases[base].sources)
    made: Machine = _changed(bases[base], data, "", path, sources)
    made = replace(made, name=PREFIX + name, sources=sources)
    _check(made, path)
    return made


def _known() -> str:
    return f"{PREFIX}KxK with K from {_SIZES[0]} to {_SIZES[-1]}, {PREFIX}npu1, {PREFIX}ve2802"


def _leaves(part: Any, prefix: str) -> Iterator[tuple[str, object]]:
    for f in fields(part):
        value = getattr(part, f.name)
        if is_dataclass(value):
            yield from _leaves(value, f"{prefix}{f.name}.")
        elif prefix or f.name not in ("name", "sources"):
            yield prefix + f.name, value


def _sourced(own: Mapping[str, str]) -> dict[str, str]:
    """A source for every parameter: of the longest prefix in `own` or the common table."""
    table = {**_SOURCES, **own}
    found = {}
    for key, _ in _leaves(Machine("", 0, 0, 0, 0.0, ShimTile(())), ""):
        parts = key.split(".")
        found[key] = next(table[p] for n in range(len(parts), 0, -1) if (p := ".".join(parts[:n])) in table)
    return found


def _changed(part: Any, data: Mapping[str, Any], prefix: str, path: Path, sources: dict[str, str]) -> Any:
    """`part` with the fields that a TOML table gives; notes where they come from in `sources`."""
    known = {f.name for f in fields(part)} - ({"name", "sources"} if not prefix else set())
    changes = {}
    for name, value in data.items():
        key = prefix + name
        if name not in known:
            near = get_close_matches(name, known, 1) or sorted(known)
            raise UsageError(f"{path}: there is no parameter {key}: expected {prefix}{f' or {prefix}'.join(near)}")
        old = getattr(part, name)
        if is_dataclass(old):
            if not isinstance(value, dict):
                raise UsageError(f"{path}: {key} is {value!r}: expected a table [{key}]")
            changes[name] = _changed(old, value, f"{key}.", path, sources)
            continue
        sources[key] = path.name
        if isinstance(value, dict):
            if extra := sorted(set(value) - {"value", "source"}) or "value" not in value:
                raise UsageError(f"{path}: {key} has {extra if extra is not True else 'no value'}: expected value and source")
            sources[key], value = str(value.get("source", path.name)), value["value"]
        changes[name] = _value(old, value, key, path)
    return replace(part, **changes)


def _value(old: object, value: object, key: str, path: Path) -> object:
    """`value` if it is what `old` is: a positive number, a truth value, or a list of columns."""
    if isinstance(old, bool):
        good, expected = isinstance(value, bool), "true or false"
    elif isinstance(old, tuple):
        good = isinstance(value, list) and all(type(v) is int and v >= 0 for v in value) and len(set(value)) == len(value) > 0
        expected = "a list of different columns, as [0, 1]"
        value = tuple(value) if isinstance(value, list) else value
    elif isinstance(old, float):
        good, expected = type(value) in (int, float) and float(str(value)) > 0, "a positive number"
    else:
        good, expected = type(value) is int and value >= (0 if key.startswith("costs.") else 1), "a positive whole number"
    if not good:
        raise UsageError(f"{path}: {key} is {value!r}: expected {expected}")
    return value


def _check(machine: Machine, path: Path) -> None:
    """What holds between parameters."""
    if outside := [c for c in machine.shim.columns if c >= machine.columns]:
        raise UsageError(f"{path}: shim.columns has {outside[0]}: expected columns below {machine.columns}")
    for tile, key in ((machine.core, "core"), (machine.memory, "memory")):
        if tile.data_bytes % (16 * tile.data_banks):
            raise UsageError(
                f"{path}: {key}.data_bytes is {tile.data_bytes}: expected 16-byte words that {tile.data_banks} banks share evenly"
            )
    for tile, known, key in ((machine.core, CoreTile(), "core"), (machine.memory, MemoryTile(), "memory")):
        if tile.data_bytes > known.data_bytes:
            raise UsageError(
                f"{path}: {key}.data_bytes is {tile.data_bytes}: expected {known.data_bytes} at most, as addresses reach"
            )
    least = Streams().queue_depth
    if machine.streams.queue_depth < least:
        raise UsageError(
            f"{path}: streams.queue_depth is {machine.streams.queue_depth}: expected at least the {least} tasks that layers queue"
        )
