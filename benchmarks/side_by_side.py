"""One model through sparsec and its peers: build, compile in a process of its own, verify, time in turns."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError

import models
from benchmarks.peer_worker import openvino_runner
from benchmarks.processes import run_python
from sparsec.compiler.driver import load
from sparsec.compiler.errors import ModelError
from sparsec.compiler.measure import Run, Timing, Turn, machine_line, take_turns
from sparsec.compiler.onnxruntime_reference import OnnxRuntime
from sparsec.compiler.onnxruntime_reference import version as onnxruntime_version
from sparsec.compiler.report import Report
from sparsec.compiler.verify_model import TOLERANCE, Verification, verify_model

Feeds = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Compiled:
    """A library, and what compiling it took: seconds of wall and CPU time, peak bytes, the C compiler included."""

    folder: Path
    report: Report
    wall: float
    cpu: float
    peak_bytes: int


@dataclass(frozen=True)
class Measurement:
    """What one model did. `times` maps an engine's name to its runs; empty when only correctness was asked for."""

    model: str
    compiled: Compiled
    verification: Verification
    times: dict[str, Timing] = field(default_factory=dict)

    def seconds(self, engine: str) -> float:
        """Median seconds a run: CPU time on one thread, wall time on several (waiting threads may spin)."""
        timing = self.times[engine]
        return timing.cpu_median if self.compiled.report.options.threads == 1 else timing.wall_median

    def ratio(self, engine: str, other: str = "sparsec") -> float:
        """time(other) / time(engine)."""
        return self.seconds(other) / self.seconds(engine)


def model_names() -> tuple[str, ...]:
    """The models that can be built, then the trained ones whose packages are installed."""
    trained = []
    for name in models.packaged_names():
        with suppress(FileNotFoundError):
            models.packaged(name)
            trained.append(name)
    return (*models.names(), *trained)


def build_model(name: str, folder: Path, *, reuse: bool = False) -> Path:
    """Write the model to `folder`/NAME.onnx, in a process of its own so that its memory is given back."""
    path = folder / f"{name}.onnx"
    if not (reuse and path.exists()):
        folder.mkdir(parents=True, exist_ok=True)
        if name in models.packaged_names():
            onnx.save(models.packaged(name), path)
            return path
        run_python(["-m", "models", "build", name, "-o", str(path)])
    return path


def compile_model(model: Path, folder: Path, *, target: str = "host", threads: int = 1) -> Compiled:
    """`sparsec compile` in a process of its own, so that its memory can be told from ours."""
    command = ["-m", "sparsec.compiler.cli", "compile", str(model), "-o", str(folder), *shape_options(model)]
    usage = run_python([*command, "--target", target, "--threads", str(threads), "--no-verify", "--quiet"])
    return Compiled(folder, load(folder).report, usage.wall, usage.cpu, usage.peak_bytes)


def inputs_for(model: Path, samples: int) -> list[Feeds]:
    """Input sets with seeds 0, 1, ... ModelError for a file that holds no model."""
    try:
        proto = onnx.load(model, load_external_data=False)
    except DecodeError as exc:
        raise ModelError(f"{model} is not an ONNX model: {exc}") from exc
    return [models.inputs(proto, seed=seed) for seed in range(samples)]


def shape_options(model: Path) -> list[str]:
    """Options of `sparsec` that bind what is dynamic in the model's inputs, as `inputs_for` does."""
    return [o for name, a in inputs_for(model, 1)[0].items() for o in ("--input", f"{name}={','.join(map(str, a.shape))}")]


def measure(
    model: Path, compiled: Compiled, *, samples: int = 3, rounds: int = 10, seconds: float = 0.3, single: Compiled | None = None
) -> Measurement:
    """Verify on `samples` input sets and, if `rounds` is not 0, time sparsec and its peers in turns on the first.

    `single` is the same model compiled for one thread, timed too as `sparsec, 1 thread`.
    """
    threads = compiled.report.options.threads
    library, reference, feeds = load(compiled.folder), OnnxRuntime(model, threads=threads), inputs_for(model, samples)
    verification = verify_model(library.run, reference.run, feeds, tolerance=TOLERANCE)
    times: dict[str, Timing] = {}
    if rounds:
        runs = {"sparsec": library.runner(feeds[0]), **peer_runs(model, reference, feeds[0], threads)}
        if single is not None:
            runs["sparsec, 1 thread"] = load(single.folder).runner(feeds[0])
        times = in_turns(runs, threads=threads, rounds=rounds, seconds=seconds)
    return Measurement(model.stem, compiled, verification, times)


def peer_runs(model: Path, reference: OnnxRuntime, feeds: Feeds, threads: int) -> dict[str, Run]:
    """The engines of this process beside sparsec: onnxruntime, and OpenVINO where it is installed."""
    runs = {"onnxruntime": reference.runner(feeds)}
    if find_spec("openvino") is not None:
        runs["openvino"] = openvino_runner(str(model), feeds, threads)
    return runs


def in_turns(
    runs: Mapping[str, Run], *, threads: int, rounds: int, seconds: float, elsewhere: Mapping[str, Turn] | None = None
) -> dict[str, Timing]:
    """Times in turns; with several threads, those that an engine left spinning get time to go to sleep."""
    return take_turns(runs, elsewhere=elsewhere, rounds=rounds, seconds=seconds, pause=0.05 if threads > 1 else 0.0)


def header(threads: int) -> str:
    """Where and with what the numbers were taken."""
    versions = f"Python {platform.python_version()}, onnxruntime {onnxruntime_version()}"
    return f"{machine_line()}; {threads} thread(s); {versions}"


def as_record(m: Measurement) -> dict[str, Any]:
    """The measurement as JSON data: milliseconds, seconds and bytes."""
    report, compiled = m.compiled.report, m.compiled
    engines = {
        name: {"cpu_ms": t.cpu_median * 1e3, "wall_ms": t.wall_median * 1e3, "runs": len(t.cpu)} for name, t in m.times.items()
    }
    return {
        "model": m.model,
        "target": report.options.target,
        "threads": report.options.threads,
        "error": m.verification.worst.error,
        "samples": 1 + max(c.sample for c in m.verification.checks),
        "macs": report.macs,
        "engines": engines,
        "ratios": {name: m.ratio(name) for name in m.times if name != "sparsec"},
        "compile_wall_s": compiled.wall,
        "compile_cpu_s": compiled.cpu,
        "compile_peak_bytes": compiled.peak_bytes,
        "arena_bytes": report.memory.arena_bytes,
        "arena_bound_bytes": arena_bound(report),
        "weights_bytes": report.memory.weights_bytes,
        "c_bytes": report.sources.c_bytes,
    }


def arena_bound(report: Report) -> int:
    """Bytes that no arena can go below: the largest sum of live buffers, and scratch for every thread."""
    return report.memory.arena_lower_bound + report.memory.scratch_bytes * report.options.threads


def write_json(path: Path, records: Sequence[dict[str, Any]], header: str) -> None:
    """The records of a run under a line that says where and with what they were taken."""
    path.write_text(json.dumps({"header": header, "results": list(records)}, indent=1) + "\n", encoding="utf-8")
