"""Prune a model's layers with calibration data."""

from __future__ import annotations

from collections.abc import Callable

from sparsec.compiler.exporter.weights import WeightEditor
from sparsec.compiler.graph import Graph
from sparsec.compiler.pruning_report import PruneReport
from sparsec.compiler.sparsity.weights import layer_weights
from sparsec.passes.pruning.calibrated.data import Samples
from sparsec.passes.pruning.calibrated.reconstruct import Reconstructor, Settings
from sparsec.passes.pruning.prune import Pruned, goals_by_value, layer_report, prune_graph
from sparsec.passes.pruning.recipe import Recipe


def prune_calibrated(
    editor: WeightEditor, graph: Graph, recipe: Recipe, samples: Samples, settings: Settings, progress: Callable[[str], None]
) -> Pruned:
    """Prune the model in `editor`, imported as `graph`, so that its results on the samples stay close to what they were.

    Weights and biases are replaced. Layers in subgraphs and functions, fused ones, and very wide ones are pruned by magnitude,
    and the report says so.
    """
    pruned = prune_graph(graph, recipe, editor.blocked)
    layers = layer_weights(graph)
    asked = goals_by_value(layers, recipe)
    views = {layer.value: layer.view for layer in layers}
    masks = {value: (asked[value], views[value].filters(array) != 0) for value, array in pruned.weights.items()}
    done = Reconstructor(graph, editor, samples, settings).run(layers, masks, progress)

    weights, patterns, reports = {}, dict(pruned.patterns), []
    for layer, report in zip(layers, pruned.report.layers, strict=True):
        goal, after = asked.get(layer.value), done.filters.get(layer.value)
        if after is not None:
            weights[layer.value] = layer.view.restore(after, graph.constants[layer.value].shape)
        if layer.value not in masks or after is None or goal is None:
            reports.append(report)
            continue
        patterns.pop(layer.value, None)
        if goal.pattern.holds(after):
            patterns[layer.value] = goal.pattern.of(after)
        remarks = (*report.remarks, *([done.remarks[layer.value]] if layer.value in done.remarks else []))
        before = layer.view.filters(graph.constants[layer.value])
        reports.append(layer_report(layer, report.shape, goal, "pruned", remarks, before, after))
    return Pruned(weights, patterns, PruneReport(layers=tuple(reports)))
