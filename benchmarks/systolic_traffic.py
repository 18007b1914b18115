"""What a network's operands move and cost in each dataflow, dense and pruned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from benchmarks.systolic_networks import final_graph, pruned
from sparsec.backends.systolic import SEVEN, Dataflow, Machine, parse_machine
from sparsec.backends.systolic.dataflow import DENSE
from sparsec.backends.systolic.network import map_network, with_traffic
from sparsec.backends.systolic.traffic import read_memory, total
from sparsec.compiler.graph import Graph

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
    """Dense weights in the dense dataflows, vectors of 75 % zeros in the sparse ones, and the best a layer of each.

    Best is by cycles of the array, or by cycles with what waiting for memory adds.
    """
    graph, machine = final_graph(model), parse_machine(f"flexisaga:{side}x{side}")
    yield from _rows(graph, machine, model, "dense", DENSE, DENSE)
    tall, pattern, _ = pruned(graph, machine, "outputs", SPARSITY)
    yield from _rows(tall, machine, model, pattern, SEVEN, tuple(d for d in SEVEN if d.sparse))


def _rows(
    graph: Graph, machine: Machine, model: str, weights: str, flows: Sequence[Dataflow], alone: Sequence[Dataflow]
) -> Iterator[TrafficRow]:
    double = map_network(graph, machine, flows, read_memory())
    exposed = with_traffic(double, read_memory(double=False))
    pairs = list(zip(double.choices, exposed.choices, strict=True))
    chosen = {d.value: [d] * len(pairs) for d in alone}
    chosen[f"best of {len(flows)}"] = [min(c.table, key=lambda d: c.table[d]) for c, _ in pairs]
    chosen[f"best of {len(flows)}, double-buffered"] = [min(c.costs, key=lambda d: c.costs[d]) for c, _ in pairs]
    chosen[f"best of {len(flows)}, exposed"] = [min(c.costs, key=lambda d: c.costs[d]) for _, c in pairs]
    for name, taken in chosen.items():
        hidden, seen = (total(c[i].traffic[d] for c, d in zip(pairs, taken, strict=True)) for i in range(2))
        cycles = sum(c.table[d] for (c, _), d in zip(pairs, taken, strict=True))
        counts = (cycles, hidden.cycles, seen.cycles, hidden.sram_bytes, hidden.dram_bytes, hidden.energy)
        yield TrafficRow(model, machine.name, weights, name, *counts)
