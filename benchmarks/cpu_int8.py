"""int8 models on the CPU, dense and sparse: sparsec beside onnxruntime in float32 and in int8, in turns, in one process.

    python benchmarks/cpu_int8.py                                    every row that has a goal, one thread
    python benchmarks/cpu_int8.py resnet50:dense bert_base:block:8x8@75% --json results.json
    python benchmarks/cpu_int8.py model.onnx:block:32x4/taps=each@50%
    python benchmarks/cpu_int8.py resnet50:dense --target x86_64+avx2+fma --reduce-range

For each row the model is pruned by `sparsec prune --preserve-norm`, quantised by `sparsec quantise` on random inputs, and
compiled. The library gives the interpreter's integers, or the row is wrong; it is compared with onnxruntime on the same
quantised model, and takes turns with onnxruntime on the float32 model (the 1.0 of the goals) and on the quantised one, and
with our own float32 library of the dense model. CPU time on one thread, wall time on more. SQNR is the signal to quantisation
noise of the first output against the float32 model, in dB; of seeded random weights it says little about a trained network
(docs/quantisation.md has accuracy).
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.processes import CommandFailure, run_python
from benchmarks.side_by_side import (
    Feeds,
    Measurement,
    build_model,
    compile_model,
    header,
    in_turns,
    inputs_for,
    model_names,
    write_json,
)
from benchmarks.sparse_goals import Row, is_path, parse_row
from benchmarks.sparse_side import prune_model
from sparsec.compiler.cli.console import plain_table
from sparsec.compiler.driver import load
from sparsec.compiler.errors import SparsecError
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.interpreter import interpret
from sparsec.compiler.onnxruntime_reference import OnnxRuntime
from sparsec.compiler.passing.runner import run_pipeline
from sparsec.compiler.verify_model import ROUNDED_TOLERANCE, relative_error, verify_model
from sparsec.passes.pipelines import DEFAULT

OURS, THEIRS, THEIRS_INT8, OURS_FP32 = "sparsec int8", "onnxruntime fp32", "onnxruntime int8", "sparsec fp32"
# Speed-ups over onnxruntime in float32 on one thread.
GOALS = {
    Row("resnet50", "dense"): 3.8,
    Row("resnet50", "block:8x8@50%"): 5.8,
    Row("resnet50", "block:8x8@75%"): 9.5,
    Row("resnet50", "block:32x4/taps=each@50%"): 6.5,
    Row("resnet50", "block:32x4/taps=each@75%"): 11.0,
    Row("bert_base", "dense"): 3.6,
    Row("bert_base", "block:8x8@75%"): 8.5,
    Row("mobilenet_v2", "dense"): 2.2,
}
_CALIBRATION = 4  # input sets
_EXACT = 0.02  # of networks of convolutions
_FLOAT = ("Attention", "LayerNorm")  # differ from numpy's in the last bit, and that from layer to layer


@dataclass(frozen=True)
class Result:
    """What one row did; `sqnr` in dB. `exact`: the library computes what the interpreter does, but for rounding of float32."""

    row: Row
    measured: Measurement
    sqnr: float
    exact: bool

    @property
    def ok(self) -> bool:
        """Whether the library is right."""
        return self.exact and self.measured.verification.ok

    @property
    def speedup(self) -> float | None:
        """Over onnxruntime in float32; None when nothing was timed."""
        return self.measured.ratio(OURS, THEIRS) if THEIRS in self.measured.times else None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; 1 when a row was not quantised, not compiled or is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "rows", nargs="*", metavar="MODEL:PATTERN", help="a model of models/ or a .onnx file (default: all goals)"
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of every engine (default: 1)")
    parser.add_argument("--target", default="host", help="target of our libraries (default: host)")
    parser.add_argument("--reduce-range", action="store_true", help="quantise weights to 7 bits")
    parser.add_argument("--rounds", type=int, default=10, help="turns of each engine; 0 verifies only (default: 10)")
    parser.add_argument("--seconds", type=float, default=0.3, help="length of a turn (default: 0.3)")
    parser.add_argument("--work", type=Path, metavar="DIR", help="keep models and libraries there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there, too")
    a = parser.parse_args(argv)
    try:
        rows = [parse_row(text, model_names()) for text in a.rows] or list(GOALS)
    except (ValueError, SparsecError) as exc:
        parser.error(str(exc))
    line = header(a.threads)
    print(line, flush=True)
    found: list[Result] = []
    failures: dict[Row, str] = {}
    with nullcontext(str(a.work)) if a.work else tempfile.TemporaryDirectory(prefix="sparsec-bench-") as folder:
        for row in dict.fromkeys(rows):
            try:
                found.append(measure_row(row, Path(folder).resolve(), a.target, a.threads, a.rounds, a.seconds, a.reduce_range))
                print(plain_table(_COLUMNS, [_cells(found[-1])]), flush=True)
            except (CommandFailure, SparsecError) as exc:
                failures[row] = str(exc)
                print(f"{row.name} {row.pattern}: {exc}", flush=True)
            if a.json:  # after every row, for a long run may be cut off
                write_json(a.json, records(found, failures), line)
    if found:
        print(plain_table(_COLUMNS, [_cells(r) for r in found]), flush=True)
    return 1 if failures or not all(r.ok for r in found) else 0


def measure_row(
    row: Row, folder: Path, target: str, threads: int, rounds: int, seconds: float, reduce_range: bool = False
) -> Result:
    """Prune, quantise, compile, verify and time one row. CommandFailure or SparsecError when a step fails."""
    source = Path(row.model).resolve() if is_path(row.model) else build_model(row.model, folder, reuse=True)
    label = f"{row.name}_{re.sub('[^a-z0-9]+', '_', row.pattern).strip('_')}"
    label += "_reduced" if reduce_range else ""
    pruned = source
    if row.pruned:
        pruned = folder / f"{label}.onnx"
        prune_model(source, pruned, row)
    quantised = quantise_model(pruned, folder, label, ["--reduce-range"] if reduce_range else [])
    compiled = compile_model(quantised, folder / f"{label}-int8-{threads}", target=target, threads=threads)
    dense = folder / f"{row.name}-fp32-{threads}"
    if not dense.exists():
        compile_model(source, dense, target=target, threads=threads)
    library, feeds = load(compiled.folder), inputs_for(source, 1)
    int8, fp32 = OnnxRuntime(quantised, threads=threads), OnnxRuntime(source, threads=threads)
    verification = verify_model(library.run, int8.run, feeds, tolerance=ROUNDED_TOLERANCE)
    exact = OnnxRuntime(pruned, threads=threads).run(feeds[0])
    times = {}
    if rounds:
        runs = {
            OURS: library.runner(feeds[0]),
            THEIRS: fp32.runner(feeds[0]),
            THEIRS_INT8: int8.runner(feeds[0]),
            OURS_FP32: load(dense).runner(feeds[0]),
        }
        times = in_turns(runs, threads=threads, rounds=rounds, seconds=seconds)
    got = library.run(feeds[0])
    return Result(row, Measurement(row.name, compiled, verification, times), sqnr(got, exact), same(quantised, feeds[0], got))


def same(model: Path, feeds: Feeds, got: Mapping[str, np.ndarray[Any, Any]]) -> bool:
    """Whether the interpreter computes these outputs for the model as optimised, but for what rounding does after float32."""
    graph = import_model(model, input_shapes={name: a.shape for name, a in feeds.items()})
    optimised = run_pipeline(graph, DEFAULT)
    limit = ROUNDED_TOLERANCE if any(n.op.name in _FLOAT for n in optimised.nodes) else _EXACT
    return all(relative_error(got[name], array) <= limit for name, array in interpret(optimised, feeds).items())


def quantise_model(model: Path, folder: Path, label: str, options: Sequence[str] = ()) -> Path:
    """`sparsec quantise` in a process of its own, on seeded random inputs."""
    samples = inputs_for(model, _CALIBRATION)
    data, output = folder / f"{label}-calibration", folder / f"{label}-int8.onnx"
    data.mkdir(exist_ok=True)
    for i, feeds in enumerate(samples):
        np.savez(data / f"{i}.npz", **feeds)  # type: ignore[arg-type]
    command = ["-m", "sparsec.compiler.cli", "quantise", str(model), "-o", str(output), "--calib", str(data), "--quiet"]
    run_python([*command, *options])
    return output


def sqnr(value: Mapping[str, np.ndarray[Any, Any]], exact: Mapping[str, np.ndarray[Any, Any]]) -> float:
    """Signal to noise of the first output, in dB."""
    name = next(iter(exact))
    noise = np.square(np.asarray(value[name], np.float64) - exact[name]).sum()
    return float(10 * np.log10(np.square(exact[name], dtype=np.float64).sum() / noise)) if noise else float("inf")


_COLUMNS = [
    "model",
    "pattern",
    ">error",
    ">SQNR",
    *(f">{e} ms" for e in (OURS, THEIRS, THEIRS_INT8, OURS_FP32)),
    ">speed-up",
    "goal",
]


def _cells(r: Result) -> list[str]:
    m, goal = r.measured, GOALS.get(r.row) if r.measured.compiled.report.options.threads == 1 else None
    wrong = "" if r.ok else " WRONG"
    times = [f"{m.seconds(e) * 1e3:.2f}" if e in m.times else "" for e in (OURS, THEIRS, THEIRS_INT8, OURS_FP32)]
    faster = "" if r.speedup is None else f"{r.speedup:.2f}"
    verdict = "" if goal is None or r.speedup is None else f"{goal:g} {'met' if r.speedup >= goal else 'missed'}"
    return [m.model, r.row.pattern, f"{m.verification.worst.error:.1e}{wrong}", f"{r.sqnr:.1f}", *times, faster, verdict]


def records(found: Sequence[Result], failures: Mapping[Row, str]) -> list[dict[str, Any]]:
    """The results as JSON data, then the rows that failed with the reason."""
    results = []
    for r in found:
        m, goal = r.measured, GOALS.get(r.row)
        results.append(
            {
                "model": m.model,
                "pattern": r.row.pattern,
                "threads": m.compiled.report.options.threads,
                "target": m.compiled.report.options.target,
                "error": m.verification.worst.error,
                "ok": r.ok,
                "sqnr_db": r.sqnr,
                "ms": {e: m.seconds(e) * 1e3 for e in m.times},
                "speedup": r.speedup,
                "goal": goal,
                "met": None if goal is None or r.speedup is None else r.speedup >= goal,
                "weights_bytes": m.compiled.report.memory.weights_bytes,
                "arena_bytes": m.compiled.report.memory.arena_bytes,
            }
        )
    return results + [{"model": row.name, "pattern": row.pattern, "failure": why} for row, why in failures.items()]


if __name__ == "__main__":
    sys.exit(main())
