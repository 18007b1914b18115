"""One step of training a chain of layers, every product of which is simulated from its stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsec.backends.systolic.gemm import product
from sparsec.backends.systolic.lower import Mapping, lower
from sparsec.backends.systolic.machine import Machine
from sparsec.backends.systolic.simulate.run import Level, simulate
from sparsec.backends.systolic.training import Trained, training_schedule
from sparsec.backends.systolic.units import sore, wuve

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Optimiser:
    """Stochastic gradient descent with momentum."""

    rate: float = 0.01
    momentum: float = 0.9


@dataclass(frozen=True)
class Step:
    """New weights and momenta, the loss before, and simulated cycles by stage; `units` are those of SORE and WUVE."""

    weights: tuple[Array, ...]
    momenta: tuple[Array, ...]
    loss: float
    cycles: dict[str, int]
    units: int


@dataclass
class _Array:
    """The array, and what it has counted."""

    machine: Machine
    level: Level
    cycles: dict[str, int]

    def product(self, stage: str, mapping: Mapping, w: Array, x: Array) -> Array:
        """W X, simulated."""
        made = lower(self.machine, [(product(np.ascontiguousarray(w), np.ascontiguousarray(x), stage), mapping)])
        run = simulate(made.stream, made.weights, np.ascontiguousarray(x), len(w) * x.shape[1], self.level)
        self.cycles[stage] = self.cycles.get(stage, 0) + run.total.cycles
        return run.output.reshape(len(w), x.shape[1])


def train_step(
    machine: Machine,
    weights: Sequence[Array],
    momenta: Sequence[Array],
    x: Array,
    target: Array,
    pruning: tuple[int, int] | None,
    optimiser: Optimiser = Optimiser(),  # frozen
    level: Level = Level.FOLDS,
) -> Step:
    """A step of fully connected layers with ReLU between them and half the squared error, averaged over the batch.

    `weights` [M, K] float32, x [K, batch], target [M, batch]. `pruning` n:m holds for FF and BP of all but the first and the last
    layer, the mask of each along what it reduces. Dataflows are those of `training_schedule`.
    """
    array, last, units = _Array(machine, level, {}), len(weights) - 1, 0
    shapes = [
        Trained(str(i), w.shape[0], w.shape[1], x.shape[1], pruned=0 < i < last, first=i == 0) for i, w in enumerate(weights)
    ]
    keep, group = pruning or (0, 0)
    flows = {(s.layer, s.name): s.dataflow for s in training_schedule(machine, shapes, keep, group).stages}
    mapping = {key: Mapping(d, None, keep, group) if d.grouped else Mapping(d) for key, d in flows.items()}
    inputs, sums = [x], list[Array]()
    for i, w in enumerate(weights):
        chosen, took = _kept(w, pruning if shapes[i].pruned else None, machine.cols)
        sums.append(array.product("FF", mapping[str(i), "FF"], chosen, inputs[-1]))
        units += took
        inputs.append(np.maximum(sums[-1], 0) if i < last else sums[-1])
    error = (inputs[-1] - target) / np.float32(x.shape[1])
    new_weights, new_momenta = list(weights), list(momenta)
    for i in range(last, -1, -1):
        gradient = array.product("WU", mapping[str(i), "WU"], error, inputs[i].T)
        if i:
            chosen, took = _kept(weights[i].T, pruning if shapes[i].pruned else None, machine.cols)
            error = array.product("BP", mapping[str(i), "BP"], chosen, error) * (sums[i - 1] > 0)
            units += took
        new_weights[i], new_momenta[i], took = wuve(
            weights[i], momenta[i], gradient, optimiser.rate, optimiser.momentum, machine.cols
        )
        units += took
    loss = 0.5 * float(np.square(inputs[-1] - target).sum()) / x.shape[1]
    return Step(tuple(new_weights), tuple(new_momenta), loss, array.cycles, units)


def _kept(w: Array, pruning: tuple[int, int] | None, width: int) -> tuple[Array, int]:
    """The weights that a pass multiplies by, and SORE's cycles for them."""
    if pruning is None:
        return w, 0
    reduced = sore(w, *pruning, width)
    return reduced.dense(w.shape[1], pruning[1]), reduced.cycles
