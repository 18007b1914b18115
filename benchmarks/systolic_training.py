"""SAT: a training step with bidirectional n:m pruning against a dense one on the same array."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product

import models
from sparsec.backends.systolic import parse_machine
from sparsec.backends.systolic.layers import network_layers
from sparsec.backends.systolic.network import PIPELINE
from sparsec.backends.systolic.training import trained_layers, training_schedule
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.passing.runner import run_pipeline

MODELS = ("resnet50", "vgg19", "vit_b16")
ARRAYS = ("sat:16x16", "sat:32x32")
PATTERNS = ((2, 4), (2, 8), (2, 16))
BATCH = 32
BANDWIDTHS = (None, 128.0, 32.0)  # bytes a cycle between array and memory; None: no limit
PAPER = {(2, 8): 1.75}  # SAT's average over dense (arXiv 2309.13015, abstract)


@dataclass(frozen=True)
class TrainingRow:
    """Cycles of a step, dense and pruned, by stage; `ceiling` is the ratio of multiplications if all layers were pruned.

    `bytes_per_cycle` are what memory gives (None: all that is asked for), `waiting` what that and updates add to the pruned step.
    """

    model: str
    array: str
    batch: int
    bytes_per_cycle: float | None
    pattern: str
    dense: dict[str, int]
    sparse: dict[str, int]
    waiting: int
    ceiling: float

    @property
    def speedup(self) -> float:
        """Sparse over dense."""
        return sum(self.dense.values()) / sum(self.sparse.values())

    @property
    def record(self) -> dict[str, object]:
        """As JSON data."""
        return {**asdict(self), "speedup": self.speedup}


def rows(names: Sequence[str], arrays: Sequence[str] = ARRAYS, batch: int = BATCH) -> Iterator[TrainingRow]:
    """Every model, array and pattern."""
    for model in names:
        graph = run_pipeline(import_model(models.build(model)), PIPELINE)
        trained = trained_layers(graph, network_layers(graph)[0], batch)
        for array in arrays:
            machine = parse_machine(array)
            for (keep, group), bandwidth in product(PATTERNS, BANDWIDTHS):
                dense = training_schedule(machine, trained, bytes_per_cycle=bandwidth)
                sparse = training_schedule(machine, trained, keep, group, bandwidth)
                before, after = ({name: s.cycles_of(name) for name in ("FF", "BP", "WU")} for s in (dense, sparse))
                waiting = sum(s.waiting for s in sparse.stages)
                yield TrainingRow(
                    model, array, batch, bandwidth, f"{keep}:{group}", before, after, waiting, 3 / (1 + 2 * keep / group)
                )
