"""One model through sparsec and its peers: build, compile in a process of its own, verify, time in turns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import models
from sparsec.compiler.driver import load
from sparsec.compiler.measure import Timing, take_turns
from sparsec.compiler.onnxruntime_reference import OnnxRuntime
from sparsec.compiler.report import Report
from sparsec.compiler.verify_model import TOLERANCE, Verification, verify_model

ROOT = Path(__file__).resolve().parents[1]
Feeds = dict[str, np.ndarray[Any, Any]]


class CompileFailure(Exception):
    """The command line ended with a status other than 0; the message is what it printed."""


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
        _run([sys.executable, "-m", "models", "build", name, "-o", str(path)])
    return path


def compile_model(model: Path, folder: Path, *, target: str = "host", threads: int = 1) -> Compiled:
    """`sparsec compile` in a process of its own, so that its memory can be told from ours."""
    command = [sys.executable, "-m", "sparsec.compiler.cli", "compile", str(model), "-o", str(folder), "--target", target]
    for name, array in inputs_for(model, 1)[0].items():  # binds what is dynamic
        command += ["--input", f"{name}={','.join(map(str, array.shape))}"]
    usage = _run([*command, "--threads", str(threads), "--no-verify", "--quiet"])
    return Compiled(folder, load(folder).report, usage.wall, usage.cpu, usage.peak_bytes)


@dataclass(frozen=True)
class _Usage:
    """What a process and its children took: wall and CPU seconds, and the largest resident set of any of them in bytes."""

    wall: float
    cpu: float
    peak_bytes: int


# Linux counts the memory of the process that starts another as the other's too, so a small process stands between.
_WATCH = """
import json, os, subprocess, sys, time
start = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
wall, cpu = time.perf_counter() - start, usage.ru_utime + usage.ru_stime
print(json.dumps([os.waitstatus_to_exitcode(status), wall, cpu, usage.ru_maxrss * 1024]))
"""


def _run(command: Sequence[str]) -> _Usage:
    """Run to the end. CompileFailure with its last line when it fails."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "python"), str(ROOT)])}
    watch = [sys.executable, "-I", "-S", "-c", _WATCH, *command]
    done = subprocess.run(watch, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    status, wall, cpu, peak = json.loads(done.stdout)
    if status:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise CompileFailure(f"status {status}: {last}")
    return _Usage(wall, cpu, peak)


def inputs_for(model: Path, samples: int) -> list[Feeds]:
    """Input sets with seeds 0, 1, ..."""
    proto = onnx.load(model, load_external_data=False)
    return [models.inputs(proto, seed=seed) for seed in range(samples)]


def measure(
    model: Path, compiled: Compiled, *, samples: int = 3, rounds: int = 10, seconds: float = 0.3, single: Compiled | None = None
) -> Measurement:
    """Verify on `samples` input sets and, if `rounds` is not 0, time sparsec and its peers in turns on the first.

    `single` is the same model compiled for one thread, timed too as `sparsec, 1 thread`.
    """
    threads = compiled.report.options.threads
    library, reference = load(compiled.folder), OnnxRuntime(model, threads=threads)
    feeds = inputs_for(model, samples)
    verification = verify_model(library.run, reference.run, feeds, tolerance=TOLERANCE)
    times: dict[str, Timing] = {}
    if rounds:
        runs: dict[str, Callable[[], object]] = {"sparsec": library.runner(feeds[0]), "onnxruntime": reference.runner(feeds[0])}
        if find_spec("openvino") is not None:
            runs["openvino"] = openvino_runner(model, feeds[0], threads)
        if single is not None:
            runs["sparsec, 1 thread"] = load(single.folder).runner(feeds[0])
        times = take_turns(runs, rounds=rounds, seconds=seconds, pause=0.05 if threads > 1 else 0.0)
    return Measurement(model.stem, compiled, verification, times)


def openvino_runner(model: Path, feeds: Feeds, threads: int) -> Callable[[], object]:
    """OpenVINO on the CPU in float32, one stream of `threads` threads."""
    import openvino

    options = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = openvino.Core().compile_model(str(model), "CPU", options).create_infer_request()
    return lambda: request.infer(feeds, share_inputs=True, share_outputs=True)


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
