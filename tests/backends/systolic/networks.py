"""Networks for tests: planned from imported graphs, and run in memory, without files or a C compiler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sparsec.backends.systolic import Dataflow, Level, Machine, Run, lower, simulate
from sparsec.backends.systolic.choose import Choice
from sparsec.backends.systolic.network import PIPELINE, Network, NetworkRun, map_network
from sparsec.backends.systolic.traffic import Memory
from sparsec.compiler.graph import ABSENT, Graph
from sparsec.compiler.ops.base import InArrays
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.epilogue import apply_epilogue
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.passing.runner import run_pipeline

Array = np.ndarray[Any, Any]


def plan_network(graph: Graph, machine: Machine, dataflows: Sequence[Dataflow] = (), memory: Memory | None = None) -> Network:
    """An imported graph after passes, mapped by `map_network`."""
    return map_network(run_pipeline(graph, PIPELINE), machine, dataflows, memory)


def run_network(network: Network, feeds: Mapping[str, Array], level: Level = Level.FOLDS) -> NetworkRun:
    """Outputs, the products computed by the simulator and the rest, epilogues included, by the interpreter's operators."""
    graph, chosen, runs = network.graph, {c.layer.node.name: c for c in network.choices}, dict[str, Run]()
    values: dict[str, Array] = {**graph.constants, **{name: np.asarray(feeds[name]) for name in graph.inputs}}
    for node in graph.nodes:
        operands = [values[v] if v != ABSENT else None for v in node.inputs]
        if node.name in chosen:
            results = _simulated(network, chosen[node.name], level, runs, operands)
        else:
            results = node.op.evaluate(operands)
        values.update(zip(node.outputs, results, strict=True))
    return NetworkRun({p.name: values[p.value] for p in graph.outputs}, runs)


def _simulated(network: Network, choice: Choice, level: Level, runs: dict[str, Run], operands: InArrays) -> tuple[Array, ...]:
    node, data, weights = choice.layer.node, operands[0], operands[1]
    op = node.op
    assert isinstance(op, Conv | MatMul) and data is not None and weights is not None
    layer = choice.layer if choice.layer.constant else choice.layer.bound(weights)
    made = lower(network.machine, [(g, choice.mapping) for g in choice.products(layer)])
    shape = op.infer(network.graph.in_types(node))[0].shape
    run = simulate(made.stream, made.weights, np.ascontiguousarray(data), int(np.prod(shape)), level)
    runs[node.name] = run
    return (apply_epilogue(op.epilogue, run.output.reshape(shape), operands[2:]),)
