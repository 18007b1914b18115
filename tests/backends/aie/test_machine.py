"""Arrays: what their names say, where numbers come from, and files that describe others."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparsec.backends.aie.machine import Machine, load_machine, machine_named, machines
from sparsec.compiler.errors import UsageError


@pytest.mark.parametrize("machine", machines(), ids=lambda m: m.name)
def test_every_parameter_has_a_source(machine: Machine) -> None:
    listed = machine.parameters()
    assert {"columns", "core.data_bytes", "matmul.int8.m", "costs.ddr_latency"} <= {p.key for p in listed}
    assert all(p.source for p in listed)
    assert set(machine.sources) == {p.key for p in listed}
    assert machine_named(machine.name) is machine


def test_named_arrays() -> None:
    for k in range(2, 9):
        m = machine_named(f"aie2:{k}x{k}")
        assert (m.columns, m.rows, m.cores, m.macs_per_cycle) == (k, k, k * k, 256 * k * k)
    npu1, ve2802 = machine_named("aie2:npu1"), machine_named("aie2:ve2802")
    assert (npu1.cores, npu1.memory_rows, npu1.first_core_row, npu1.shim.columns) == (16, 1, 2, (0, 1, 2, 3))
    assert (ve2802.cores, ve2802.columns * ve2802.memory_rows, ve2802.first_core_row, len(ve2802.shim.columns)) == (
        304,
        76,
        3,
        12,
    )


def test_instructions_keep_the_published_rates() -> None:
    modes = machine_named("aie2:npu1").matmul
    for mode in (modes.int8, modes.int8_int4, modes.int16, modes.bf16, modes.int8_sparse, modes.bf16_sparse):
        assert mode.cycles * mode.macs_per_cycle == mode.m * mode.k * mode.n // (2 if mode.sparse else 1)


@pytest.mark.parametrize("name", ["aie2:1x1", "aie2:9x9", "aie2:2x3", "aie2:", "npu1", "aie:npu1", "aie2:NPU1"])
def test_unknown_names(name: str) -> None:
    with pytest.raises(UsageError, match=r"aie2:KxK with K from 2 to 8, aie2:npu1, aie2:ve2802 or aie2:FILE\.toml"):
        machine_named(name)


def _file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return path


def test_file_changes_a_known_array(tmp_path: Path) -> None:
    path = _file(
        tmp_path,
        """
        base = "npu1"
        columns = 3
        clock_hz = 1_500_000_000
        [shim]
        columns = [0, 2]
        [costs]
        lock = 0
        ddr_latency = { value = 180, source = "measured" }
        [matmul.int8]
        m = 8
        """,
    )
    made, base = machine_named(f"aie2:{path}"), machine_named("aie2:npu1")
    assert (made.name, made.columns, made.rows, made.shim.columns, made.clock_hz) == ("aie2:mine", 3, 4, (0, 2), 1.5e9)
    assert (made.costs.lock, made.costs.ddr_latency, made.matmul.int8.m) == (0, 180, 8)
    assert made.core == base.core
    assert made.sources["costs.ddr_latency"] == "measured"
    assert made.sources["columns"] == made.sources["matmul.int8.m"] == "mine.toml"
    assert made.sources["core.locks"] == base.sources["core.locks"]
    assert hash(made) != hash(base)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("columns = 3", "base is missing: expected .* one of 2x2, .*npu1, ve2802"),
        ('base = "npu2"', "base is 'npu2': expected"),
        ('base = "npu1"\nname = ""', "name is '': expected the array's name"),
        ('base = "npu1"\ncolums = 3', "there is no parameter colums: expected columns"),
        ('base = "npu1"\n[core]\ndata_byte = 3', "there is no parameter core.data_byte: expected core.data_bytes"),
        ('base = "npu1"\nsources = 3', "there is no parameter sources"),
        ('base = "npu1"\ncore = 3', r"core is 3: expected a table \[core\]"),
        ('base = "npu1"\nrows = 0', "rows is 0: expected a positive whole number"),
        ('base = "npu1"\nrows = true', "rows is True: expected a positive whole number"),
        ('base = "npu1"\nclock_hz = -1', "clock_hz is -1: expected a positive number"),
        ('base = "npu1"\n[matmul.int8]\nsparse = 1', "matmul.int8.sparse is 1: expected true or false"),
        ('base = "npu1"\n[shim]\ncolumns = [0, 0]', r"shim.columns is .*: expected a list of different columns"),
        ('base = "npu1"\n[shim]\ncolumns = [4]', "shim.columns has 4: expected columns below 4"),
        ('base = "npu1"\nrows = { vale = 3 }', r"rows has \['vale'\]: expected value and source"),
        ('base = "npu1"\nrows = { source = "x" }', "rows has no value: expected value and source"),
        (
            'base = "npu1"\n[core]\ndata_bytes = 1000',
            "core.data_bytes is 1000: expected 16-byte words that 8 banks share",
        ),
        ('base = "npu1"\n[core]\ndata_bytes = 131072', "core.data_bytes is 131072: expected 65536 at most"),
        ('base = "npu1"\n[memory]\ndata_bytes = 1048576', "memory.data_bytes is 1048576: expected 524288 at most"),
        ('base = "npu1"\n[streams]\nqueue_depth = 3', "streams.queue_depth is 3: expected at least the 4 tasks"),
        ("base = ", "this is not a TOML file"),
    ],
)
def test_files_that_are_wrong(tmp_path: Path, text: str, message: str) -> None:
    path = _file(tmp_path, text)
    with pytest.raises(UsageError, match=message) as caught:
        load_machine(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.toml: the array's description cannot be read: No such file"):
        load_machine(tmp_path / "none.toml")
