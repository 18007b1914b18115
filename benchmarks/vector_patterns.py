"""Vector patterns of other tools, for comparison: sparsec has no kernels for them.

    ovw:32@75%     every tile of 32 outputs keeps the best quarter of its columns (an input channel of a tap): vectors of 32
                   weights, as many in every tile (OVW: Tan et al., Accelerating Sparse Convolution with Column Vector-Wise
                   Sparsity, NeurIPS 2022)
    vnm:32:2:8     every tile of 32 outputs keeps 4 of 8 consecutive input channels of a tap, and every output 2 of these 4
                   (V:N:M, VENOM: Castro et al., SC 2023, arXiv 2310.02065)

Masks are those of the largest sums; the papers' own orders of rows and fine-tuning are replaced by what sparsec does for its own
patterns, so that a table compares what the patterns allow.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnx

from benchmarks.accuracy_task import Feeds
from sparsec.compiler.graph import Graph
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.sparsity.text import Goal
from sparsec.compiler.sparsity.weights import layer_weights
from sparsec.passes.permutation.permute import permute
from sparsec.passes.pruning.calibrated.data import model_inputs, read_samples
from sparsec.passes.pruning.calibrated.energy import weight_energy
from sparsec.passes.pruning.calibrated.importance import Importance
from sparsec.passes.pruning.calibrated.reconstruct import Reconstructor, Settings
from sparsec.passes.pruning.model import Model, editor_of
from sparsec.passes.pruning.prune import Wanted, wanted_layers
from sparsec.passes.pruning.recipe import make_recipe
from sparsec.passes.pruning.scores import Criterion, output_scale, scores

Array = np.ndarray[Any, Any]
SELECTED = 4  # columns of every m that V:N:M keeps


@dataclass(frozen=True)
class Vectors:
    """A vector pattern: tiles of `v` outputs; `n` is 0 for OVW, whose tiles keep `1 - sparsity` of their columns."""

    v: int
    sparsity: float
    n: int = 0
    m: int = 0

    @property
    def nearest(self) -> str:
        """The pattern of sparsec's that decides on the same vectors: what orders of channels are searched for."""
        return f"{SELECTED}:{self.m}/rows={self.v}" if self.n else f"block:{self.v}x1@{100 * self.sparsity:g}%/taps=each"

    def mask(self, score: Array) -> Array:
        """What is kept of filters with this importance, [OC, taps, IC]. Fewer outputs than `v` are one tile."""
        return np.concatenate([self._tile(score[i : i + self.v]) for i in range(0, len(score), self.v)])

    def _tile(self, score: Array) -> Array:
        columns = score.sum(axis=0)
        if not self.n:
            kept = _largest(columns.reshape(1, -1), round((1 - self.sparsity) * columns.size))
            return np.broadcast_to(kept.reshape(columns.shape), score.shape)
        oc, taps, ic = score.shape
        if ic % self.m:
            raise ValueError(f"{ic} input channels are no multiple of {self.m}")
        vectors = _largest(columns.reshape(taps, -1, self.m), SELECTED).reshape(1, taps, -1, self.m)
        inside = np.where(vectors, score.reshape(oc, taps, -1, self.m), -1)
        return (_largest(inside, self.n) & vectors).reshape(score.shape)


def parse(text: str) -> Vectors | None:
    """The vector pattern that a text names; None for patterns of sparsec's own."""
    if found := re.fullmatch(r"ovw:(\d+)@([\d.]+)%", text):
        return Vectors(int(found[1]), float(found[2]) / 100)
    if found := re.fullmatch(r"vnm:(\d+):(\d+):(\d+)", text):
        v, n, m = map(int, found.groups())
        return Vectors(v, 1 - n / m, n, m)
    return None


@dataclass(frozen=True)
class VectorPruned:
    """A model with masks of a vector pattern, and the share of the pruned layers' weights that is left."""

    proto: onnx.ModelProto
    density: float


def prune_vectors(
    model: Model,
    pattern: Vectors,
    options: Callable[[str], Mapping[str, Any]],
    feeds: Feeds,
    settings: Settings | None,
    *,
    reorder: bool = False,
    seed: int = 0,
) -> VectorPruned:
    """Prune the layers that a recipe with `options` would; settings None: by magnitude, and nothing makes up for it.

    The importance magnitude compares |w|, every other one the energy of what weights add to their outputs. `reorder` first puts
    channels into an order that keeps more of the nearest pattern.
    """
    editor, shapes = editor_of(model), {name: a.shape for name, a in feeds.items()}
    proto, samples = editor.proto, read_samples(feeds, model_inputs(editor.proto))

    def energy(graph: Graph, found: Mapping[str, Wanted]) -> Mapping[str, Array]:
        if settings is None or settings.importance is Importance.magnitude:
            return {}
        return weight_energy(graph, proto, samples, [w.layer for w in found.values()], seed)

    if reorder:
        graph = import_model(proto, input_shapes=shapes, as_stored=True)
        recipe = make_recipe({**options(pattern.nearest), "permute": "gyro", "seed": seed})
        permute(graph, editor, recipe, energy=partial(energy, graph))
    graph = import_model(proto, input_shapes=shapes)
    wanted = wanted_layers(graph, make_recipe(options("1:4")), editor.blocked)  # fits every layer that has 4 channels
    worth, masks = energy(graph, wanted), dict[str, tuple[Goal, Array]]()
    for value, found in wanted.items():
        w = found.layer.view.filters(graph.constants[value])
        plain = scores(w, output_scale(graph, found.layer), Criterion.l1, found.goal.pattern)
        masks[value] = found.goal, pattern.mask(np.square(w) * worth[value] if value in worth else plain)
        if settings is None:
            array = graph.constants[value]
            editor.replace(value, found.layer.view.restore(np.where(masks[value][1], w, 0).astype(w.dtype), array.shape))
    if settings is not None:
        given = Settings(Importance.magnitude, settings.repair, settings.refit, seed=seed, threads=settings.threads)
        Reconstructor(graph, editor, samples, given).run(layer_weights(graph), masks, lambda _: None)
    kept = np.concatenate([mask.reshape(-1) for _, mask in masks.values()])
    return VectorPruned(proto, float(kept.mean()))


def _largest(score: Array, count: int) -> Array:
    """Mask of the `count` largest on the last axis, the first of equals."""
    order = np.argsort(-score, axis=-1, kind="stable")[..., :count]
    mask = np.zeros(score.shape, bool)
    np.put_along_axis(mask, order, True, axis=-1)
    return mask
