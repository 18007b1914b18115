"""Whole networks on FlexiSAGA's seven dataflows: sparse over dense by array, sparsity and pruned vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import models
from sparsec.backends.systolic import SEVEN, Dataflow, Machine, parse_machine
from sparsec.backends.systolic.dataflow import DENSE
from sparsec.backends.systolic.network import PIPELINE, Network, map_network, simulate_layer
from sparsec.backends.systolic.pattern import matched_goal
from sparsec.compiler.graph import Graph
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.passing.runner import run_pipeline
from sparsec.passes.pruning.prune import prune_graph, with_weights
from sparsec.passes.pruning.recipe import make_recipe

MODELS = ("resnet50", "vgg16", "mobilenet_v2", "inception_v3")
SIDES = (8, 16, 32)
SPARSITIES = (0.5, 0.6, 0.7, 0.8, 0.9)
VECTORS = ("outputs", "channels", "none")
PAPER = (1.41, 4.28)  # FlexiSAGA's range of whole-network speed-ups (arXiv 2506.01566, abstract)


@dataclass(frozen=True)
class Row:
    """A pruned network: cycles by the best dense dataflow a layer, by the best of seven a layer, and of each for all layers.

    `structure`: cycles of the dense weights by the best of seven, which leave out what is zero between a convolution's groups.
    `simulated` are the cycles that the streams of all layers took; 0 where they were not run.
    """

    model: str
    array: str
    pattern: str
    kept: float
    dense: int
    structure: int
    best: int
    alone: dict[str, int]
    simulated: int

    @property
    def speedup(self) -> float:
        """Pruned over dense weights, both in the best of seven a layer: what pruning gains."""
        return self.structure / self.best

    @property
    def record(self) -> dict[str, object]:
        """As JSON data."""
        return {**asdict(self), "speedup": self.speedup}


def final_graph(model: str) -> Graph:
    """A model of models/ after the passes."""
    return run_pipeline(import_model(models.build(model)), PIPELINE)


def pruned(graph: Graph, machine: Machine, vectors: str, sparsity: float) -> tuple[Graph, str, float]:
    """The graph with vectors matched to the array's side, their pattern, and the share of the pruned layers' weights kept."""
    dataflow = {"outputs": Dataflow.SOS, "channels": Dataflow.SIS}.get(vectors)
    pattern = str(matched_goal(machine, dataflow, sparsity)) if dataflow else f"unstructured@{100 * sparsity:g}%"
    done = prune_graph(graph, make_recipe({"pattern": pattern}))
    layers = [r for r in done.report.layers if r.status == "pruned"]
    kept = sum(r.kept for r in layers) / max(1, sum(r.elements for r in layers))
    return with_weights(graph, done), pattern, kept


def measure(network: Network, dense: int, structure: int, pattern: str, kept: float, model: str, simulate: bool) -> Row:
    """One row; an AssertionError where the streams take other cycles than the closed forms say."""
    simulated = sum(simulate_layer(network, c).total.cycles for c in network.choices) if simulate else 0
    assert simulated in (0, network.cycles)
    alone = {d.value: network.cycles_of(d) for d in SEVEN}
    assert network.cycles <= min(alone.values())
    return Row(model, network.machine.name, pattern, kept, dense, structure, network.cycles, alone, simulated)


def rows(names: Sequence[str], sides: Sequence[int], sparsities: Sequence[float], vectors: str = VECTORS[0]) -> Iterator[Row]:
    """Pruned in one of `VECTORS`: those of R outputs, of R channels, for sIS, or none, for csOS. Streams are run on the middle
    array."""
    for model in names:
        graph = final_graph(model)
        for side in sides:
            machine = parse_machine(f"flexisaga:{side}x{side}")
            dense = map_network(graph, machine, DENSE).cycles
            structure = map_network(graph, machine).cycles
            for sparsity in sparsities:
                sparse, pattern, kept = pruned(graph, machine, vectors, sparsity)
                network = map_network(sparse, machine)
                yield measure(network, dense, structure, pattern, kept, model, simulate=side == sides[len(sides) // 2])
