"""Prune an ONNX model with calibration data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import onnx
from onnx import external_data_helper

from sparsec.compiler.exporter.weights import WeightEditor
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.importer.claims import METADATA_KEY, claims_text
from sparsec.compiler.limits import Limits
from sparsec.compiler.pruning_report import PruneReport
from sparsec.compiler.sparsity.weights import layer_weights
from sparsec.passes.pruning.calibrated.data import Source, model_inputs, read_samples
from sparsec.passes.pruning.calibrated.reconstruct import Reconstructor, Settings
from sparsec.passes.pruning.model import PrunedModel, editor_of
from sparsec.passes.pruning.prune import goals_by_value, layer_report, prune_graph
from sparsec.passes.pruning.recipe import Recipe, make_recipe


def prune_with_data(
    model: str | Path | onnx.ModelProto | bytes,
    recipe: Recipe | str,
    data: Source,
    settings: Settings | None = None,
    *,
    dims: Mapping[str, int] | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    limits: Limits | None = None,
    progress: Callable[[str], None] | None = None,
) -> PrunedModel:
    """Prune `model`, which is not changed, so that its results on `data` (see `read_samples`) stay close to what they were.

    As `prune` otherwise. Layers in subgraphs and functions, fused ones, and very wide ones are pruned by magnitude, and the
    report says so. External data ends up inside the result. `dims` and `input_shapes` bind the graph that is returned; without
    them the first batch of the data does. Raises a SparsecError.
    """
    say = progress or (lambda _: None)
    wanted = make_recipe({"pattern": recipe}) if isinstance(recipe, str) else recipe
    say("read calibration data")
    editor = _embedded(model)
    samples = read_samples(data, model_inputs(editor.proto))
    graph = import_model(editor.proto, input_shapes=samples.shapes(), limits=limits or Limits())
    pruned = prune_graph(graph, wanted, editor.blocked)

    layers = layer_weights(graph)
    asked = goals_by_value(layers, wanted)
    views = {layer.value: layer.view for layer in layers}
    masks = {value: (asked[value], views[value].filters(array) != 0) for value, array in pruned.weights.items()}
    done = Reconstructor(graph, editor, samples, settings or Settings()).run(layers, masks, say)

    patterns, reports = dict(pruned.patterns), []
    for layer, report in zip(layers, pruned.report.layers, strict=True):
        goal, after = asked.get(layer.value), done.filters.get(layer.value)
        if layer.value not in masks or after is None or goal is None:
            reports.append(report)
            continue
        patterns.pop(layer.value, None)
        if goal.pattern.holds(after):
            patterns[layer.value] = goal.pattern.of(after)
        remarks = (*report.remarks, *([done.remarks[layer.value]] if layer.value in done.remarks else []))
        before = layer.view.filters(graph.constants[layer.value])
        reports.append(layer_report(layer, report.shape, goal, "pruned", remarks, before, after))
    editor.set_metadata(METADATA_KEY, claims_text(patterns) if patterns else "")
    say("import")
    shapes = input_shapes or ({} if dims else samples.shapes())
    changed = import_model(editor.proto, dims=dims or {}, input_shapes=shapes, limits=limits or Limits())
    return PrunedModel(PruneReport(layers=tuple(reports)), changed, editor)


def _embedded(model: str | Path | onnx.ModelProto | bytes) -> WeightEditor:
    """The model, our own copy, with its external data inside."""
    editor = editor_of(model)
    if editor.folder is None:
        return editor
    external_data_helper.load_external_data_for_model(editor.proto, str(editor.folder))
    return WeightEditor(editor.proto, None)
