"""Traffic and energy: counted by hand on small products, and bounds that hold for all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import models
import sparsec.backends.systolic.traffic as parameters_of
from sparsec.backends.systolic import SEVEN, Dataflow, Level, Machine, Mapping, lower, parse_machine, product, simulate
from sparsec.backends.systolic.explain import moved
from sparsec.backends.systolic.network import Network, simulate_layer, with_traffic
from sparsec.backends.systolic.simulate.counts import Run
from sparsec.backends.systolic.traffic import Memory, Traffic, read_memory, total, traffic
from sparsec.compiler.errors import UsageError
from sparsec.compiler.importer.api import import_model
from sparsec.passes.pruning.prune import prune_graph, with_weights
from sparsec.passes.pruning.recipe import make_recipe
from tests.backends.systolic.cases import Case, cases
from tests.backends.systolic.networks import plan_network

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


def tiny(memory: Memory | None) -> Network:
    graph = import_model(models.build("tiny_cnn"))
    done = prune_graph(graph, make_recipe({"pattern": "block:8x1@75%/taps=each"}))
    return plan_network(with_weights(graph, done), parse_machine("flexisaga:8x8"), memory=memory)


@pytest.mark.parametrize("double", [True, False], ids=["double-buffered", "exposed"])
def test_dataflows_are_chosen_by_cycles_with_waiting(double: bool) -> None:
    memory = read_memory(double=double)
    plain, loaded = tiny(None), tiny(memory)
    assert not plain.choices[0].traffic and plain.cost == plain.cycles
    for choice in loaded.choices:
        assert set(choice.traffic) == set(SEVEN) and choice.cost == min(t.cycles for t in choice.traffic.values())
        assert all(t.cycles >= choice.table[d] for d, t in choice.traffic.items())
        assert traffic(simulate_layer(loaded, choice), memory, 4) == choice.traffic[choice.mapping.dataflow]
    assert loaded.cost == loaded.traffic_of().cycles <= min(loaded.traffic_of(d).cycles for d in SEVEN)
    assert loaded.cost <= with_traffic(plain, memory).cost and loaded.cycles >= plain.cycles
    fc = [n.choices[-1].mapping.dataflow for n in (plain, loaded)]
    assert fc == [Dataflow.DOS, Dataflow.DIS if double else Dataflow.DOS]  # fewest cycles of the array, and with loads


def test_sums_of_layers() -> None:
    network = tiny(read_memory())
    rows = list(moved(network))
    assert [r[0] for r in rows] == [*(d.value for d in SEVEN), "the chosen ones"]
    chosen = [c.traffic[c.mapping.dataflow] for c in network.choices]
    assert rows[-1][1:5] == tuple(
        f"{v:,}"
        for v in (
            network.cycles,
            sum(t.cycles for t in chosen),
            sum(t.sram_bytes for t in chosen),
            sum(t.dram_read + t.dram_written for t in chosen),
        )
    )
    assert total(()) == Traffic(0, 0, 0, 0, 0)


def test_other_energies_are_counted_with(tmp_path: Path) -> None:
    """A file that users replace: without costs of bytes only multiplications are left."""
    file = tmp_path / "mine.toml"
    text = PARAMETERS.read_text().replace("sram_byte = 2.5 ", "sram_byte = 1e-9").replace("dram_byte = 162.5", "dram_byte = 1e-9")
    file.write_text(text)
    network = tiny(read_memory(file))
    macs = sum(simulate_layer(network, c).total.macs for c in network.choices)
    assert network.traffic_of().energy == pytest.approx(macs * 4.6 / 1e6)


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
