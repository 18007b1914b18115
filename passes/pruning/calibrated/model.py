"""Prune a model's layers with calibration data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from sparsec.compiler.errors import UsageError
from sparsec.compiler.exporter.weights import WeightEditor
from sparsec.compiler.graph import Graph
from sparsec.compiler.pruning_report import PruneReport
from sparsec.compiler.sparsity import DENSE, Block, HiNM, Sparsity
from sparsec.compiler.sparsity.text import Goal
from sparsec.compiler.sparsity.weights import layer_weights
from sparsec.passes.permutation.search.api import Method
from sparsec.passes.pruning.calibrated.data import Samples
from sparsec.passes.pruning.calibrated.importance import Importance
from sparsec.passes.pruning.calibrated.memory import Memory
from sparsec.passes.pruning.calibrated.reconstruct import Reconstructor, Settings
from sparsec.passes.pruning.masks import excess_of
from sparsec.passes.pruning.prune import Pruned, goals_by_value, layer_report, prune_graph, tails
from sparsec.passes.pruning.recipe import Recipe

Array = np.ndarray[Any, Any]


def prune_calibrated(
    editor: WeightEditor,
    graph: Graph,
    recipe: Recipe,
    samples: Samples,
    settings: Settings,
    progress: Callable[[str], None],
    memory: Memory | None = None,
) -> Pruned:
    """Prune the model in `editor`, imported as `graph`, so that its results on the samples stay close to what they were.

    Weights and biases are replaced. Layers in subgraphs and functions, fused ones, and very wide ones are pruned by magnitude,
    and the report says so. `memory` is that of prunings of the same model with the same samples and settings by recipes that ask
    for other patterns. UsageError for what the recipe asks for and pruning with data does not do.
    """
    _check(recipe, settings)
    pruned = prune_graph(graph, recipe, editor.blocked)
    layers = layer_weights(graph)
    asked = goals_by_value(layers, recipe)
    views = {layer.value: layer.view for layer in layers}
    masks = {value: (asked[value], views[value].filters(array) != 0) for value, array in pruned.weights.items()}
    order_seed = None if recipe.permute is Method.none else recipe.seed
    done = Reconstructor(graph, editor, samples, settings, order_seed, memory).run(layers, masks, progress)

    weights, patterns, reports = {}, dict(pruned.patterns), []
    for layer, report in zip(layers, pruned.report.layers, strict=True):
        goal, after = asked.get(layer.value), done.filters.get(layer.value)
        if after is not None:
            weights[layer.value] = layer.view.restore(after, graph.constants[layer.value].shape)
        if layer.value not in masks or after is None or goal is None:
            more = (done.remarks[layer.value],) if layer.value in done.remarks else ()
            reports.append(report.model_copy(update={"remarks": (*report.remarks, *more)}))
            continue
        by_size = patterns.pop(layer.value, goal.pattern)
        found = next((p for p in _candidates(goal.pattern, by_size, done.lists.get(layer.value), after) if p.holds(after)), DENSE)
        if found != DENSE:
            patterns[layer.value] = found.of(after)
        remarks = _remarks(goal, after, done.remarks.get(layer.value, ""))
        before = layer.view.filters(graph.constants[layer.value])
        reports.append(layer_report(layer, report.shape, goal, "pruned", remarks, before, after))
    return Pruned(weights, patterns, PruneReport(layers=tuple(reports)))


def _candidates(asked: Sparsity, by_size: Sparsity, lists: Array | None, after: Array) -> list[Sparsity]:
    """What new filters may be: what was asked for, in the order that data or magnitude chose for its tiles."""
    ordered = [asked.ordered(lists, after)] if lists is not None and isinstance(asked, HiNM) else []
    return [*ordered, by_size, asked]


def _check(recipe: Recipe, settings: Settings) -> None:
    """UsageError for what a recipe asks for and pruning with data does not do."""
    if recipe.steps > 1 and settings.importance is not Importance.magnitude:
        raise UsageError(
            f"the recipe takes {recipe.steps} steps, and masks chosen with data are taken in one: "
            f"give steps 1, or the importance magnitude"
        )
    if recipe.preserve_norm:
        raise UsageError("preserve_norm rescales the weights that calibration data fits: leave it out, or prune without data")


def _remarks(goal: Goal, after: Array, why: str) -> tuple[str, ...]:
    """What of a layer's result differs from what was asked for."""
    pattern, shape = goal.pattern, (after.shape[0], after.shape[1], after.shape[2])
    excess = excess_of(pattern, pattern.kept(after), goal.sparsity) if isinstance(pattern, Block) else ()
    return (*tails(pattern, shape), *excess, *([why] if why else []))
