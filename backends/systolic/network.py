"""A network on an array: a dataflow and a stream a layer."""

from __future__ import annotations

from collections.abc import Mapping as Map
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sparsec.backends.systolic.choose import Choice, choose
from sparsec.backends.systolic.dataflow import Dataflow
from sparsec.backends.systolic.layers import network_layers
from sparsec.backends.systolic.lower import Lowered, lower
from sparsec.backends.systolic.machine import Machine
from sparsec.backends.systolic.simulate.counts import Run
from sparsec.backends.systolic.simulate.run import Level, simulate
from sparsec.backends.systolic.traffic import Memory, Traffic, total
from sparsec.compiler.errors import UsageError
from sparsec.compiler.graph import Graph
from sparsec.passes.attention import RecogniseAttention
from sparsec.passes.pipelines import DEFAULT

Array = np.ndarray[Any, Any]
PIPELINE = tuple(p for p in DEFAULT if not isinstance(p, RecogniseAttention))  # whose op is no product: its products are left


@dataclass(frozen=True)
class Network:
    """A graph with a dataflow for each of its layers; `host` says why other nodes that multiply are not the array's.

    `memory`: what layers' traffic was counted with, if it was.
    """

    machine: Machine
    graph: Graph
    choices: tuple[Choice, ...]
    host: Map[str, str]
    memory: Memory | None = None

    @property
    def cycles(self) -> int:
        """Of the array in all layers, by the closed forms."""
        return sum(c.cycles for c in self.choices)

    @property
    def cost(self) -> int:
        """The cycles that dataflows were chosen by: with what waiting for `memory` adds, where there is one."""
        return sum(c.cost for c in self.choices)

    @property
    def common(self) -> tuple[Dataflow, ...]:
        """The dataflows that every layer can take."""
        flows = dict.fromkeys(d for c in self.choices for d in c.table)
        return tuple(d for d in flows if all(d in c.table for c in self.choices))

    def cycles_of(self, dataflow: Dataflow) -> int:
        """Of the array in all layers in one dataflow; UsageError when a layer cannot take it."""
        if any(dataflow not in c.table for c in self.choices):
            raise UsageError(f"not every layer can take {dataflow.value}")
        return sum(c.table[dataflow] for c in self.choices)

    def traffic_of(self, dataflow: Dataflow | None = None) -> Traffic:
        """Of all layers in one dataflow that all can take, or each in its own (None)."""
        return total(c.traffic[dataflow or c.mapping.dataflow] for c in self.choices)

    def lowered(self, choice: Choice) -> Lowered:
        """The stream and weights of a layer."""
        return lower(self.machine, [(g, choice.mapping) for g in choice.products()])


def map_network(graph: Graph, machine: Machine, dataflows: Sequence[Dataflow] = (), memory: Memory | None = None) -> Network:
    """The best of `dataflows` (by default those of the machine's family) for every product of a graph as it is.

    With `memory`, traffic is counted too, and the best is the one that takes the fewest cycles with waiting for it.
    """
    plain = _with_one_zero(graph)
    layers, host = network_layers(plain)
    return Network(machine, plain, choose(machine, layers, dataflows, memory), host, memory)


def with_traffic(network: Network, memory: Memory) -> Network:
    """The network with its dataflows as they are, and what each would move with `memory`."""
    fresh = [choose(network.machine, (c.layer,), tuple(c.table), memory)[0] for c in network.choices]
    choices = tuple(replace(c, traffic=f.traffic) for c, f in zip(network.choices, fresh, strict=True))
    return replace(network, choices=choices, memory=memory)


def _with_one_zero(graph: Graph) -> Graph:
    """The graph with 0 for every -0 in its float32 constants: formats that leave zeros out do not tell them apart."""
    changed = {}
    for name, value in graph.constants.items():
        if value.dtype == np.float32 and np.signbit(value[value == 0]).any():
            changed[name] = value + np.float32(0)
    return replace(graph, constants={**graph.constants, **changed}) if changed else graph


def simulate_layer(network: Network, choice: Choice) -> Run:
    """The run of a layer's stream without values."""
    made, layer = network.lowered(choice), choice.layer
    data = np.broadcast_to(np.zeros((), network.graph.types[layer.data].dtype.numpy), network.graph.types[layer.data].shape)
    return simulate(made.stream, made.weights, np.ascontiguousarray(data), 0, Level.TIMING)


@dataclass(frozen=True)
class NetworkRun:
    """Outputs by public name, and every layer's counts by node name."""

    outputs: Map[str, Array]
    layers: Map[str, Run]
