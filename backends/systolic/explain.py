"""Which dataflow every layer takes, and what the others would have taken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from sparsec.backends.systolic.choose import Choice
from sparsec.backends.systolic.dataflow import Dataflow
from sparsec.backends.systolic.network import Network
from sparsec.backends.systolic.traffic import Memory

NOTE = "Cycles are our model's: up to the last multiplication, with all operands on chip; the papers publish no formulas."
LOADED = "Cycles are our model's, with what waiting for memory adds ({}); the papers publish no formulas."


def columns(network: Network) -> tuple[str, ...]:
    """Headings; those that begin with > are of numbers."""
    return ("layer", ">products", ">M", ">K", ">N", ">zeros", *(f">{d.value}" for d in _flows(network)), "chosen", ">busy")


def rows(network: Network) -> Iterator[tuple[str, ...]]:
    """A row a layer, with the products that are lowered, and of every dataflow the cycles that it is chosen by.

    `busy` is the share of the PEs' cycles in which they multiply by a weight that is not zero.
    """
    for choice in network.choices:
        first, zeros = choice.products()[0], _zeros(choice)
        costs = choice.costs
        cells = [str(costs.get(d, "-")) for d in _flows(network)]
        busy = choice.layer.macs * (1 - zeros) / (choice.cost * network.machine.pes) if choice.cost else 0.0
        yield (
            choice.layer.node.name,
            str(len(choice.products())),
            *(str(extent) for extent in (first.m, first.k, first.n)),
            f"{100 * zeros:.0f}%",
            *cells,
            choice.mapping.dataflow.value,
            f"{100 * busy:.0f}%",
        )


def totals(network: Network) -> list[str]:
    """Sums, and what stays with the host, in words."""
    costs = [choice.costs for choice in network.choices]
    alone = ", ".join(f"{d.value} {sum(c[d] for c in costs)}" for d in network.common)
    note = LOADED.format(timing(network.memory)) if network.memory else NOTE
    lines = [f"{network.machine.name}: {network.cost} cycles with the best dataflow a layer; one for all: {alone}", note]
    return lines + [f"{node} stays with the host: {why}" for node, why in network.host.items()]


MOVED = ("dataflow", ">array cycles", ">with loads", ">SRAM bytes", ">DRAM bytes", ">uJ")


def moved(network: Network) -> Iterator[tuple[str, ...]]:
    """A row a dataflow that all layers can take, and one for the chosen ones, under `MOVED`."""
    for dataflow in (*network.common, None):
        traffic = network.traffic_of(dataflow)
        cycles = network.cycles_of(dataflow) if dataflow else network.cycles
        counts = (f"{v:,}" for v in (cycles, traffic.cycles, traffic.sram_bytes, traffic.dram_bytes))
        yield (dataflow.value if dataflow else "the chosen ones", *counts, f"{traffic.energy:,.1f}")


def timing(memory: Memory) -> str:
    """Of fetches, in words."""
    return "double-buffered loads" if memory.double else "exposed loads"


def _flows(network: Network) -> Sequence[Dataflow]:
    return list(dict.fromkeys(d for c in network.choices for d in c.table))


def _zeros(choice: Choice) -> float:
    if not choice.layer.constant:
        return 0.0
    kept = sum(int(np.count_nonzero(g.w)) for g in choice.layer.gemms)
    return 1 - kept / sum(g.w.size for g in choice.layer.gemms)
