"""`sparsec bench`."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparsec.compiler.cli.console import Steps, count, emit_json, say, table
from sparsec.compiler.cli.options import (
    CcOption,
    CompileOptions,
    DimOption,
    FeedOption,
    InputOption,
    JsonOption,
    PassesOption,
    QuietOption,
    SubjectArgument,
    TargetOption,
    ThreadsOption,
)
from sparsec.compiler.cli.quantising import Precision, PrecisionOption, with_precision
from sparsec.compiler.errors import UsageError

if TYPE_CHECKING:
    from sparsec.compiler.measure import Timing
    from sparsec.compiler.report import Report


class Peer(StrEnum):
    """What to time beside the library."""

    onnxruntime = "onnxruntime"


def bench(
    subject: SubjectArgument,
    vs: Annotated[
        Peer | None,
        typer.Option("--vs", metavar="onnxruntime", help="Time this engine too, in turns with the library.", show_default=False),
    ] = None,
    layers: Annotated[
        bool, typer.Option("--layers", help="Time every layer, by a second build with a clock after each.")
    ] = False,
    rounds: Annotated[int, typer.Option("--rounds", min=1, metavar="N", help="Turns of each engine, about 0.1 s each.")] = 10,
    feed: FeedOption = None,
    target: TargetOption = "host",
    threads: ThreadsOption = 1,
    dim: DimOption = None,
    shape: InputOption = None,
    precision: PrecisionOption = Precision.fp32,
    passes: PassesOption = None,
    cc: CcOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Time a model, beside onnxruntime if wished.

    Prints medians of CPU time (all threads together) and of wall time a run. Engines take turns in one process, so
    that their ratio holds on a busy machine too.
    """
    from sparsec.compiler.cli.layer_times import layer_seconds
    from sparsec.compiler.cli.session import feeds_for, model_path, opened, runs_here
    from sparsec.compiler.measure import take_turns

    passes = with_precision(passes, precision, target)
    options = CompileOptions(target, threads, dim, shape, passes, cc)
    with Steps("bench", quiet=quiet) as steps, opened(subject, options, steps) as compiled:
        if not runs_here(compiled):
            raise UsageError(f"{compiled.report.options.target} does not run on this machine: time it on one that it does")
        feeds = feeds_for(subject, compiled, files=feed or ())
        runs = {"sparsec": compiled.runner(feeds)}
        if vs is Peer.onnxruntime:
            from sparsec.compiler.onnxruntime_reference import OnnxRuntime

            reference = OnnxRuntime(model_path(subject, compiled), threads=compiled.report.options.threads)
            runs[vs.value] = reference.runner(feeds)
        steps(f"time {' and '.join(runs)}")
        timings = take_turns(runs, rounds=rounds, pause=0.05 if compiled.report.options.threads > 1 else 0.0)
        profile: list[float] = []
        if layers:
            steps("time every layer")
            profile = layer_seconds({"sparsec": compiled}, feeds, rounds)["sparsec"]
        report = compiled.report
    rows = _layer_rows(report, profile) if layers else []
    if json:
        emit_json(_data(report, timings, rows))
        return
    _print(report, timings)
    if layers:
        say("")
        _print_layers(rows)


def _layer_rows(report: Report, seconds: list[float]) -> list[dict[str, Any]]:
    """A record a layer that runs something, in order."""
    total = sum(seconds) or 1.0
    return [
        {
            "layer": layer.node,
            "origin": list(layer.origin),
            "op": layer.op,
            "kernel": layer.kernel,
            "output": str(list(layer.outputs[0].shape)) if layer.outputs else "",
            "macs": layer.macs,
            "us": s * 1e6,
            "share": s / total,
            "predicted_us": layer.predicted_us,
        }
        for layer, s in zip(report.layers, seconds, strict=True)
        if layer.calls
    ]


def _data(report: Report, timings: dict[str, Timing], rows: list[dict[str, Any]]) -> dict[str, Any]:
    from sparsec.compiler.measure import machine_line

    engines = {
        name: {"cpu_ms": t.cpu_median * 1e3, "wall_ms": t.wall_median * 1e3, "runs": len(t.cpu)} for name, t in timings.items()
    }
    return {
        "model": report.options.name,
        "target": report.options.target,
        "threads": report.options.threads,
        "machine": machine_line(),
        "engines": engines,
        "ratios": {name: timings["sparsec"].cpu_median / t.cpu_median for name, t in timings.items() if name != "sparsec"},
        "layers": rows,
    }


def _print(report: Report, timings: dict[str, Timing]) -> None:
    from sparsec.compiler.measure import machine_line

    say(f"{report.options.name} for {report.options.target}, {report.options.threads} thread(s), on {machine_line()}")
    ours = timings["sparsec"]
    rows = []
    for name, t in timings.items():
        ratio = "" if t is ours else f"{ours.cpu_median / t.cpu_median:.2f}"
        rate = f"{report.macs / t.wall_median / 1e9:.1f}"
        rows.append([name, f"{t.cpu_median * 1e3:.3f}", f"{t.wall_median * 1e3:.3f}", rate, str(len(t.cpu)), ratio])
    table(("engine", ">CPU ms", ">wall ms", ">GMAC/s", ">runs", ">time(sparsec)/time"), rows)


def _print_layers(rows: list[dict[str, Any]]) -> None:
    shown = []
    for r in rows:
        rate = f"{r['macs'] / r['us'] / 1e3:.1f}" if r["macs"] and r["us"] > 0 else ""
        us, predicted = f"{r['us']:.1f}", f"{r['predicted_us']:.1f}"
        shown.append(
            [r["layer"], r["op"], r["output"], count(r["macs"]), us, f"{100 * r['share']:.1f} %", rate, predicted, r["kernel"]]
        )
    table(("layer", "op", "output", ">MACs", ">us", ">share", ">GMAC/s", ">predicted us", "kernel"), shown)
