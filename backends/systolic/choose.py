"""The dataflow of every layer: the one with the fewest cycles, which the closed forms give exactly, or with those for memory."""

from __future__ import annotations

from collections.abc import Mapping as Map
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from sparsec.backends.systolic.closed_forms import dense_cycles, grouped_cycles, sparse_cycles
from sparsec.backends.systolic.dataflow import SAT, SEVEN, Dataflow
from sparsec.backends.systolic.gemm import Gemm
from sparsec.backends.systolic.isa import Number
from sparsec.backends.systolic.layers import Layer
from sparsec.backends.systolic.lower import Mapping, lower
from sparsec.backends.systolic.machine import Machine
from sparsec.backends.systolic.simulate.run import Level, simulate
from sparsec.backends.systolic.traffic import Memory, Traffic, traffic

GROUPINGS = ((1, 16), (1, 8), (2, 16), (1, 4), (2, 8), (1, 2), (2, 4), (4, 8))  # n:m that are looked for, sparser ones first


@dataclass(frozen=True)
class Choice:
    """A layer with the cycles of every dataflow that it can take, and the mapping that is taken.

    `joined`: the groups are one product in the chosen mapping. `traffic`: what every dataflow moves, where that was asked for;
    the mapping is then the one with the fewest cycles with what waiting for memory adds, else the one with the fewest without.
    """

    layer: Layer
    table: Map[Dataflow, int]
    mapping: Mapping
    joined: bool = False
    traffic: Map[Dataflow, Traffic] = field(default_factory=dict)

    @property
    def cycles(self) -> int:
        """Of the array, in the chosen dataflow."""
        return self.table[self.mapping.dataflow]

    @property
    def costs(self) -> dict[Dataflow, int]:
        """The cycles that dataflows are chosen by."""
        return {d: self.traffic[d].cycles if self.traffic else cycles for d, cycles in self.table.items()}

    @property
    def cost(self) -> int:
        """Those of the chosen dataflow."""
        return self.costs[self.mapping.dataflow]

    def products(self, layer: Layer | None = None) -> tuple[Gemm, ...]:
        """What is lowered, of `layer` with its weights bound (by default those of the choice)."""
        return _products(layer or self.layer, self.joined)


def _products(layer: Layer, joined: bool) -> tuple[Gemm, ...]:
    return (layer.joined,) if joined and layer.joined else layer.gemms


def choose(
    machine: Machine, layers: Sequence[Layer], dataflows: Sequence[Dataflow] = (), memory: Memory | None = None
) -> tuple[Choice, ...]:
    """The best of `dataflows` (by default those of the machine's family) for every layer; of equals the first.

    Best is by cycles of the array; with `memory`, by cycles with what waiting for it adds.
    """
    allowed = dataflows or (SEVEN if machine.family == "flexisaga" else SAT)
    return tuple(_choose(machine, layer, allowed, memory) for layer in layers)


def _choose(machine: Machine, layer: Layer, dataflows: Sequence[Dataflow], memory: Memory | None) -> Choice:
    grouping = grouping_of(layer, machine.lanes) if any(d.grouped for d in dataflows) else None
    full = not layer.constant or all(g.w.all() for g in layer.gemms)  # no zeros are known
    table: dict[Dataflow, int] = {}
    joined = set[Dataflow]()
    for dataflow in dataflows:
        if dataflow.grouped and grouping is None:
            continue
        if not dataflow.sparse or dataflow.grouped or full:
            table[dataflow] = len(layer.gemms) * product_cycles(machine, layer.gemms[0], dataflow, grouping, dense=full)
        else:
            table[dataflow] = sum(product_cycles(machine, g, dataflow) for g in layer.gemms)
        if layer.joined is not None and dataflow.sparse and not dataflow.grouped:
            together = product_cycles(machine, layer.joined, dataflow)
            if together < table[dataflow]:
                table[dataflow] = together
                joined.add(dataflow)
    mappings = {d: Mapping(d, None, *(grouping or (0, 0))) if d.grouped else Mapping(d) for d in table}
    moved = {d: _moved(machine, _products(layer, d in joined), m, memory) for d, m in mappings.items()} if memory else {}
    best = min(table, key=lambda d: moved[d].cycles if moved else table[d])
    return Choice(layer, table, mappings[best], best in joined, moved)


def _moved(machine: Machine, products: Sequence[Gemm], mapping: Mapping, memory: Memory) -> Traffic:
    """What the stream of `products` moves, by a run of it without values."""
    made = lower(machine, [(g, mapping) for g in products])
    data = np.zeros(max(g.reach for g in products), _ELEMENTS[products[0].data])
    return traffic(simulate(made.stream, made.weights, data, 0, Level.TIMING), memory, data.itemsize)


_ELEMENTS = {Number.F32: np.float32, Number.I8: np.int8, Number.U8: np.uint8}


def product_cycles(
    machine: Machine, gemm: Gemm, dataflow: Dataflow, grouping: tuple[int, int] | None = None, *, dense: bool = False
) -> int:
    """Cycles of one product by the closed forms; `dense` says that its weights are not known to have zeros."""
    rows, cols = machine.rows, machine.cols
    if dataflow.grouped:
        assert grouping is not None
        return grouped_cycles(dataflow, rows, cols, gemm.m, gemm.k, gemm.n, *grouping)
    if not dataflow.sparse or dense:
        plain = Dataflow("d" + dataflow.value[-2:])
        return dense_cycles(plain, rows, cols, gemm.m, gemm.k, gemm.n)
    return sparse_cycles(dataflow, rows, cols, gemm.w != 0, gemm.n, machine.lanes)


def grouping_of(layer: Layer, lanes: int) -> tuple[int, int] | None:
    """The sparsest n:m of `GROUPINGS` that all of a layer's weights have and links of `lanes` values can carry; None for none."""
    if not layer.constant:
        return None
    for keep, group in GROUPINGS:
        if group <= lanes and all(_has(g.w, keep, group) for g in layer.gemms):
            return keep, group
    return None


def _has(w: np.ndarray[tuple[int, ...], np.dtype[np.generic]], keep: int, group: int) -> bool:
    mask = w != 0
    full = np.pad(mask, ((0, 0), (0, -mask.shape[1] % group)))
    return bool((full.reshape(len(mask), -1, group).sum(axis=2) <= keep).all())
