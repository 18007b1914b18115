"""Traffic and energy: counted by hand on small products, and bounds that hold for all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsec.backends.systolic.traffic as parameters_of
from sparsec.backends.systolic import SEVEN, Dataflow, Level, Machine, Mapping, lower, product, simulate
from sparsec.backends.systolic.simulate.counts import Run
from sparsec.backends.systolic.traffic import Memory, read_memory, traffic
from sparsec.compiler.errors import UsageError
from tests.backends.systolic.cases import Case, cases

PARAMETERS = Path(parameters_of.__file__).with_name("memory.toml")
AMPLE = Memory(10**9, 10**9, 10**9, 4.0, 0.3, 4.6, 2.5, 162.5, double=False)


def run_of(dataflow: Dataflow, m: int, k: int, n: int) -> Run:
    w, x = np.ones((m, k), np.int8), np.ones((k, n), np.int8)
    made = lower(Machine("flexisaga", 4, 4, 1), [(product(w, x), Mapping(dataflow))])
    return simulate(made.stream, made.weights, x, m * n, Level.TIMING)


@pytest.mark.parametrize("dataflow", [Dataflow.DOS, Dataflow.DWS, Dataflow.DIS], ids=lambda d: d.value)
def test_with_room_for_all_everything_moves_once(dataflow: Dataflow) -> None:
    found = traffic(run_of(dataflow, 8, 12, 6), AMPLE, 1)
    assert (found.dram_read, found.dram_written) == (8 * 12 + 12 * 6, 8 * 6)


def test_without_room_data_come_once_a_strip_and_sums_go_out_and_back() -> None:
    small = replace(AMPLE, data=12 * 6 - 1, sums=6 * 4)
    assert traffic(run_of(Dataflow.DOS, 8, 12, 6), small, 1).dram_read == 8 * 12 + 2 * 12 * 6
    two_strips_of_three_folds = traffic(run_of(Dataflow.DWS, 8, 12, 6), small, 1)
    assert two_strips_of_three_folds.dram_read == 8 * 12 + 2 * 12 * 6 + 2 * 2 * 4 * 6 * 4
    assert two_strips_of_three_folds.dram_written == 8 * 6 + 2 * 2 * 4 * 6 * 4
    three_strips = traffic(run_of(Dataflow.DIS, 8, 12, 6), small, 1)
    assert three_strips.dram_read == 8 * 12 + 12 * 6 + 2 * 8 * 6 * 4
    assert traffic(run_of(Dataflow.DOS, 8, 12, 6), replace(AMPLE, weights=47), 1).dram_read == 2 * 8 * 12 + 12 * 6


def test_buffer_accesses_and_energy() -> None:
    run = run_of(Dataflow.DOS, 8, 12, 6)
    found = traffic(run, AMPLE, 1)
    assert found.sram_bytes == 2 * 8 * 12 + 2 * 12 * 6 + 8 * 6 * 4  # weights once a tile, data once a strip, sums once
    picojoules = 8 * 12 * 6 * 0.3 + found.sram_bytes * 2.5 + (8 * 12 + 12 * 6 + 8 * 6) * 162.5
    assert found.energy == pytest.approx(picojoules / 1e6)
    assert found.cycles == run.total.cycles + 2 * -(-(48 + 24) // 4) + 12 * 6 // 4


@given(cases(), st.sampled_from(SEVEN))
@settings(max_examples=60, deadline=None)
def test_overlap_never_costs_and_bandwidth_bounds(case: Case, dataflow: Dataflow) -> None:
    run, size = case.run(case.mapping(dataflow), Level.TIMING), case.x.itemsize
    exposed, double = traffic(run, AMPLE, size), traffic(run, replace(AMPLE, double=True), size)
    assert run.total.cycles <= double.cycles <= exposed.cycles
    assert double.cycles >= (double.dram_read + double.dram_written) / 4
    tight = traffic(run, replace(AMPLE, weights=1, data=1, sums=1), size)
    assert tight.dram_read >= exposed.dram_read and tight.dram_written >= exposed.dram_written


def test_parameter_files(tmp_path: Path) -> None:
    assert read_memory().dram_byte > read_memory().sram_byte > 0
    text = PARAMETERS.read_text()
    file = tmp_path / "mine.toml"
    file.write_text(text.replace("weights = 65536", "weights = 4096"))
    assert read_memory(file, double=False) == replace(read_memory(), weights=4096, double=False)
    for change, message in (
        (("= 65536", "= -1"), "buffers.weights is -1"),
        (("sums = ", "sum = "), r"\[buffers\] needs weights, data, sums"),
    ):
        file.write_text(text.replace(*change))
        with pytest.raises(UsageError, match=message):
            read_memory(file)
    with pytest.raises(UsageError, match="cannot be read"):
        read_memory(tmp_path / "absent.toml")
