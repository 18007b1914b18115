"""Who computes a training step's products, masks and updates: the array and its units, or numpy for comparison."""

from __future__ import annotations

from collections.abc import Mapping as Map
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

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


class Engine(Protocol):
    """What a step asks for."""

    def product(self, layer: str, stage: str, w: Array, x: Array) -> Array:
        """W X of a layer's stage FF, BP or WU."""

    def kept(self, w: Array) -> Array:
        """`w` with all but the n largest magnitudes of every m values of a row 0; as it is where nothing is pruned."""

    def updated(self, w: Array, momentum: Array, gradient: Array) -> tuple[Array, Array]:
        """Weights and momenta after the step."""


@dataclass
class ArrayEngine:
    """The array, every product of which is simulated from its stream, SORE and WUVE; it counts their cycles."""

    machine: Machine
    pruning: tuple[int, int]
    optimiser: Optimiser
    mappings: Map[tuple[str, str], Mapping]
    level: Level = Level.FOLDS
    cycles: dict[str, int] = field(default_factory=lambda: {"FF": 0, "WU": 0, "BP": 0})
    units: int = 0

    def product(self, layer: str, stage: str, w: Array, x: Array) -> Array:
        w, x = np.ascontiguousarray(w), np.ascontiguousarray(x)
        made = lower(self.machine, [(product(w, x, layer), self.mappings[layer, stage])])
        run = simulate(made.stream, made.weights, x, len(w) * x.shape[1], self.level)
        self.cycles[stage] += run.total.cycles
        return run.output.reshape(len(w), x.shape[1])

    def kept(self, w: Array) -> Array:
        if not self.pruning[0]:
            return w
        found = sore(np.ascontiguousarray(w), *self.pruning, self.machine.cols)
        self.units += found.cycles
        return found.dense(w.shape[1], self.pruning[1])

    def updated(self, w: Array, momentum: Array, gradient: Array) -> tuple[Array, Array]:
        w, momentum, took = wuve(w, momentum, gradient, self.optimiser.rate, self.optimiser.momentum, self.machine.cols)
        self.units += took
        return w, momentum


def array_engine(
    machine: Machine,
    layers: Sequence[Trained],
    pruning: tuple[int, int] = (0, 0),
    optimiser: Optimiser | None = None,
    level: Level = Level.FOLDS,
) -> ArrayEngine:
    """With the dataflows that `training_schedule` gives the stages; `pruning` is n:m, (0, 0) for none."""
    mappings = {
        (s.layer, s.name): Mapping(s.dataflow, None, *(pruning if s.dataflow.grouped else (0, 0)))
        for s in training_schedule(machine, layers, *pruning).stages
    }
    return ArrayEngine(machine, pruning, optimiser or Optimiser(), mappings, level)


@dataclass(frozen=True)
class NumpyEngine:
    """The same without an array: products by numpy, masks by sorting, updates by their formula.

    `backwards`: products sum their last terms first, for what the order of float32 sums does to a step.
    """

    pruning: tuple[int, int]
    optimiser: Optimiser
    backwards: bool = False

    def product(self, layer: str, stage: str, w: Array, x: Array) -> Array:
        return np.asarray(np.ascontiguousarray(w[:, ::-1]) @ np.ascontiguousarray(x[::-1]) if self.backwards else w @ x)

    def kept(self, w: Array) -> Array:
        keep, group = self.pruning
        if not keep:
            return w
        padded = np.pad(w, ((0, 0), (0, -w.shape[1] % group))).reshape(len(w), -1, group)
        dropped = np.argsort(-np.abs(padded), axis=2, kind="stable")[:, :, keep:]
        out = padded.copy()
        np.put_along_axis(out, dropped, 0, axis=2)
        return out.reshape(len(w), -1)[:, : w.shape[1]]

    def updated(self, w: Array, momentum: Array, gradient: Array) -> tuple[Array, Array]:
        momentum = np.float32(self.optimiser.momentum) * momentum + gradient
        return w - np.float32(self.optimiser.rate) * momentum, momentum
