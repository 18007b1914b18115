"""Prune an ONNX model: from a file or ModelProto to an ordinary ONNX model with zeros."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from sparsec.compiler.exporter.weights import WeightEditor
from sparsec.compiler.graph import Graph
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.importer.claims import METADATA_KEY, claims_text
from sparsec.compiler.limits import Limits
from sparsec.compiler.pruning_report import PruneReport
from sparsec.compiler.sparsity import DENSE
from sparsec.passes.pruning.prune import prune_graph
from sparsec.passes.pruning.recipe import Recipe, make_recipe


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
    model: str | Path | onnx.ModelProto | bytes,
    recipe: Recipe | str,
    *,
    dims: Mapping[str, int] | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    limits: Limits | None = None,
    progress: Callable[[str], None] | None = None,
) -> PrunedModel:
    """Prune `model`, which is not changed, by a recipe or one pattern for all layers, as "2:4" or "block:8x8@75%".

    `dims` and `input_shapes` bind dynamic dimensions for the analysis; the pruned model keeps them dynamic.
    Raises a SparsecError.
    """
    say = progress or (lambda _: None)
    wanted = make_recipe({"pattern": recipe}) if isinstance(recipe, str) else recipe
    say("import")
    graph = import_model(model, dims=dims or {}, input_shapes=input_shapes or {}, limits=limits or Limits())
    editor = editor_of(model)

    say("prune")
    pruned = prune_graph(graph, wanted, editor.blocked)
    for value, array in pruned.weights.items():
        editor.replace(value, array)
    editor.set_metadata(METADATA_KEY, claims_text(pruned.patterns) if pruned.patterns else "")
    types = dict(graph.types)
    for value in pruned.weights:
        types[value] = replace(types[value], sparsity=pruned.patterns.get(value, DENSE))
    constants = {**graph.constants, **pruned.weights}
    changed = Graph(graph.name, graph.inputs, graph.outputs, graph.nodes, types, constants)
    return PrunedModel(pruned.report, changed, editor)


def editor_of(model: str | Path | onnx.ModelProto | bytes) -> WeightEditor:
    """The model's protobuf message, our own copy."""
    proto = onnx.ModelProto()
    if isinstance(model, onnx.ModelProto):
        proto.CopyFrom(model)
        return WeightEditor(proto, None)
    path = Path(model) if isinstance(model, str | Path) else None
    proto.ParseFromString(path.read_bytes() if path is not None else model)
    return WeightEditor(proto, path.absolute().parent if path is not None else None)
