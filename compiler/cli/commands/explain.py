"""`sparsec explain`."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparsec.compiler.cli.array import explain_array
from sparsec.compiler.cli.channels import show_classes
from sparsec.compiler.cli.console import Steps, emit_json, say, table
from sparsec.compiler.cli.groups import with_groups
from sparsec.compiler.cli.loads import Loads
from sparsec.compiler.cli.options import (
    CcOption,
    CompileOptions,
    DimOption,
    InputOption,
    JsonOption,
    LayerOption,
    LimitsOption,
    PassesOption,
    PatternOption,
    QuietOption,
    RecipeOption,
    SubjectArgument,
    TargetOption,
    ThreadsOption,
    parse_recipe,
)
from sparsec.compiler.cli.quantising import Precision, PrecisionOption, with_precision
from sparsec.compiler.cli.systolic import explain_systolic, holds_systolic, is_systolic
from sparsec.compiler.errors import UsageError

if TYPE_CHECKING:
    from sparsec.compiler.explain import Row, Sums
    from sparsec.compiler.pruning_report import LayerReport
    from sparsec.compiler.report import Layer, Report

WIDTH = 120  # of running text


@dataclass(frozen=True)
class _Subject:
    """What there is to explain: layers as in a report, what pruning said, and what was measured, in microseconds."""

    name: str
    target: str
    threads: int
    layers: Sequence[Layer]
    pruning: Sequence[LayerReport]
    measured: Sequence[float] | None = None
    dense: Mapping[str, float] | None = None


@with_groups
def explain(
    subject: SubjectArgument,
    measure: Annotated[
        bool, typer.Option("--measure", help="Time every layer too, beside its dense form: the model with its zeros filled.")
    ] = False,
    every: Annotated[bool, typer.Option("--all", help="Show layers without weights too.")] = False,
    channels: Annotated[
        bool,
        typer.Option("--channels", help="Show instead which channels share an order, and why some cannot be put into another."),
    ] = False,
    rounds: Annotated[int, typer.Option("--rounds", min=1, metavar="N", help="Turns of each library when measuring.")] = 10,
    pattern: PatternOption = None,
    layer: LayerOption = None,
    recipe: RecipeOption = None,
    target: TargetOption = "host",
    threads: ThreadsOption = 1,
    dim: DimOption = None,
    shape: InputOption = None,
    precision: PrecisionOption = Precision.fp32,
    passes: PassesOption = None,
    cc: CcOption = None,
    limits: LimitsOption = None,
    *,
    loads: Loads,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Say what became of the zeros in a model's weights: which layers are faster for them, which are not, and why.

    For every layer: the pattern of its zeros, the kernel, what came second, the predicted time and how many times faster that is
    than the best dense kernel (gain); in words, why zeros are not used. Without --measure no C compiler is called, and the target
    may be another machine.
    With --pattern, --layer or --recipe an .onnx file is pruned first.
    For a systolic array (--target flexisaga:16x16, or a folder that was compiled for one): the cycles of every dataflow, and with
    --loads what each moves and costs.
    Of a folder that was compiled for an array of cores: which nodes the array computes and how, and why the host computes the
    others.
    """
    if holds_systolic(subject):
        explain_systolic(subject, CompileOptions(more={"memory": loads.parameters()}), json=json, quiet=quiet)
        return
    if subject.is_dir() or not is_systolic(target):
        loads.refuse(str(subject) if subject.is_dir() else target)
    if subject.is_dir() and (subject / "manifest.json").exists():
        explain_array(subject, json=json)
        return
    wanted = parse_recipe(pattern, layer, recipe)
    passes = with_precision(passes, precision, target)
    more = {"recipe": wanted} if wanted else {}
    options = CompileOptions(target, threads, dim, shape, passes, cc, limits, more)
    if is_systolic(target) and not subject.is_dir():
        explain_systolic(subject, replace(options, more={**more, "memory": loads.parameters()}), json=json, quiet=quiet)
        return
    if subject.is_dir() and options != CompileOptions():
        raise UsageError(f"{subject} is compiled already: give the .onnx file to explain it with other options")
    if channels:
        if subject.is_dir():
            raise UsageError(f"{subject} is compiled already: give the .onnx file to see which of its channels share an order")
        show_classes(subject, options, json)
        return
    with Steps("explain", quiet=quiet) as steps:
        if measure:
            found = _measured(subject, options, rounds, steps)
        else:
            found = _of_folder(subject) if subject.is_dir() else _of_model(subject, options, steps)
    _show(found, every, json)


def _of_folder(folder: Path) -> _Subject:
    from sparsec.compiler.report import read_report

    return _of_report(read_report(folder), folder)


def _of_report(report: Report, path: Path) -> _Subject:
    return _Subject(str(path), report.options.target, report.options.threads, report.layers, report.pruning)


def _of_model(path: Path, options: CompileOptions, steps: Steps) -> _Subject:
    """Import or prune, run the passes, schedule and lower; nothing is written."""
    from sparsec.backends.cpu.describe import describe_layers
    from sparsec.backends.cpu.target import CpuTarget
    from sparsec.compiler import driver
    from sparsec.compiler.cli.graphs import read_graph
    from sparsec.passes.pruning.model import prune

    arguments = options.arguments()
    machine = CpuTarget.named(options.target, options.threads)
    pruning: Sequence[LayerReport] = ()
    if wanted := arguments.get("recipe"):
        bound = {key: arguments[key] for key in ("dims", "input_shapes", "limits")}
        pruned = prune(path, wanted, **bound, progress=steps)
        graph, pruning = pruned.graph, pruned.report.layers
    else:
        steps("import")
        graph = read_graph(path, options.dim, options.shape, options.limits)
    steps("passes, schedule")
    made = driver.build(graph, machine, passes=options.passes)
    layers = describe_layers(made.graph, made.schedule, made.program)
    return _Subject(str(path), machine.name, machine.threads, layers, pruning)


def _measured(subject: Path, options: CompileOptions, rounds: int, steps: Steps) -> _Subject:
    """The same from a library, with the times of its layers and of those of its dense form."""
    from sparsec.backends.cpu.isa import isa_named
    from sparsec.backends.cpu.isa import runs_here as isa_runs_here
    from sparsec.compiler import driver
    from sparsec.compiler.cli.layer_times import layer_seconds
    from sparsec.compiler.cli.session import file_sha256, model_path, opened, reference_feeds, runs_here
    from sparsec.compiler.report import read_report
    from sparsec.passes.pruning.dense_form import fill_zeros

    named = read_report(subject).options.target if subject.is_dir() else options.target
    if not isa_runs_here(isa_named(named)):
        raise UsageError(f"{named} does not run on this machine: leave --measure out, or measure on one that it does")
    with opened(subject, options, steps) as compiled, tempfile.TemporaryDirectory(prefix="sparsec-") as name:
        if not runs_here(compiled):
            raise UsageError(f"the library of {subject} cannot be loaded on this machine: leave --measure out")
        report = compiled.report
        same = report.options
        model = model_path(subject, compiled) if subject.is_dir() else Path(report.model.path)  # as pruned
        if file_sha256(model) != report.model.sha256:
            raise UsageError(f"{model} is not the model any more that {subject} was compiled from: compile it again")
        steps("dense form")
        bound: dict[str, Any] = {"dims": same.dims, "input_shapes": same.input_shapes, "limits": options.arguments()["limits"]}
        filled = Path(name) / "dense.onnx"
        fill_zeros(model, **bound).save(filled)
        how: dict[str, Any] = {
            "target": same.target,
            "threads": same.threads,
            "passes": same.passes,
            "cc": same.cc,
            "kernels": same.kernels,
        }
        dense = driver.compile(filled, Path(name) / "library", **how, **bound)
        steps("time every layer")
        feeds = reference_feeds(compiled, model)[0]
        seconds = layer_seconds({"sparse": compiled, "dense": dense}, feeds, rounds)
        times = {layer.node: 1e6 * s for layer, s in zip(dense.report.layers, seconds["dense"], strict=True)}
        return replace(_of_report(report, subject), measured=[1e6 * s for s in seconds["sparse"]], dense=times)


def _show(found: _Subject, every: bool, json: bool) -> None:
    from sparsec.compiler.explain import measured_sums, predicted_sums, rows_of

    rows = rows_of(found.layers, found.pruning, found.measured, found.dense)
    sums = {"predicted": predicted_sums(rows)}
    if found.dense is not None:
        sums["measured"] = measured_sums(rows, sum(found.dense.values()))
    shown = [r for r in rows if every or r.layer.density is not None]
    if json:
        data = {"model": found.name, "target": found.target, "threads": found.threads}
        emit_json({**data, "layers": [_record(r) for r in shown], "totals": {how: _totals(s) for how, s in sums.items()}})
    else:
        _print(found, rows, shown, sums)


def _record(row: Row) -> dict[str, Any]:
    layer = row.layer
    kept = ("node", "origin", "op", "pattern", "density", "predicted_us", "dense_us", "sparse", "candidates")
    data = {**layer.model_dump(mode="json"), "sparse": layer.sparse}
    measured = {"measured_us": row.us, "measured_dense_us": row.dense_us, "measured_gain": row.measured_gain}
    more = {"predicted_gain": row.predicted_gain, **(measured if row.us is not None else {})}
    return {**{key: data[key] for key in kept}, "why": row.why, **more}


def _totals(sums: Sums) -> dict[str, float]:
    return {"us": sums.us, "dense_us": sums.dense_us, "gain": sums.gain, "sparse_share": sums.sparse_share}


def _print(found: _Subject, rows: Sequence[Row], shown: Sequence[Row], sums: Mapping[str, Sums]) -> None:
    from sparsec.compiler.explain import hints, sentence, slower, unused, without_zeros

    weighted = [r for r in rows if r.layer.density is not None]
    sparse = sum(r.layer.sparse for r in weighted)
    wasted = sum(r.wasted for r in weighted)
    say(f"{found.name} for {found.target}, {found.threads} thread(s)")
    say(f"  {len(weighted)} layers with weights; zeros are used in {sparse}, and not used in {wasted}\n")
    measured = "measured" in sums
    columns = ["layer", *([] if len(shown) == len(weighted) else ["op"]), "pattern", ">kept", "kernel", ">predicted us", ">gain"]
    columns += [">measured us", ">gain"] if measured else []
    table([*columns, "runner-up", "remark"], [_cells(r, "op" in columns, measured) for r in shown])
    say("")
    sections = {
        "Zeros that are not used": unused(rows),
        "Measured slower than dense, against the prediction": slower(rows),
        "Layers with no zeros, or few": without_zeros(rows),
    }
    for title, groups in sections.items():
        if groups:
            say(f"{title}:")
            for reason, nodes in groups.items():
                _paragraph(f"{_names(nodes)}: {reason}", "  ", "    ")
            say("")
    if not sparse and not wasted:
        _paragraph("No layer has zeros that could be used: `sparsec prune`, or --pattern here, makes some.\n")
    for hint in hints(
        (*(reason for groups in sections.values() for reason in groups), *(r.remark for r in shown if r.layer.sparse))
    ):
        _paragraph(hint + "\n")
    for how, total in sums.items():
        _paragraph(f"In all, {sentence(total, how)}.")
    if not measured:
        say("Predictions are a cost model's, for one thread: --measure times the layers.")


def _paragraph(text: str, first: str = "", next_lines: str = "") -> None:
    """Wrapped text, in which numbers stay with their units."""
    tied = re.sub(r"(?<=\d) (?=(us|ms|%)\b|%)", "\N{NO-BREAK SPACE}", text.rstrip("\n"))
    lines = fill(tied, WIDTH, initial_indent=first, subsequent_indent=next_lines, break_long_words=False, break_on_hyphens=False)
    say(lines.replace("\N{NO-BREAK SPACE}", " ") + "\n" * text.endswith("\n"))


def _cells(row: Row, with_op: bool, measured: bool) -> list[str]:
    from sparsec.compiler.explain import share

    layer, second = row.layer, row.layer.runner_up
    pattern = "" if layer.density is None else layer.pattern or "none"
    kept = "" if layer.density is None else share(layer.density)
    cells = [layer.node, *([layer.op] if with_op else []), pattern, kept, row.kernel]
    cells += [f"{layer.predicted_us:.1f}", _gain(row.predicted_gain)]
    if measured:
        cells += [f"{row.us or 0.0:.1f}", _gain(row.measured_gain)]
    return [*cells, f"{second.kernel}, {second.us:.1f} us" if second else "", row.remark]


def _gain(gain: float | None) -> str:
    return "" if gain is None else f"{gain:.2f}"


def _names(nodes: Sequence[str], most: int = 4) -> str:
    """A few names, and how many more there are."""
    more = len(nodes) - most
    return ", ".join(nodes[:most]) + (f" and {more} more" if more > 0 else "")
