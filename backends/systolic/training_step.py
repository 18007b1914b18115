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
from sparsec.backends.systolic.windows import Geometry

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Optimiser:
    """Stochastic gradient descent with momentum."""

    rate: float = 0.01
    momentum: float = 0.9


@dataclass(frozen=True)
class LayerState:
    """Weights and momenta [M, K] float32; `geometry` of a convolution, whose K is tap by tap, None for a full connection."""

    w: Array
    momentum: Array
    geometry: Geometry | None = None

    def columns(self, x: Array) -> Array:
        """What the weights multiply, [K, P], of a batch [B, ...]."""
        return x.reshape(len(x), -1).T if self.geometry is None else self.geometry.columns(x)

    def result(self, sums: Array, batch: int) -> Array:
        """Sums [M, P] as a batch."""
        return sums.T if self.geometry is None else np.moveaxis(sums.reshape(len(sums), batch, *self.geometry.out), 0, 1)

    def sums(self, result: Array) -> Array:
        """The inverse."""
        return result.T if self.geometry is None else np.moveaxis(result, 1, 0).reshape(len(self.w), -1)

    def spread(self, columns: Array, shape: tuple[int, ...]) -> Array:
        """The gradient of a batch of `shape`, of that of the columns."""
        return columns.T.reshape(shape) if self.geometry is None else self.geometry.added(columns, shape[0])


@dataclass(frozen=True)
class Step:
    """The layers after the step, the loss before, and simulated cycles by stage; `units` are those of SORE and WUVE."""

    layers: tuple[LayerState, ...]
    loss: float
    cycles: dict[str, int]
    units: int


@dataclass
class _Run:
    """The array and the units, with what they have counted."""

    machine: Machine
    level: Level
    pruning: tuple[int, int]
    mapping: dict[tuple[str, str], Mapping]
    cycles: dict[str, int]
    units: int = 0

    def product(self, layer: int, stage: str, w: Array, x: Array) -> Array:
        """W X in the dataflow that the schedule gives the stage, with W reduced to n:m where that is one for n:m."""
        mapping = self.mapping[str(layer), stage]
        w, x = np.ascontiguousarray(w), np.ascontiguousarray(x)
        made = lower(self.machine, [(product(w, x, stage), mapping)])
        run = simulate(made.stream, made.weights, x, len(w) * x.shape[1], self.level)
        self.cycles[stage] = self.cycles.get(stage, 0) + run.total.cycles
        return run.output.reshape(len(w), x.shape[1])

    def reduced(self, w: Array, pruned: bool) -> Array:
        """The weights that a pass multiplies by."""
        if not (pruned and self.pruning[0]):
            return w
        kept = sore(np.ascontiguousarray(w), *self.pruning, self.machine.cols)
        self.units += kept.cycles
        return kept.dense(w.shape[1], self.pruning[1])


def train_step(
    machine: Machine,
    layers: Sequence[LayerState],
    x: Array,
    target: Array,
    pruning: tuple[int, int] = (0, 0),
    optimiser: Optimiser | None = None,
    level: Level = Level.FOLDS,
) -> Step:
    """A step with ReLU between layers and half the squared error, averaged over the batch.

    x [batch, ...] and target [batch, M] are float32. `pruning` n:m ((0, 0): none) holds in FF and BP for all but the first and
    the last layer, the mask of each along what it reduces (BDWP). Dataflows are those of `training_schedule`.
    """
    how, batch, last = optimiser or Optimiser(), len(x), len(layers) - 1
    inputs, results, columns = [x], list[Array](), list[Array]()
    run = _Run(machine, level, pruning, {}, {})
    for i, layer in enumerate(layers):
        columns.append(layer.columns(inputs[-1]))
        shape = Trained(str(i), *_shape(layer), columns[-1].shape[1], pruned=0 < i < last, first=i == 0)
        for stage in training_schedule(machine, [shape], *pruning).stages:
            run.mapping[str(i), stage.name] = Mapping(stage.dataflow, None, *(pruning if stage.dataflow.grouped else (0, 0)))
        sums = run.product(i, "FF", run.reduced(layer.w, 0 < i < last), columns[-1])
        results.append(layer.result(sums, batch))
        inputs.append(np.maximum(results[-1], 0) if i < last else results[-1])
    error = (inputs[-1] - target) / np.float32(batch)
    after = list(layers)
    for i in range(last, -1, -1):
        layer, sums = layers[i], layers[i].sums(error)
        gradient = run.product(i, "WU", sums, columns[i].T)
        if i:
            spread = run.product(i, "BP", run.reduced(layer.w.T, 0 < i < last), sums)
            error = layer.spread(spread, inputs[i].shape) * (results[i - 1] > 0)
        w, momentum, took = wuve(layer.w, layer.momentum, gradient, how.rate, how.momentum, machine.cols)
        run.units += took
        after[i] = LayerState(w, momentum, layer.geometry)
    loss = 0.5 * float(np.square(inputs[-1] - target).sum()) / batch
    return Step(tuple(after), loss, run.cycles, run.units)


def _shape(layer: LayerState) -> tuple[int, int]:
    return int(layer.w.shape[0]), int(layer.w.shape[1])
