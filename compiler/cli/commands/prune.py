"""`sparsec prune`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sparsec.compiler.cli.channels import print_classes
from sparsec.compiler.cli.console import Steps, count, duration, emit_json, say, table
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
    from sparsec.compiler.pruning_report import LayerReport, PruneReport, Retained
    from sparsec.passes.pruning.calibrated.metric import Metric
    from sparsec.passes.pruning.strengths import Counted


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
    target_density: Annotated[
        float | None,
        typer.Option(
            metavar="D",
            help="Leave this share of the layers' multiply-accumulates, 0 to 1, shared out between them so that the outputs on "
            "--calib change least: how much each keeps is searched for, in the place of what the pattern says.",
            show_default=False,
            rich_help_panel=PRUNING,
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Find the smallest such share at which the loss by --metric, on samples held out, is at most X.",
            show_default=False,
            rich_help_panel=PRUNING,
        ),
    ] = None,
    density_of: Annotated[
        str | None,
        typer.Option(
            metavar="macs|weights",
            help="What the target density is a share of: multiply-accumulates (default) or weights.",
            show_default=False,
            rich_help_panel=PRUNING,
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            metavar="kl|mse|cosine",
            help="What that search compares outputs by: divergence of their softmax (default), squared difference, or angle.",
            show_default=False,
            rich_help_panel=PRUNING,
        ),
    ] = None,
    evaluations: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Prunings that it tries; 30 by default.", show_default=False, rich_help_panel=PRUNING
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
    from sparsec.compiler.limits import Limits
    from sparsec.passes.pruning.budget import EVALUATIONS, budget
    from sparsec.passes.pruning.model import prune as prune_model

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
    compared_by, counted = _budget_options(target_density, max_drop, calib, metric, density_of, evaluations)
    wanted = parse_recipe(pattern, layer, recipe, more)
    if wanted is None:
        raise UsageError("nothing to prune: give --pattern, --layer or --recipe")
    dims, shapes, bounds = parse_dims(dim), parse_shapes(shape), Limits.parse(limits or "")
    with Steps("prune", total=None, quiet=quiet) as progress:
        found = None
        if calib is not None and (target_density is not None or max_drop is not None):
            found = budget(
                model,
                wanted,
                calib,
                target_density,
                max_drop=max_drop,
                counted=counted,
                metric=compared_by,
                evaluations=evaluations or EVALUATIONS,
                dims=dims,
                input_shapes=shapes,
                limits=bounds,
                progress=progress,
            )
            wanted = found.recipe
        pruned = prune_model(model, wanted, data=calib, dims=dims, input_shapes=shapes, limits=bounds, progress=progress)
        progress("write")
        pruned.save(output)
    report = pruned.report.model_copy(update={"budget": None if found is None else found.report})
    if json:
        emit_json(report.model_dump(mode="json"))
    else:
        print_report(report)
        say(f"\nwritten to {output}")
    if not report.changed:
        print("warning: nothing was pruned: the remarks say why of every layer", file=sys.stderr)


def _budget_options(
    target: float | None,
    max_drop: float | None,
    calib: Path | None,
    metric: str | None,
    density_of: str | None,
    evaluations: int | None,
) -> tuple[Metric, Counted]:
    """What a budget compares outputs by and counts. UsageError for options of a budget that there is not, or cannot be."""
    from sparsec.passes.pruning.calibrated.metric import Metric
    from sparsec.passes.pruning.strengths import Counted

    asked = "--target-density" if target is not None else "--max-drop" if max_drop is not None else ""
    given = (("density-of", density_of), ("metric", metric), ("evaluations", evaluations))
    if not asked and (unused := [option for option, value in given if value is not None]):
        raise UsageError(f"--{unused[0]} says how a budget is shared out: give --target-density D")
    if asked and calib is None:
        raise UsageError(f"{asked} compares pruned models by their outputs: give --calib DATA")
    for option, value, known in (("--metric", metric, list(Metric)), ("--density-of", density_of, list(Counted))):
        if value is not None and value not in known:
            raise UsageError(f"{option} {value!r} is not known: expected {', '.join(known)}")
    return Metric(metric or Metric.kl), Counted(density_of or Counted.macs)


def print_report(report: PruneReport) -> None:
    """The table of layers with their totals, and what orders of channels were found."""
    if report.permutation is not None:
        found = report.permutation
        print_classes(found.classes)
        say(f"\nchannels ordered by {found.method} with seed {found.seed} in {duration(found.seconds)}\n")
    columns = ("layer", "weights", ">size", "pattern", ">density", ">|w|", ">w^2", ">|w| free", ">w^2 free", "remarks")
    rows = [_row(x.node, "x".join(map(str, x.shape)), _what(x), x, "; ".join(x.remarks)) for x in report.layers]
    table(columns, [*rows, _row("total", "", f"{len(report.changed)} pruned", report.total, "")])
    if (b := report.budget) is not None:
        say(
            f"\n{b.layers} layers share {100 * b.density:.1f} % of their {b.counted} (target {100 * b.target:g} %): "
            f"{b.metric} loss {b.loss:.4g}, {b.uniform:.4g} with the same share in each; {b.evaluations} prunings tried"
        )
    say("\n|w| and w^2: retained share; free: the same when the smallest weights are dropped one by one, at that density")


def _what(layer: LayerReport) -> str:
    return layer.asked if layer.status == "pruned" else {"kept": "unchanged"}.get(layer.status, "dense")


def _row(name: str, shape: str, what: str, sums: Retained, remarks: str) -> list[str]:
    ratios = [f"{r:.3f}" for r in sums.ratios()]
    return [name, shape, count(sums.elements), what, f"{100 * sums.density:.1f} %", *ratios, remarks]
