"""What a network's operands move and cost in each dataflow, dense and pruned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from benchmarks.systolic_networks import final_graph, pruned
from sparsec.backends.systolic import SEVEN, Dataflow, parse_machine
from sparsec.backends.systolic.dataflow import DENSE
from sparsec.backends.systolic.network import Network, map_network, simulate_layer
from sparsec.backends.systolic.traffic import read_memory
from sparsec.backends.systolic.traffic import traffic as traffic_of

SPARSITY = 0.75


@dataclass(frozen=True)
class TrafficRow:
    """A network in one dataflow, or in the best a layer: cycles without and with waiting for DRAM, bytes, and microjoules."""

    model: str
    array: str
    weights: str
    dataflow: str
    cycles: int
    double: int
    exposed: int
    sram: int
    dram: int
    energy: float

    @property
    def record(self) -> dict[str, object]:
        """As JSON data."""
        return asdict(self)


def rows(model: str, side: int) -> Iterator[TrafficRow]:
    """Dense weights in the dense dataflows, vectors of 75 % zeros in the sparse ones, and the best a layer of each."""
    graph, machine = final_graph(model), parse_machine(f"flexisaga:{side}x{side}")
    for dataflow in (*((d,) for d in DENSE), DENSE):
        yield _row(map_network(graph, machine, dataflow), model, "dense", dataflow)
    tall, pattern, _ = pruned(graph, machine, Dataflow.SOS, SPARSITY)
    sparse = tuple(d for d in SEVEN if d.sparse)
    for dataflow in (*((d,) for d in sparse), SEVEN):
        yield _row(map_network(tall, machine, dataflow), model, pattern, dataflow)


def _row(network: Network, model: str, weights: str, dataflows: tuple[Dataflow, ...]) -> TrafficRow:
    cycles = double = exposed = sram = dram = 0
    energy = 0.0
    for choice in network.choices:
        run = simulate_layer(network, choice)
        size = network.graph.types[choice.layer.data].dtype.itemsize
        hidden, seen = (traffic_of(run, read_memory(double=d), size) for d in (True, False))
        cycles, double, exposed = cycles + run.total.cycles, double + hidden.cycles, exposed + seen.cycles
        sram, dram = sram + hidden.sram_bytes, dram + hidden.dram_read + hidden.dram_written
        energy += hidden.energy
    name = dataflows[0].value if len(dataflows) == 1 else f"best of {len(dataflows)}"
    return TrafficRow(model, network.machine.name, weights, name, cycles, double, exposed, sram, dram, energy)
