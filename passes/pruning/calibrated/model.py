"""Prune an ONNX model with calibration data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import external_data_helper

from sparsec.compiler.errors import UsageError
from sparsec.compiler.exporter.weights import WeightEditor
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.importer.claims import METADATA_KEY, claims_text
from sparsec.compiler.limits import Limits
from sparsec.compiler.pruning_report import PruneReport
from sparsec.compiler.sparsity import Block
from sparsec.compiler.sparsity.text import Goal
from sparsec.compiler.sparsity.weights import layer_weights
from sparsec.passes.pruning.calibrated.data import Source, model_inputs, read_samples
from sparsec.passes.pruning.calibrated.importance import Importance
from sparsec.passes.pruning.calibrated.reconstruct import Reconstructor, Settings
from sparsec.passes.pruning.masks import excess_of
from sparsec.passes.pruning.model import PrunedModel, editor_of
from sparsec.passes.pruning.prune import goals_by_value, layer_report, prune_graph, tails
from sparsec.passes.pruning.recipe import Recipe, make_recipe

Array = np.ndarray[Any, Any]


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
    settings = settings or Settings()
    _check(wanted, settings)
    say("read calibration data")
    editor = _embedded(model)
    samples = read_samples(data, model_inputs(editor.proto))
    graph = import_model(editor.proto, input_shapes=samples.shapes(), limits=limits or Limits())
    pruned = prune_graph(graph, wanted, editor.blocked)

    layers = layer_weights(graph)
    asked = goals_by_value(layers, wanted)
    views = {layer.value: layer.view for layer in layers}
    masks = {value: (asked[value], views[value].filters(array) != 0) for value, array in pruned.weights.items()}
    done = Reconstructor(graph, editor, samples, settings).run(layers, masks, say)

    patterns, reports = dict(pruned.patterns), []
    for layer, report in zip(layers, pruned.report.layers, strict=True):
        goal, after = asked.get(layer.value), done.filters.get(layer.value)
        if layer.value not in masks or after is None or goal is None:
            reports.append(report)
            continue
        patterns.pop(layer.value, None)
        if goal.pattern.holds(after):
            patterns[layer.value] = goal.pattern.of(after)
        remarks = _remarks(goal, after, done.remarks.get(layer.value, ""))
        before = layer.view.filters(graph.constants[layer.value])
        reports.append(layer_report(layer, report.shape, goal, "pruned", remarks, before, after))
    editor.set_metadata(METADATA_KEY, claims_text(patterns) if patterns else "")
    say("import")
    shapes = input_shapes or ({} if dims else samples.shapes())
    changed = import_model(editor.proto, dims=dims or {}, input_shapes=shapes, limits=limits or Limits())
    return PrunedModel(PruneReport(layers=tuple(reports)), changed, editor)


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
    excess = excess_of(pattern.kept(after), goal.sparsity) if isinstance(pattern, Block) else ()
    return (*tails(pattern, shape), *excess, *([why] if why else []))


def _embedded(model: str | Path | onnx.ModelProto | bytes) -> WeightEditor:
    """The model, our own copy, with its external data inside."""
    editor = editor_of(model)
    if editor.folder is None:
        return editor
    external_data_helper.load_external_data_for_model(editor.proto, str(editor.folder))
    return WeightEditor(editor.proto, None)
