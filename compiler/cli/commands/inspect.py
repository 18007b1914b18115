"""`sparsec inspect`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sparsec.compiler.cli.console import count, emit_json, say, size, table
from sparsec.compiler.cli.options import (
    CompileOptions,
    DimOption,
    InputOption,
    JsonOption,
    LimitsOption,
    PassesOption,
    SubjectArgument,
    TargetOption,
    ThreadsOption,
)
from sparsec.compiler.cli.quantising import Precision, PrecisionOption, with_precision
from sparsec.compiler.errors import UsageError

if TYPE_CHECKING:
    from sparsec.compiler.report import Layer, Memory, TensorInfo


@dataclass(frozen=True)
class _View:
    """What there is to see of a model or of a compiled folder."""

    title: str
    inputs: Sequence[TensorInfo]
    outputs: Sequence[TensorInfo]
    layers: Sequence[Layer]
    memory: Memory
    graph: str
    notes: Sequence[str]


def inspect(
    subject: SubjectArgument,
    ir: Annotated[bool, typer.Option("--ir", help="Print the graph that the passes left, as text that parses back.")] = False,
    imported: Annotated[
        bool, typer.Option("--imported", help="Print the graph as imported, before any pass (models only).")
    ] = False,
    schedule: Annotated[bool, typer.Option("--schedule", help="Print how every layer is computed, and why.")] = False,
    memory: Annotated[bool, typer.Option("--memory", help="Print the arena's buffers, their places and lifetimes.")] = False,
    notes: Annotated[bool, typer.Option("--notes", help="Print why passes left nodes as they were (models only).")] = False,
    target: TargetOption = "host",
    threads: ThreadsOption = 1,
    dim: DimOption = None,
    shape: InputOption = None,
    precision: PrecisionOption = Precision.fp32,
    passes: PassesOption = None,
    limits: LimitsOption = None,
    json: JsonOption = False,
) -> None:
    """Look inside a model or a compiled folder.

    No C compiler is called. Without options: inputs, outputs and layers. Predicted times are a cost model's
    estimates; `sparsec bench --layers` measures.
    """
    options = CompileOptions(target, threads, dim, shape, with_precision(passes, precision, target), None, limits)
    if imported:
        _print_imported(subject, options)
        return
    view = _of_folder(subject) if subject.is_dir() else _of_model(subject, options)
    if ir:
        say(view.graph.rstrip("\n"))
    if json:
        parts = {"inputs": view.inputs, "outputs": view.outputs, "layers": view.layers}
        data = {key: [r.model_dump(mode="json") for r in records] for key, records in parts.items()}
        emit_json({**data, "memory": view.memory.model_dump(mode="json"), "notes": list(view.notes)})
        return
    if schedule:
        _print_schedule(view.layers)
    if memory:
        _print_memory(view.memory)
    if notes:
        say("\n".join(view.notes) or "no notes")
    if not (ir or schedule or memory or notes):
        _print_summary(view)


def _print_imported(subject: Path, options: CompileOptions) -> None:
    from sparsec.compiler.cli.graphs import read_graph
    from sparsec.compiler.text.printer import print_graph

    if subject.is_dir():
        raise UsageError(f"{subject} does not hold the graph as imported: give the .onnx file")
    say(print_graph(read_graph(subject, options.dim, options.shape, options.limits)).rstrip("\n"))


def _of_model(path: Path, options: CompileOptions) -> _View:
    """Import, run the passes, schedule and lower; nothing is written."""
    from sparsec.backends.cpu.describe import describe_layers, describe_memory
    from sparsec.backends.cpu.target import CpuTarget
    from sparsec.compiler import driver
    from sparsec.compiler.cli.graphs import read_graph
    from sparsec.compiler.passing.base import Notes
    from sparsec.compiler.report import tensor_info
    from sparsec.compiler.text.printer import print_graph

    graph = read_graph(path, options.dim, options.shape, options.limits)
    machine, notes = CpuTarget.named(options.target, options.threads), Notes()
    made = driver.build(graph, machine, passes=options.passes, notes=notes)
    types = made.graph.types
    return _View(
        f"{path} for {machine.name}, {machine.threads} thread(s)",
        [tensor_info(v, types[v]) for v in made.graph.inputs],
        [tensor_info(p.name, types[p.value]) for p in made.graph.outputs],
        describe_layers(made.graph, made.schedule, made.program),
        describe_memory(made.program, made.plan, made.emitted),
        print_graph(made.graph),
        [str(n) for n in notes.entries],
    )


def _of_folder(folder: Path) -> _View:
    from sparsec.compiler.report import GRAPH_FILE_NAME, read_report

    report = read_report(folder)
    title = f"{folder}: {report.options.name} for {report.options.target}, {report.options.threads} thread(s)"
    graph = (folder / GRAPH_FILE_NAME).read_text(encoding="ascii")
    return _View(title, report.inputs, report.outputs, report.layers, report.memory, graph, ())


def _print_summary(view: _View) -> None:
    say(view.title)
    for label, tensors in (("input", view.inputs), ("output", view.outputs)):
        for t in tensors:
            say(f"  {label} {t.name!r}: {t.dtype}{list(t.shape)}")
    m = view.memory
    say(f"  {count(sum(layer.macs for layer in view.layers))}MAC, weights {size(m.weights_bytes)}, arena {size(m.arena_bytes)}\n")
    rows = [
        [_short(layer.node), layer.op, _types(layer), count(layer.macs), f"{layer.predicted_us:.1f}", layer.kernel]
        for layer in view.layers
    ]
    table(("layer", "op", "result", ">MACs", ">predicted us", "kernel"), rows)


def _types(layer: Layer) -> str:
    return " ".join(f"{t.dtype}{list(t.shape)}{t.layout}".replace(" ", "") for t in layer.outputs)


def _short(name: str, limit: int = 40) -> str:
    return name if len(name) <= limit else f"...{name[3 - limit :]}"


def _print_schedule(layers: Sequence[Layer]) -> None:
    for layer in layers:
        say(f"{layer.node} ({layer.op}; from {', '.join(map(repr, layer.origin)) or 'nothing'})")
        if not layer.calls:
            say("  nothing runs: a view of its operand")
            continue
        say(f"  kernel    {layer.kernel}")
        say(f"  loops     {layer.schedule}")
        say(f"  predicted {count(layer.predicted_cycles)} cycles, {layer.predicted_us:.1f} us, bound by {layer.bound_by}")
        second = layer.runner_up
        runner_up = f"{second.kernel}, {second.us:.1f} us" if second else ""
        for label, text in (("reason", layer.reason), ("runner-up", runner_up)):
            if text:
                say(f"  {label:9} {text}")


def _print_memory(memory: Memory) -> None:
    bound = f"no plan takes less than {memory.arena_lower_bound:,}"
    say(f"arena {memory.arena_bytes:,} bytes: buffers {memory.arena_peak:,} ({bound}), scratch {memory.scratch_bytes:,} a thread")
    say(f"weights {memory.weights_bytes:,} bytes")
    rows = [[b.name, f"{b.offset:,}", f"{b.bytes:,}", str(b.first), str(b.last)] for b in memory.buffers]
    table(("buffer", ">offset", ">bytes", ">first call", ">last call"), rows)
