"""A training step on SAT with bidirectional weight pruning (BDWP; Fang et al., arXiv 2309.13015): stages, units and schedule.

The paper does not publish its cycle formulas: THESE ARE OURS. Of a layer with weights W[M, K] and P positions in a batch:

    FF   Y = S_ci(W) X      reduces K, n:m along input channels
    BP   dX = S_co(W)^T dY  reduces M, n:m along output channels; columns of windows are added up as they are stored
    WU   dW = dY X^T        reduces P, dense; the update follows as gradients drain

Each stage takes the better of weight- and output-stationary. WUVE updates, and SORE picks the n largest of every m twice (for
both passes), `width` weights a cycle, behind the gradients: a WU stage takes the longer of its product and its updates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sparsec.backends.systolic.closed_forms import dense_cycles, folds, grouped_cycles
from sparsec.backends.systolic.dataflow import Dataflow
from sparsec.backends.systolic.layers import Layer
from sparsec.backends.systolic.machine import Machine
from sparsec.compiler.errors import UsageError


@dataclass(frozen=True)
class Trained:
    """A layer of a training step: `count` products of W[M, K] by `positions` columns.

    `pruned`: its weights are n:m in FF and BP. `weights`: they are weights, which WU updates; else both operands are data, and WU
    is the other operand's gradient. `first`: nothing before it needs a gradient.
    """

    name: str
    m: int
    k: int
    positions: int
    count: int = 1
    pruned: bool = True
    weights: bool = True
    first: bool = False


def trained_layers(layers: Sequence[Layer], batch: int) -> tuple[Trained, ...]:
    """Layers of a network of batch 1 for a `batch`. The first convolution and the last product of weights stay dense, as in the
    paper, and so do depthwise layers and products of two computed matrices.
    """
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
                first=i == 0,
            )
        )
    return tuple(found)


@dataclass(frozen=True)
class Stage:
    """One stage of a layer: the dataflow taken, its cycles, and those that waiting for updates adds to them."""

    layer: str
    name: str
    dataflow: Dataflow
    cycles: int
    waiting: int = 0


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


def training_schedule(machine: Machine, layers: Sequence[Trained], keep: int = 0, group: int = 0) -> Schedule:
    """The step with `keep`:`group` weights (0: dense). UsageError for groups that the array's links cannot carry."""
    if keep and not 0 < keep < group <= machine.lanes:
        raise UsageError(f"{keep}:{group} does not fit {machine.name}, whose links carry groups of up to {machine.lanes} values")
    forward = [_stage(machine, layer, "FF", keep, group) for layer in layers]
    backward = []
    for layer in reversed(layers):
        backward.append(_stage(machine, layer, "WU", 0, 0, updates=bool(layer.weights), sore=bool(keep and layer.pruned)))
        if not layer.first:
            backward.append(_stage(machine, layer, "BP", keep, group))
    return Schedule((*forward, *backward))


def _stage(
    machine: Machine, layer: Trained, name: str, keep: int, group: int, *, updates: bool = False, sore: bool = False
) -> Stage:
    m, k, n = {
        "FF": (layer.m, layer.k, layer.positions),
        "BP": (layer.k, layer.m, layer.positions),
        "WU": (layer.m, layer.positions, layer.k),
    }[name]
    rows, cols = machine.rows, machine.cols
    table = {d: dense_cycles(d, rows, cols, m, k, n) for d in (Dataflow.DOS, Dataflow.DWS)}
    if keep and layer.pruned:
        sparse = (Dataflow.NMOS, Dataflow.NMWS)
        table |= {d: grouped_cycles(d, rows, cols, m, k, n, keep, group) for d in sparse}
    best = min(table, key=lambda d: table[d])
    cycles = layer.count * table[best]
    update = layer.count * update_cycles(layer.m * layer.k, cols, sore) if updates else 0
    return Stage(layer.name, name, best, cycles, max(0, update - cycles))


def update_cycles(weights: int, width: int, sore: bool) -> int:
    """Cycles of WUVE, `width` weights a cycle, and of SORE behind it: once along input and once along output channels."""
    return folds(weights, width) * (2 if sore else 1)
