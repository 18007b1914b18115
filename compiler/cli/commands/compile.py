"""`sparsec compile`."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparsec.compiler.cli.array import compile_for_array, is_array
from sparsec.compiler.cli.budget import Budgeting, budget_lines
from sparsec.compiler.cli.console import Steps, count, duration, emit_json, say, size, table
from sparsec.compiler.cli.groups import with_groups
from sparsec.compiler.cli.loads import Loads
from sparsec.compiler.cli.options import (
    COMPILING,
    TUNING,
    CalibOption,
    CcOption,
    CompileOptions,
    DimOption,
    InputOption,
    JsonOption,
    KernelsOption,
    LayerOption,
    LimitsOption,
    ModelArgument,
    PassesOption,
    PatternOption,
    PermuteOption,
    QuietOption,
    RecipeOption,
    TargetOption,
    ThreadsOption,
    ToleranceOption,
    parse_kernels,
    parse_recipe,
    parse_size,
)
from sparsec.compiler.cli.quantising import Precision, PrecisionOption, Quantising
from sparsec.compiler.cli.systolic import compile_for_systolic, is_systolic
from sparsec.compiler.errors import UsageError

if TYPE_CHECKING:
    from sparsec.compiler.report import Report
    from sparsec.compiler.runtime import CompiledModel

LOOKING = "Looking inside"
PHASES = 6  # import, passes, schedule, lower, emit, cc: for the progress bar


class Weights(StrEnum):
    """Where the weights live."""

    incbin = "incbin"
    file = "file"
    inline = "inline"


@with_groups
def compile_model(
    model: ModelArgument,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="DIR", help="Folder to write; build/NAME by default.", show_default=False),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            metavar="NAME",
            help="Prefix of the C functions and of the library; the file's name by default.",
            show_default=False,
        ),
    ] = None,
    target: TargetOption = "host",
    threads: ThreadsOption = 1,
    dim: DimOption = None,
    shape: InputOption = None,
    max_arena: Annotated[
        str | None,
        typer.Option(
            "--max-arena",
            metavar="BYTES",
            help="Fail (status 7) when the library needs a larger arena, as 8M.",
            show_default=False,
            rich_help_panel=COMPILING,
        ),
    ] = None,
    weights: Annotated[
        Weights,
        typer.Option(
            metavar="incbin|file|inline",
            help="Where the weights live: linked from a binary file, read by the caller from that file, or C text (tiny models).",
            rich_help_panel=TUNING,
        ),
    ] = Weights.incbin,
    pattern: PatternOption = None,
    layer: LayerOption = None,
    recipe: RecipeOption = None,
    permute: PermuteOption = None,
    calib: CalibOption = None,
    *,
    budgeting: Budgeting,
    precision: PrecisionOption = Precision.fp32,
    quantising: Quantising,
    loads: Loads,
    passes: PassesOption = None,
    kernels: KernelsOption = None,
    cc: CcOption = None,
    limits: LimitsOption = None,
    dump_ir: Annotated[
        str | None,
        typer.Option(
            "--dump-ir",
            metavar="all|changed|PASS",
            help="Write the graph after all passes, those that changed it, or one, to DIR/ir/NN-PASS.txt.",
            show_default=False,
            rich_help_panel=LOOKING,
        ),
    ] = None,
    print_pass_times: Annotated[
        bool, typer.Option("--print-pass-times", help="Print what every pass and phase took.", rich_help_panel=LOOKING)
    ] = False,
    verify: Annotated[
        bool,
        typer.Option("--verify/--no-verify", help="Compare the library with onnxruntime on random inputs (where it can run)."),
    ] = True,
    tolerance: ToleranceOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Compile an ONNX model to a C library.

    DIR gets NAME.c, NAME.h, the weights, libNAME.so, build files for make, CMake and pkg-config, and report.json, which says how
    every layer is computed. DIR appears whole or not at all.
    With --pattern, --layer or --recipe the model is pruned first, as `sparsec prune` does; with --precision int8 it is quantised,
    as `sparsec quantise` does. What is compiled then is kept as DIR/NAME.onnx. With --precision bf16 convolutions and products
    multiply numbers that are rounded to bfloat16; the model stays as it is.
    For an array (--target aie2:npu1, flexisaga:16x16, sat:16x16) DIR gets instruction streams instead, which `sparsec simulate`
    runs.
    """
    wanted = parse_recipe(pattern, layer, recipe, {"permute": permute})
    settings = quantising.settings(precision, calib, budgeting.labels)
    if wanted is None and permute:
        raise UsageError("--permute is for pruning: give --pattern, --layer or --recipe, too")
    if wanted is None and calib and settings is None:
        raise UsageError("--calib is for pruning and quantising: give --pattern, --layer or --recipe, or --precision int8")
    budget = budgeting.budget(calib, labelled=quantising.labelled)
    more: dict[str, Any] = {
        "name": name,
        "weights": weights.value,
        "dump_ir": dump_ir,
        "recipe": wanted,
        "calibration": calib,
        "quantisation": settings,
        "bfloat16": precision is Precision.bf16,
        "budget": budget,
        "kernels": parse_kernels(kernels),
        "max_arena": parse_size(max_arena, "--max-arena") if max_arena else None,
    }
    if is_systolic(target):
        more["memory"] = loads.parameters()
    else:
        loads.refuse(target)
    options = CompileOptions(target, threads, dim, shape, passes, cc, limits, more)
    if is_systolic(target):
        with Steps("compile", total=None, quiet=quiet) as steps:
            compile_for_systolic(model, output, options, steps, json=json)
        return
    if is_array(target):
        with Steps("compile", total=None, quiet=quiet) as steps:
            compile_for_array(model, output, options, steps, json=json)
        return
    with Steps("compile", total=None if wanted else PHASES + verify, quiet=quiet) as steps:  # pruning takes steps of its own
        compiled = options.compile(model, output, steps)
        reference = Path(compiled.report.model.path) if compiled.report.pruning or settings else model  # as it was compiled
        checked = _verify(compiled, reference, tolerance, steps) if verify else "not verified (--no-verify)"
    report = compiled.report
    if json:
        emit_json(report.model_dump(mode="json"))
    else:
        _summary(report, compiled.directory, checked)
        if print_pass_times:
            _times(report)


def _verify(compiled: CompiledModel, model: Path, tolerance: float | None, steps: Steps) -> str:
    """Compare with onnxruntime; in words. VerificationError when it is wrong."""
    from sparsec.compiler.cli.session import reference_feeds, runs_here
    from sparsec.compiler.errors import ModelError
    from sparsec.compiler.onnxruntime_reference import OnnxRuntime
    from sparsec.compiler.verify_model import default_tolerance, verify_model

    if not runs_here(compiled):
        return f"not verified: {compiled.report.options.target} does not run on this machine"
    steps("verify")
    feeds = reference_feeds(compiled, model, samples=1)
    try:
        reference = OnnxRuntime(model)
        wanted = [reference.run(feeds[0])]
    except ModelError as exc:
        print(f"warning: not verified: {exc}", file=sys.stderr)
        return "not verified"
    accepted = default_tolerance(compiled.report) if tolerance is None else tolerance
    found = verify_model(compiled.run, lambda _: wanted[0], feeds, tolerance=accepted)
    found.require()
    return f"matches onnxruntime to {found.worst.error:.1e}"


def _summary(report: Report, folder: Path, checked: str) -> None:
    from sparsec.compiler.pruning_report import total

    options, memory = report.options, report.memory
    threads = f"{options.threads} thread{'s' if options.threads > 1 else ''}"
    say(f"{options.name} for {options.target}, {threads}: {folder}")
    sizes = (
        f"weights {size(memory.weights_bytes)}, arena {size(memory.arena_bytes)} (lower bound {size(memory.arena_lower_bound)})"
    )
    say(f"  {len(report.layers)} layers, {count(report.macs)}MAC; {sizes}, C text {size(report.sources.c_bytes)}")
    if report.pruning:
        pruned, all_of = [x for x in report.pruning if x.status == "pruned"], total(report.pruning)
        say(f"  {len(pruned)} of {len(report.pruning)} layers pruned, {100 * all_of.density:.1f} % of all weights kept")
    if report.quantisation is not None:
        say(f"  {len(report.quantisation.quantised)} of {len(report.quantisation.layers)} layers in int8")
    if multiplied := sum(any(t.dtype == "bf16" for t in x.inputs) for x in report.layers if x.macs):
        say(f"  {multiplied} layers multiply bfloat16")
    for line in budget_lines(report.budget) if report.budget else ():
        say(f"  {line}")
    say(f"  compiled in {duration(report.seconds)}; {checked}")


def _times(report: Report) -> None:
    total = report.seconds or 1.0
    rows = [[p.phase, f"{p.seconds:.3f}", f"{100 * p.seconds / total:.0f} %"] for p in report.phases]
    table(("phase", ">seconds", ">share"), [*rows, ["total", f"{total:.3f}", "100 %"]])
    if report.passes:
        say("")
        table(
            ("pass", ">seconds", "changed", ">nodes before", ">after"),
            [
                [p.name, f"{p.seconds:.3f}", "yes" if p.changed else "", str(p.nodes_before), str(p.nodes_after)]
                for p in report.passes
            ],
        )
