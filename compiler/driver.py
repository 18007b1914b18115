"""The compiler as one call: import, passes, schedule, lower, emit, build, report."""

from __future__ import annotations

import hashlib
import os
import platform
import resource
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from sparsec.compiler.errors import LimitError, UsageError
from sparsec.compiler.graph import Graph
from sparsec.compiler.limits import Limits
from sparsec.compiler.preparing import Clock, Progress, prepare
from sparsec.compiler.report import (
    FILE_NAME,
    GRAPH_FILE_NAME,
    ModelInfo,
    Options,
    PassRecord,
    PhaseTime,
    Report,
    Sources,
    Versions,
    tensor_info,
)
from sparsec.compiler.runtime import CompiledModel

if TYPE_CHECKING:
    from sparsec.backends.cpu.emit import Emitted
    from sparsec.backends.cpu.memory import MemoryPlan
    from sparsec.backends.cpu.program import Program
    from sparsec.backends.cpu.target import CpuTarget
    from sparsec.compiler.passing.base import Notes
    from sparsec.compiler.passing.runner import PassTiming
    from sparsec.compiler.schedule import Schedule
    from sparsec.passes.pruning.budget import Budget
    from sparsec.passes.pruning.calibrated.data import Source
    from sparsec.passes.pruning.recipe import Recipe
    from sparsec.passes.quantisation.settings import Settings as QuantisationSettings

MANIFEST_NAME = "manifest.json"  # of a folder that was compiled for an array


@dataclass(frozen=True)
class Compilation:
    """Everything between the model and the files, for those who look inside (`inspect`, tests)."""

    imported: Graph
    graph: Graph
    schedule: Schedule
    program: Program
    plan: MemoryPlan
    emitted: Emitted
    pipeline: str


def build(
    graph: Graph,
    target: CpuTarget,
    *,
    passes: str | None = None,
    weights: str = "incbin",
    dump_ir: str | None = None,
    dump_dir: Path | None = None,
    clock: Clock | None = None,
    notes: Notes | None = None,
    timings: list[PassTiming] | None = None,
) -> Compilation:
    """From an imported graph to emitted files, in memory."""
    from sparsec.backends.cpu.emit import WEIGHTS_MODES, emit
    from sparsec.backends.cpu.memory import plan_memory
    from sparsec.compiler.passing.dump import Dumper
    from sparsec.compiler.passing.pipeline import parse_pipeline, print_pipeline
    from sparsec.compiler.passing.runner import run_pipeline
    from sparsec.passes.layout import AssignLayouts
    from sparsec.passes.legalise import Legalise
    from sparsec.passes.pipelines import PIPELINES
    from sparsec.passes.registry import load_all
    from sparsec.passes.schedule import make_schedule

    if weights not in WEIGHTS_MODES:
        raise UsageError(f"--weights is {weights!r}, expected one of {', '.join(WEIGHTS_MODES)}")
    clock = clock or Clock(None)
    with clock.phase("passes"):
        steps = parse_pipeline("default" if passes is None else passes, load_all(), PIPELINES)
        every = (*steps, Legalise(target), AssignLayouts(target))
        if dump_ir and dump_ir not in (dumpable := ("all", "changed", *dict.fromkeys(s.name for s in every))):
            raise UsageError(f"--dump-ir is {dump_ir!r}, expected one of {', '.join(dumpable)}")
        dumper = Dumper(dump_dir, dump_ir) if dump_ir and dump_dir else None
        optimised = run_pipeline(graph, every, notes=notes, timings=timings, dumper=dumper)
    with clock.phase("schedule"):
        schedule = make_schedule(optimised, target)
    with clock.phase("lower"):
        program = target.lower(optimised, schedule)
        plan = plan_memory(program.buffers)
    with clock.phase("emit"):
        emitted = emit(program, plan, weights)
    return Compilation(graph, optimised, schedule, program, plan, emitted, print_pipeline(steps))


def compile(
    model: str | Path | onnx.ModelProto | bytes,
    output_dir: str | Path | None = None,
    *,
    target: str = "host",
    threads: int = 1,
    name: str | None = None,
    dims: Mapping[str, int] | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    passes: str | None = None,
    weights: str = "incbin",
    cc: str | None = None,
    limits: Limits | None = None,
    dump_ir: str | None = None,
    max_arena: int | None = None,
    kernels: Sequence[str] = (),
    recipe: Recipe | str | None = None,
    calibration: Source | None = None,
    budget: Budget | None = None,
    quantisation: QuantisationSettings | None = None,
    bfloat16: bool = False,
    progress: Progress | None = None,
) -> CompiledModel:
    """Compile an ONNX model to a C library in `output_dir` (default build/NAME) and load it.

    `dims` binds dynamic dimensions by symbol, `input_shapes` by input. `passes` replaces the default pipeline by one given as
    text. `recipe` prunes the model first (a pattern, or a `Recipe`); the pruned model is kept as `output_dir`/NAME.onnx;
    `calibration` is the data that it is pruned for, if any, and `budget` what its layers share (see `sparsec.prune`).
    `quantisation` makes what its layers multiply bytes, for the calibration data (see `sparsec.quantise`); `bfloat16` rounds it
    to bfloat16, for targets that have kernels for that (UsageError for others).
    `dump_ir` is all, changed or a pass's name: dumps go to `output_dir`/ir. `max_arena` bounds the arena in bytes, `kernels` the
    families of kernels to choose from (none: all). The folder appears whole or not at all. Raises a SparsecError
    (see `sparsec.compiler.errors`).
    """
    from sparsec.backends.cpu.target import CpuTarget
    from sparsec.backends.cpu.toolchain import find_compiler
    from sparsec.backends.naming import identifier

    clock = Clock(progress)
    timings: list[PassTiming] = []
    machine = CpuTarget.named(target, threads, kernels)
    if bfloat16:
        machine.require_bfloat16()
        passes = with_bfloat16(passes)
    compiler = find_compiler(cc)
    path = Path(model) if isinstance(model, str | Path) else None
    bound = {"dims": dims or {}, "input_shapes": input_shapes or {}, "limits": limits or Limits()}
    how = {"target": target, "threads": threads, "kernels": kernels, "passes": passes}
    ready = prepare(model, clock, bound, how, recipe, calibration, budget, quantisation)
    graph, changed = ready.graph, ready.changed
    label = identifier(name or (path.stem if path else graph.name))
    graph = Graph(label, graph.inputs, graph.outputs, graph.nodes, graph.types, graph.constants)
    folder = Path(output_dir) if output_dir is not None else Path("build") / label
    with staged(folder) as stage:
        made = build(
            graph, machine, passes=passes, weights=weights, dump_ir=dump_ir, dump_dir=stage / "ir", clock=clock, timings=timings
        )
        if max_arena is not None and made.emitted.arena_bytes > max_arena:
            raise LimitError(
                f"the arena takes {made.emitted.arena_bytes:,} bytes ({made.plan.lower_bound:,} cannot be avoided), more than "
                f"--max-arena {max_arena:,}: use fewer threads, a smaller batch or a smaller input"
            )
        if changed is not None:
            changed.save(stage / f"{label}.onnx")
        about = _model_info(made, model if changed is None else stage / f"{label}.onnx")
        asked: dict[str, Any] = {
            "weights": weights,
            "dims": dict(dims or {}),
            "input_shapes": {k: tuple(v) for k, v in (input_shapes or {}).items()},
            "max_arena": max_arena,
            "kernels": tuple(kernels),
        }
        report = write_library(stage, made, machine, compiler, about, clock, timings, asked, path)
        if changed is not None:
            moved = about.model_copy(update={"path": str(folder / f"{label}.onnx")})
            report = report.model_copy(update={"model": moved})
        if ready.pruned is not None:
            done = ready.pruned.report
            report = report.model_copy(update={"pruning": done.layers, "budget": done.budget})
        if ready.quantised is not None:
            report = report.model_copy(update={"quantisation": ready.quantised.report})
        (stage / FILE_NAME).write_text(report.text(), encoding="utf-8")
    return CompiledModel(folder)


def write_library(
    stage: Path,
    made: Compilation,
    machine: CpuTarget,
    compiler: str,
    about: ModelInfo,
    clock: Clock,
    timings: Sequence[PassTiming] = (),
    asked: Mapping[str, Any] | None = None,
    path: Path | None = None,
) -> Report:
    """Write what was emitted into `stage` and build the library there; returns the report, which is not written yet.

    `about` and `asked` are told in the report: the model, and the options besides target and compiler. `path` is the file that
    the make rule names.
    """
    from sparsec.backends.cpu.toolchain import build_library, compiler_version
    from sparsec.compiler.text.printer import print_graph

    label, emitted = made.emitted.name, made.emitted
    for file, data in emitted.files.items():
        (stage / file).write_bytes(data)
    (stage / f"{label}.d").write_text(_dependencies(label, emitted.files, path))
    (stage / GRAPH_FILE_NAME).write_text(print_graph(made.graph), encoding="ascii")
    with clock.phase("cc"):
        build_library(stage, label, emitted.compile_flags, compiler)
    options = Options(
        name=label,
        target=machine.name,
        threads=machine.threads,
        passes=made.pipeline,
        cc=compiler,
        cflags=emitted.compile_flags,
        **{"weights": "incbin", **(asked or {})},
    )
    return _report(made, about, options, compiler_version(compiler), clock.phases, timings)


def with_bfloat16(passes: str | None) -> str:
    """The pipeline `passes` (None: the default one) and then the pass that rounds what layers multiply to bfloat16."""
    return ",".join(filter(None, ("default" if passes is None else passes, "bfloat16")))


def load(directory: str | Path) -> CompiledModel:
    """Load a folder that `compile` wrote."""
    return CompiledModel(directory)


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A temporary sibling of `folder` that takes its place on success and vanishes on failure.

    Only a folder that sparsec wrote (or an empty one) is replaced.
    """
    ours = any((folder / name).exists() for name in (FILE_NAME, MANIFEST_NAME))
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not ours)):
        raise UsageError(f"{folder} exists and was not written by sparsec: choose another output folder with -o")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as exc:
        raise UsageError(f"cannot write to {folder.parent}: {exc.strerror}") from exc
    try:
        yield stage
        os.chmod(stage, 0o755)
        if folder.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
            os.replace(folder, old / "was")
            os.replace(stage, folder)
            shutil.rmtree(old)
        else:
            os.replace(stage, folder)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _dependencies(name: str, files: Mapping[str, bytes], path: Path | None) -> str:
    """A make rule: the generated files depend on the model."""
    model = str(path) if path else ""
    for char, escaped in (("\\", "\\\\"), (" ", "\\ "), ("#", "\\#"), ("$", "$$"), ("\n", "")):
        model = model.replace(char, escaped)
    return f"{' '.join(sorted(files))}:{' ' + model if model else ''}\n"


def _model_info(made: Compilation, model: str | Path | onnx.ModelProto | bytes) -> ModelInfo:
    if isinstance(model, str | Path):
        with open(model, "rb") as file:
            digest = hashlib.file_digest(file, "sha256")
    else:
        digest = hashlib.sha256(model if isinstance(model, bytes) else model.SerializeToString(deterministic=True))
    return ModelInfo(
        name=made.imported.name,
        path=str(model) if isinstance(model, str | Path) else "",
        sha256=digest.hexdigest(),
        nodes=len({o for n in made.imported.nodes for o in n.origin}),
    )


def _report(
    made: Compilation,
    model: ModelInfo,
    options: Options,
    cc_version: str,
    phases: Sequence[PhaseTime],
    timings: Sequence[PassTiming],
) -> Report:
    from sparsec.backends.cpu.describe import describe_layers, describe_memory

    types, files = made.graph.types, made.emitted.files
    passes = [
        PassRecord(name=t.name, seconds=t.seconds, changed=t.changed, nodes_before=t.nodes_before, nodes_after=t.nodes_after)
        for t in timings
    ]
    return Report(
        versions=Versions(sparsec=version("sparsec"), python=platform.python_version(), onnx=onnx.__version__, cc=cc_version),
        model=model,
        options=options,
        inputs=tuple(tensor_info(v, types[v]) for v in made.graph.inputs),
        outputs=tuple(tensor_info(p.name, types[p.value]) for p in made.graph.outputs),
        layers=describe_layers(made.graph, made.schedule, made.program),
        memory=describe_memory(made.program, made.plan, made.emitted),
        sources=Sources(c_bytes=made.emitted.text_bytes, files=tuple(sorted(files)), kernels=len(list(made.program.kernels()))),
        phases=tuple(phases),
        passes=tuple(passes),
        peak_rss_bytes=_peak_memory(),
    )


def _peak_memory() -> int:
    """The largest resident set of this process so far, in bytes."""
    status = Path("/proc/self/status")  # getrusage counts on Linux what the process held before it became this one
    lines = status.read_text().splitlines() if status.exists() else []
    found = next((line.split()[1] for line in lines if line.startswith("VmHWM:")), None)
    return 1024 * (int(found) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
