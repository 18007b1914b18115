"""How much weights matter."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import numpy as np

from sparsec.compiler.errors import UsageError
from sparsec.compiler.graph import Graph
from sparsec.compiler.ops.batch_norm import BatchNorm
from sparsec.compiler.sparsity import Block, Sparsity
from sparsec.compiler.sparsity.weights import LayerWeights

Array = np.ndarray[Any, Any]


class Criterion(StrEnum):
    """What is kept: the largest sum of |w|, of w^2, or the blocks whose weights vary most."""

    l1 = "l1"
    l2 = "l2"
    variance = "variance"


def output_scale(graph: Graph, layer: LayerWeights) -> Array | None:
    """|scale| [OC] of the BatchNorm that alone reads a layer's result; None without one, or when it is computed."""
    if len(layer.nodes) != 1:
        return None
    user = graph.only_user(layer.nodes[0].output)
    if user is None or not isinstance(user.op, BatchNorm) or user.inputs[0] != layer.nodes[0].output:
        return None
    gamma, variance = graph.constants.get(user.inputs[1]), graph.constants.get(user.inputs[4])
    rank = graph.types[user.output].rank
    if gamma is None or variance is None or (rank > 2 and graph.types[layer.value].rank == 2):  # not the layer's outputs
        return None
    return np.abs(gamma.astype(np.float64)) / np.sqrt(variance.astype(np.float64) + user.op.epsilon)


def scores(w: Array, scale: Array | None, criterion: Criterion, pattern: Sparsity) -> Array:
    """The importance of every weight of filters w [OC, taps, IC], as float32: |w| or w^2 of the normalised layer.

    With `variance`, every weight's squared distance from its block's mean, whose sum is the block's importance.
    """
    seen = w.astype(np.float32) if scale is None else (w * scale[:, None, None]).astype(np.float32)
    if criterion is Criterion.l1:
        return np.abs(seen)
    if criterion is Criterion.l2:
        return seen * seen
    if not isinstance(pattern, Block):
        raise UsageError(f"the criterion variance compares blocks, and {pattern.spec} has none: use l1 or l2")
    axes = (1, 2, 4) if pattern.taps == "shared" else (1, 4)
    sizes = pattern.split(np.ones_like(seen)).sum(axis=axes)
    means = pattern.split(seen).sum(axis=axes) / np.maximum(sizes, 1)
    spread = pattern.spread(means[:, None] if pattern.taps == "shared" else means, seen.shape)
    return np.asarray((seen - spread) ** 2)
