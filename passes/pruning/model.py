"""Prune an ONNX model: from a file or ModelProto to an ordinary ONNX model with zeros."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from sparsec.compiler.exporter.weights import WeightEditor
from sparsec.compiler.graph import Graph
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.importer.claims import claims_metadata, read_claims, with_claims
from sparsec.compiler.limits import Limits
from sparsec.compiler.pruning_report import PermutationReport, PruneReport
from sparsec.compiler.sparsity import Sparsity
from sparsec.passes.permutation.permute import permute
from sparsec.passes.permutation.search.api import Method
from sparsec.passes.pruning.calibrated.data import Samples, Source, model_inputs, read_samples
from sparsec.passes.pruning.calibrated.energy import weight_energy
from sparsec.passes.pruning.calibrated.importance import Importance
from sparsec.passes.pruning.calibrated.model import prune_calibrated
from sparsec.passes.pruning.calibrated.reconstruct import Settings
from sparsec.passes.pruning.order_trial import Candidate, losses
from sparsec.passes.pruning.prune import Wanted, prune_graph, with_weights
from sparsec.passes.pruning.recipe import Recipe, make_recipe

Model = str | Path | onnx.ModelProto | bytes


@dataclass(frozen=True)
class PrunedModel:
    """A pruned model in memory: `save` writes it, `graph` is what it imports to with the dimensions as bound."""

    report: PruneReport
    graph: Graph
    editor: WeightEditor

    @property
    def proto(self) -> onnx.ModelProto:
        """The model (for one with external data: without it, use `save`)."""
        return self.editor.proto

    def save(self, path: str | Path) -> None:
        """Write the model to `path`, external data (where the source had any) to PATH.data."""
        self.editor.save(Path(path))


def prune(
    model: Model,
    recipe: Recipe | str,
    *,
    data: Source | None = None,
    settings: Settings | None = None,
    dims: Mapping[str, int] | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    limits: Limits | None = None,
    progress: Callable[[str], None] | None = None,
) -> PrunedModel:
    """Prune `model`, which is not changed, by a recipe or one pattern for all layers, as "2:4" or "block:8x8@75%".

    Where the recipe asks for it, channels are put into an order before in which the patterns keep more. With calibration `data`
    (see `calibrated.data.read_samples`), weights are chosen by what they do to it, and those that stay make up for the others
    as `settings` say (those of the recipe by default); an order in which a trial with some of the data loses more is not used.
    `dims` and `input_shapes` bind dynamic dimensions for the analysis (the first batch of the data does where neither is given);
    the pruned model keeps them dynamic. Raises a SparsecError.
    """
    say = progress or (lambda _: None)
    wanted = make_recipe({"pattern": recipe}) if isinstance(recipe, str) else recipe
    say("import")
    editor = editor_of(model)
    samples = None if data is None else read_samples(data, model_inputs(editor.proto))
    shapes = samples.shapes() if samples is not None and not dims and not input_shapes else input_shapes or {}
    bound = _Bound(dims or {}, shapes, limits or Limits())
    if samples is not None:
        editor = WeightEditor(editor.embedded(), None)
    how = settings or Settings.of(wanted)
    order = None if wanted.permute is Method.none else _reorder(model, editor, wanted, bound, samples, say)
    graph = bound.load(model) if order is None else _reordered(editor, bound)
    if order is not None and samples is not None and order.gained:
        editor, graph, order = _better(model, editor, graph, order, _Trial(wanted, bound, samples, how, say))

    say("prune")
    if samples is not None:
        done = prune_calibrated(editor, graph, wanted, samples, how, say)
    else:
        done = prune_graph(graph, wanted, editor.blocked)
        for value, array in done.weights.items():
            editor.replace(value, array)
    _record(editor, done.patterns)
    pruned = with_weights(graph, done) if samples is None else bound.load(editor.proto)
    return PrunedModel(done.report.model_copy(update={"permutation": order}), pruned, editor)


@dataclass(frozen=True)
class _Bound:
    """How a model is imported."""

    dims: Mapping[str, int]
    shapes: Mapping[str, Sequence[int]]
    limits: Limits

    def load(self, model: Model, *, as_stored: bool = False) -> Graph:
        return import_model(model, dims=self.dims, input_shapes=self.shapes, limits=self.limits, as_stored=as_stored)


def _reorder(
    model: Model, editor: WeightEditor, recipe: Recipe, bound: _Bound, samples: Samples | None, say: Callable[[str], None]
) -> PermutationReport:
    """Put the channels of `model`, which `editor` holds, into the order that the recipe's search finds."""
    graph = bound.load(model, as_stored=True)

    def energy(wanted: Mapping[str, Wanted]) -> Mapping[str, np.ndarray[Any, Any]]:
        if samples is None or recipe.importance is Importance.magnitude:
            return {}
        say("measure inputs")
        return weight_energy(graph, editor.proto, samples, [found.layer for found in wanted.values()], recipe.seed)

    return permute(graph, editor, recipe, say, energy)


@dataclass(frozen=True)
class _Trial:
    """How orders are compared."""

    recipe: Recipe
    bound: _Bound
    samples: Samples
    settings: Settings
    say: Callable[[str], None]

    def losses(self, candidates: Sequence[Candidate]) -> tuple[float, ...]:
        return losses(candidates, self.recipe, self.samples, self.settings, self.say)


def _better(
    model: Model, editor: WeightEditor, graph: Graph, order: PermutationReport, trial: _Trial
) -> tuple[WeightEditor, Graph, PermutationReport]:
    """The model in the order that was found, or as it was where pruning loses less so."""
    plain, before = WeightEditor(editor_of(model).embedded(), None), trial.bound.load(model)
    found = trial.losses([Candidate(plain.proto, before), Candidate(editor.proto, graph)])
    if not found:
        return editor, graph, order
    in_place, ordered = found
    used = ordered <= in_place
    report = order.model_copy(update={"loss_in_place": in_place, "loss": ordered, "used": used})
    return (editor, graph, report) if used else (plain, before, report)


def _reordered(editor: WeightEditor, bound: _Bound) -> Graph:
    """The model whose channels are in another order, with the recorded patterns that this order has left true.

    Those of layers that are pruned anew need not be: what they record comes with the new weights.
    """
    claims = read_claims({p.key: p.value for p in editor.proto.metadata_props})
    _record(editor, {})
    return with_claims(bound.load(editor.embedded()), claims, doubted=True)


def _record(editor: WeightEditor, patterns: Mapping[str, Sparsity]) -> None:
    for key, text in claims_metadata(patterns).items():
        editor.set_metadata(key, text)


def editor_of(model: Model) -> WeightEditor:
    """The model's protobuf message, our own copy."""
    proto = onnx.ModelProto()
    if isinstance(model, onnx.ModelProto):
        proto.CopyFrom(model)
        return WeightEditor(proto, None)
    path = Path(model) if isinstance(model, str | Path) else None
    proto.ParseFromString(path.read_bytes() if path is not None else model)
    return WeightEditor(proto, path.absolute().parent if path is not None else None)
