"""`sparsec prune`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sparsec.compiler.cli.budget import PANEL, Budgeting, budget_lines
from sparsec.compiler.cli.channels import print_classes
from sparsec.compiler.cli.console import Steps, count, duration, emit_json, say, table
from sparsec.compiler.cli.groups import with_groups
from sparsec.compiler.cli.options import (
    PRUNING,
    CalibOption,
    DimOption,
    InputOption,
    JsonOption,
    LayerOption,
    LimitsOption,
    ModelArgument,
    PatternOption,
    PermuteOption,
    QuietOption,
    RecipeOption,
    parse_dims,
    parse_recipe,
    parse_shapes,
)
from sparsec.compiler.errors import UsageError

if TYPE_CHECKING:
    from sparsec.compiler.pruning_report import LayerReport, PermutationReport, PruneReport, Retained


@with_groups
def prune(
    model: ModelArgument,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="The .onnx file to write.", show_default=False)],
    pattern: PatternOption = None,
    layer: LayerOption = None,
    recipe: RecipeOption = None,
    criterion: Annotated[
        str | None,
        typer.Option(
            metavar="l1|l2|variance",
            help="What is kept: the largest |w| (default), the largest w^2, or the blocks that vary most.",
            show_default=False,
            rich_help_panel=PRUNING,
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Take one of N steps towards the pattern: prune, retrain, and prune again until all are taken.",
            show_default=False,
            rich_help_panel=PRUNING,
        ),
    ] = None,
    preserve_norm: Annotated[
        bool,
        typer.Option(
            "--preserve-norm", help="Scale the kept weights of every output to the norm that it had.", rich_help_panel=PRUNING
        ),
    ] = False,
    spare: Annotated[
        str | None,
        typer.Option(
            metavar="WHAT,...|none",
            help="What stays dense unless --layer names it: first (convolution), depthwise, classifier; all of them by default.",
            show_default=False,
            rich_help_panel=PRUNING,
        ),
    ] = None,
    permute: PermuteOption = None,
    permute_seconds: Annotated[
        float | None,
        typer.Option(
            metavar="S",
            help="Stop searching for orders after so long, with what has been found; 180 by default.",
            show_default=False,
            rich_help_panel=PRUNING,
        ),
    ] = None,
    calib: CalibOption = None,
    importance: Annotated[
        str | None,
        typer.Option(
            metavar="obs|activation|second-order|magnitude",
            help="How weights are compared, given --calib: by elimination (default), |w| x input, w^2 by curvature, |w|.",
            show_default=False,
            rich_help_panel=PRUNING,
        ),
    ] = None,
    repair: Annotated[
        str | None,
        typer.Option(
            metavar="least-squares|moments|none",
            help="What is done with the weights that stay, given --calib: a fit to the dense layers' results (default), or only "
            "every output's mean and variance restored.",
            show_default=False,
            rich_help_panel=PRUNING,
        ),
    ] = None,
    refit: Annotated[
        bool | None,
        typer.Option(
            "--refit/--no-refit",
            help="Fit dense layers behind pruned ones, too, the classifier among them, given --calib; on by default.",
            show_default=False,
            rich_help_panel=PRUNING,
        ),
    ] = None,
    outputs: Annotated[
        str | None,
        typer.Option(
            metavar="softmax|values",
            help="What the classifier is fitted to, given --calib: the softmax of its results (default), or their values, "
            "where they are not logits of classes.",
            show_default=False,
            rich_help_panel=PRUNING,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Seed of searches and samples.", show_default=False, rich_help_panel=PRUNING),
    ] = None,
    *,
    budgeting: Budgeting,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="TARGET",
            help="Machine whose time --density-of time predicts, as compile takes it; this one by default.",
            show_default=False,
            rich_help_panel=PANEL,
        ),
    ] = None,
    dim: DimOption = None,
    shape: InputOption = None,
    limits: LimitsOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Prune the weights of an ONNX model, and write it as ordinary ONNX with zeros.

    Any runtime loads the result. Prints for every layer the share of nonzero weights, what they retain of |w| and w^2, and what
    dropping the smallest weights one by one would retain at that density. Layers with as many zeros already stay as they are.
    With --permute, channels are put into an order first in which the pattern keeps more; with --calib, weights are chosen by
    what they do to real inputs, and those that stay make up for the others. Both leave the model's operators as they are.
    """
    from sparsec.compiler import preparing
    from sparsec.compiler.limits import Limits

    spared = None if spare is None else [] if spare == "none" else [s.strip() for s in spare.split(",")]
    more = {
        "criterion": criterion,
        "steps": steps,
        "preserve_norm": preserve_norm or None,
        "spare": spared,
        "permute": permute,
        "permute_seconds": permute_seconds,
        "importance": importance,
        "repair": repair,
        "refit": refit,
        "outputs": outputs,
        "seed": seed,
    }
    with_data = (("importance", importance), ("repair", repair), ("refit", refit), ("outputs", outputs))
    if calib is None and (unused := [o for o, v in with_data if v is not None]):
        raise UsageError(f"--{unused[0]} says how calibration data is used: give --calib DATA")
    budget = budgeting.budget(calib)
    if target is not None and budgeting.density_of != "time":
        raise UsageError("--target is the machine that time is predicted for: give --density-of time, too")
    wanted = parse_recipe(pattern, layer, recipe, more)
    if wanted is None:
        raise UsageError("nothing to prune: give --pattern, --layer or --recipe")
    bound = {"dims": parse_dims(dim), "input_shapes": parse_shapes(shape), "limits": Limits.parse(limits or "")}
    with Steps("prune", total=None, quiet=quiet) as progress:
        how = {"data": calib, "budget": budget, "target": target or "host", "progress": progress}
        pruned = preparing.prune(model, wanted, **how, **bound)  # type: ignore[arg-type]
        progress("write")
        pruned.save(output)
    report = pruned.report
    if json:
        emit_json(report.model_dump(mode="json"))
    else:
        print_report(report)
        say(f"\nwritten to {output}")
    if not report.changed:
        print("warning: nothing was pruned: the remarks say why of every layer", file=sys.stderr)


def print_report(report: PruneReport) -> None:
    """The table of layers with their totals, and what orders of channels were found."""
    if report.permutation is not None:
        found = report.permutation
        print_classes(found.classes)
        say(f"\n{_order_line(found)}\n")
    columns = ("layer", "weights", ">size", "pattern", ">density", ">|w|", ">w^2", ">|w| free", ">w^2 free", "remarks")
    rows = [_row(x.node, "x".join(map(str, x.shape)), _what(x), x, "; ".join(x.remarks)) for x in report.layers]
    table(columns, [*rows, _row("total", "", f"{len(report.changed)} pruned", report.total, "")])
    if report.budget is not None:
        say("")
        for line in budget_lines(report.budget):
            say(line)
    say("\n|w| and w^2: retained share; free: the same when the smallest weights are dropped one by one, at that density")


def _order_line(found: PermutationReport) -> str:
    """How the order was found, and whether it is used."""
    text = f"channels ordered by {found.method} with seed {found.seed} in {duration(found.seconds)}"
    if found.loss is None or found.loss_in_place is None:
        return text
    trial = f"a trial loses {found.loss:.4g} so, and {found.loss_in_place:.4g} in the old order"
    return f"{text}; {trial}" + ("" if found.used else ", which is kept")


def _what(layer: LayerReport) -> str:
    return layer.asked if layer.status == "pruned" else {"kept": "unchanged"}.get(layer.status, "dense")


def _row(name: str, shape: str, what: str, sums: Retained, remarks: str) -> list[str]:
    ratios = [f"{r:.3f}" for r in sums.ratios()]
    return [name, shape, count(sums.elements), what, f"{100 * sums.density:.1f} %", *ratios, remarks]
