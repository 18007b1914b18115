"""A training step on SAT with bidirectional weight pruning (BDWP; Fang et al., arXiv 2309.13015): stages, units and schedule.

The paper does not publish its cycle formulas: THESE ARE OURS. Of a layer with weights W[M, K] and P positions in a batch:

    FF   Y = S_ci(W) X      reduces K, n:m along input channels
    BP   dX = S_co(W)^T dY  reduces M, n:m along output channels; columns of windows are added up as they are stored
    WU   dW = dY X^T        reduces P, dense; the update follows as gradients drain

Each stage takes the better of weight- and output-stationary. WUVE updates, and SORE picks the n largest of every m twice (for
both passes), a weight a cycle for every column, behind the gradients: a WU stage takes the longer of its product and its
updates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from sparsec.backends.systolic.closed_forms import dense_cycles, folds, grouped_cycles
from sparsec.backends.systolic.dataflow import Dataflow
from sparsec.backends.systolic.gemm import Gemm
from sparsec.backends.systolic.layers import Layer
from sparsec.backends.systolic.machine import Machine
from sparsec.compiler.errors import UsageError
from sparsec.compiler.graph import Graph

HALF, SINGLE = 2, 4  # bytes an element


@dataclass(frozen=True)
class Trained:
    """A layer of a training step: `count` products of W[M, K] by `positions` columns.

    `pruned`: its weights are n:m in FF and BP. `weights`: they are weights, which WU updates; else both operands are data, and WU
    is the other operand's gradient. `first`: nothing before it is trained, so it has no BP. `data`: elements that it reads.
    """

    name: str
    m: int
    k: int
    positions: int
    count: int = 1
    pruned: bool = True
    weights: bool = True
    first: bool = False
    data: int = 0

    @property
    def results(self) -> int:
        """Elements that it makes, all in all."""
        return self.count * self.m * self.positions


def dependents(graph: Graph, layers: Sequence[Layer]) -> frozenset[str]:
    """The values that depend on layers' weights: only these have gradients."""
    trained, found = {layer.node.name for layer in layers if layer.constant}, set[str]()
    for node in graph.nodes:
        if node.name in trained or found.intersection(node.inputs):
            found.update(node.outputs)
    return frozenset(found)


def trained_layers(graph: Graph, layers: Sequence[Layer], batch: int) -> tuple[Trained, ...]:
    """Layers of a network of batch 1 for a `batch`. The first convolution and the last product of weights stay dense, as in the
    paper, and so do depthwise layers and products of two computed matrices.
    """
    behind = dependents(graph, layers)
    last = max((i for i, layer in enumerate(layers) if layer.constant), default=-1)
    found = []
    for i, layer in enumerate(layers):
        gemm, inner = layer.gemms[0], layer.constant and 0 < i < last and layer.gemms[0].m > 1
        copies, positions = (1, batch) if layer.constant else (batch, 1)
        found.append(
            Trained(
                layer.node.name,
                gemm.m,
                gemm.k,
                gemm.n * positions,
                len(layer.gemms) * copies,
                pruned=inner,
                weights=layer.constant,
                first=layer.constant and layer.data not in behind,
                data=batch * sum(_elements(g) for g in layer.gemms),
            )
        )
    return tuple(found)


def _elements(gemm: Gemm) -> int:
    return gemm.windows.images * gemm.windows.channels * gemm.windows.height * gemm.windows.width


@dataclass(frozen=True)
class Stage:
    """One stage of a layer: the dataflow taken, its cycles, and those that waiting for updates or for memory adds to them."""

    layer: str
    name: str
    dataflow: Dataflow
    cycles: int
    waiting: int
    bytes: int


@dataclass(frozen=True)
class Schedule:
    """Stages in the order in which they run: FF forwards, then WU and BP of each layer backwards."""

    stages: tuple[Stage, ...]

    @property
    def cycles(self) -> int:
        """Of the whole step."""
        return sum(s.cycles + s.waiting for s in self.stages)

    def cycles_of(self, name: str) -> int:
        """Of the stages FF, BP or WU."""
        return sum(s.cycles + s.waiting for s in self.stages if s.name == name)


def training_schedule(
    machine: Machine, layers: Sequence[Trained], keep: int = 0, group: int = 0, bytes_per_cycle: float | None = None
) -> Schedule:
    """The step with `keep`:`group` weights (0: dense). UsageError for groups that the array's links cannot carry.

    With `bytes_per_cycle`, a stage takes at least what its operands and results take to and from memory, each once.
    """
    if keep and not 0 < keep < group <= machine.lanes:
        raise UsageError(f"{keep}:{group} does not fit {machine.name}, whose links carry groups of up to {machine.lanes} values")
    order = [(layer, "FF") for layer in layers]
    for layer in reversed(layers):
        order += [(layer, "WU")] if layer.first else [(layer, "WU"), (layer, "BP")]
    return Schedule(
        tuple(
            _stage(machine, layer, name, *((keep, group) if layer.pruned else (0, 0)), bytes_per_cycle) for layer, name in order
        )
    )


def _stage(machine: Machine, layer: Trained, name: str, keep: int, group: int, bytes_per_cycle: float | None) -> Stage:
    m, k, n = {
        "FF": (layer.m, layer.k, layer.positions),
        "BP": (layer.k, layer.m, layer.positions),
        "WU": (layer.m, layer.positions, layer.k),
    }[name]
    rows, cols = machine.rows, machine.cols
    table = {d: dense_cycles(d, rows, cols, m, k, n) for d in (Dataflow.DOS, Dataflow.DWS)}
    if keep and name != "WU":
        table |= {d: grouped_cycles(d, rows, cols, m, k, n, keep, group) for d in (Dataflow.NMOS, Dataflow.NMWS)}
    best = min(table, key=lambda d: table[d])
    cycles, moved = layer.count * table[best], _stage_bytes(layer, name, keep, group)
    update = layer.count * update_cycles(layer.m * layer.k, cols, bool(keep)) if name == "WU" and layer.weights else 0
    memory = ceil(moved / bytes_per_cycle) if bytes_per_cycle else 0
    return Stage(layer.name, name, best, cycles, max(0, update - cycles, memory - cycles), moved)


def _stage_bytes(layer: Trained, name: str, keep: int, group: int) -> int:
    """Of operands and results, each once: half precision, and weights and momenta of the optimiser in single precision."""
    weights = layer.count * layer.m * layer.k
    activations = HALF * (layer.data + layer.results)
    compact = HALF * weights
    if keep:
        compact = ceil(weights * keep / group * (HALF + (group - 1).bit_length() / 8))
    if name != "WU":
        return activations + compact
    if not layer.weights:
        return activations + HALF * weights
    return activations + 4 * SINGLE * weights + (2 if keep else 1) * compact  # master and momentum, read and written


def update_cycles(weights: int, width: int, sore: bool) -> int:
    """Cycles of WUVE, `width` weights a cycle, and of SORE behind it: once along input and once along output channels."""
    return folds(weights, width) * (2 if sore else 1)
