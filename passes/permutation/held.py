"""Classes of channels that stay in order for a sparse layer that pruning leaves alone, whose pattern another order breaks."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from sparsec.compiler.graph import Graph
from sparsec.compiler.sparsity import NM, Block, Dense, Sparsity, Unstructured
from sparsec.compiler.sparsity.detect import MIN_SPARSITY, detect
from sparsec.compiler.sparsity.text import Goal
from sparsec.compiler.sparsity.weights import LayerWeights, layer_weights
from sparsec.passes.permutation.coupling import ChannelClass, Coupling
from sparsec.passes.permutation.search.part import OUTPUTS
from sparsec.passes.pruning.prune import goals_by_value, layer_names
from sparsec.passes.pruning.recipe import Recipe


def hold(coupling: Coupling, graph: Graph, recipe: Recipe, wanted: Collection[str]) -> Coupling:
    """The coupling with those classes fixed whose order sparse layers need as it is.

    `wanted` are the weights, by name, that the recipe prunes. Another layer's pattern is the one that the model records, what is
    asked of it where it has that already, or the tightest that its weights have.
    """
    layers = layer_weights(graph)
    asked = goals_by_value(layers, recipe)
    patterns = {x.value: _patterns(graph, x, asked.get(x.value)) for x in layers if x.value not in wanted}
    return Coupling(tuple(_held(c, patterns) for c in coupling.classes))


def holds_in_any_order(pattern: Sparsity, role: str) -> bool:
    """Whether weights keep the pattern however the channels are ordered along their "outputs" or "inputs"."""
    match pattern:
        case NM():
            return role == OUTPUTS and pattern.rows == 1
        case Block():
            return pattern.br == 1 if role == OUTPUTS else pattern.columns_together == 1
        case _:
            return isinstance(pattern, Dense | Unstructured)


def _patterns(graph: Graph, layer: LayerWeights, asked: Goal | None) -> tuple[Sparsity, ...]:
    array, claim = graph.constants[layer.value], graph.types[layer.value].sparsity
    if layer.reason or layer.depthwise or np.count_nonzero(array) > (1 - MIN_SPARSITY) * array.size:
        return (claim,)
    return (claim, *detect(layer.view.filters(array), claim if asked is None else asked.pattern)[:1])


def _held(c: ChannelClass, patterns: Mapping[str, Sequence[Sparsity]]) -> ChannelClass:
    for place in c.places:
        for pattern in patterns.get(place.layer.value, ()):
            if not c.fixed and not holds_in_any_order(pattern, place.role):
                name = layer_names(place.layer)[0]
                return replace(c, fixed=f"{name!r} stays as it is, and is {pattern.spec} in this order of its {place.role} only")
    return c
