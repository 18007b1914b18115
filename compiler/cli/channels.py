"""Classes of channels that share an order, as `prune` and `explain` show them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sparsec.compiler.cli.console import count, emit_json, say, table

if TYPE_CHECKING:
    from sparsec.compiler.cli.options import CompileOptions
    from sparsec.compiler.pruning_report import ClassReport


def show_classes(model: Path, options: CompileOptions, json: bool) -> None:
    """What `sparsec explain --channels` prints of an ONNX file."""
    from sparsec.compiler.importer.api import import_model
    from sparsec.passes.permutation.coupling_model import couple_model
    from sparsec.passes.permutation.held import hold
    from sparsec.passes.permutation.permute import class_report
    from sparsec.passes.pruning.model import editor_of
    from sparsec.passes.pruning.prune import wanted_layers

    arguments = options.arguments()
    bound = {key: arguments[key] for key in ("dims", "input_shapes", "limits")}
    graph, editor = import_model(model, **bound, as_stored=True), editor_of(model)
    coupling = couple_model(graph, editor)
    if recipe := arguments.get("recipe"):
        coupling = hold(coupling, graph, recipe, wanted_layers(graph, recipe, editor.blocked))
    classes = [class_report(c) for c in coupling.classes]
    if json:
        emit_json([c.model_dump(mode="json") for c in classes])
        return
    free = [c for c in classes if not c.fixed]
    print_classes(classes)
    say(
        f"\n{len(free)} of {len(classes)} classes of channels can be put into another order, "
        f"{sum(c.channels * c.orders for c in free):,} channels in all: `sparsec prune --permute` looks for one that keeps more"
    )


def print_classes(classes: Sequence[ClassReport]) -> None:
    """The table of classes, with what orders gained where they were searched for."""
    searched = any(c.before is not None for c in classes)
    columns = ("channels of", ">count", ">weights", *((">keeps more",) if searched else ()), "remarks")
    rows = []
    for c in classes:
        gain = "" if not c.before or c.after is None else f"{100 * (c.after / c.before - 1):.2f} %"
        size = f"{c.channels}" + (f" x {c.orders}" if c.orders > 1 else "")
        remark = f"fixed: {c.fixed}" if c.fixed else "" if c.finished else "the time was up"
        rows.append([c.name, size, count(c.weights), *([gain] if searched else []), remark])
    table(columns, rows)
