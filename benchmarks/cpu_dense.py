"""Dense float32 models on the CPU: sparsec beside onnxruntime (and OpenVINO where it is installed), in one process.

    python benchmarks/cpu_dense.py                      every model of models/ and every trained one that is installed, one thread
    python benchmarks/cpu_dense.py resnet50 --threads 2
    python benchmarks/cpu_dense.py --targets host,x86_64+avx2+fma,generic --rounds 0      correctness alone

For each model: the error against onnxruntime on several inputs, median times in turns (CPU time on one thread, wall time on
more) and their ratio, what compiling took (its own process, C compiler included), the arena against its bound, the C text.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.processes import CommandFailure
from benchmarks.side_by_side import (
    Measurement,
    arena_bound,
    as_record,
    build_model,
    compile_model,
    header,
    measure,
    model_names,
    write_json,
)
from sparsec.compiler.cli.console import plain_table
from sparsec.compiler.errors import SparsecError

# Largest time(sparsec) / time(onnxruntime) on one thread that the project aims at.
GOALS = {
    "resnet50": 1.00,
    "vgg19": 1.00,
    "inception_v1": 1.00,
    "inception_v2": 1.00,
    "inception_v3": 1.00,
    "bert_base": 0.85,
    "densenet121": 0.85,
    "squeezenet": 0.90,
    "mobilenet_v2": 0.90,
    "shufflenet": 0.90,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; 1 when a model did not compile or is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help="names of models/ (default: all, trained ones too)")
    parser.add_argument("--threads", type=int, default=1, help="threads of every engine (default: 1)")
    parser.add_argument("--targets", default="host", help="targets with commas (default: host)")
    parser.add_argument("--rounds", type=int, default=10, help="turns of each engine; 0 verifies only (default: 10)")
    parser.add_argument("--seconds", type=float, default=0.3, help="length of a turn (default: 0.3)")
    parser.add_argument("--samples", type=int, default=3, help="input sets to verify on (default: 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results to FILE too")
    parser.add_argument("--work", type=Path, metavar="DIR", help="keep models and libraries in DIR, and take models from there")
    arguments = parser.parse_args(argv)
    known = model_names()
    names = arguments.models or list(known)
    unknown = sorted(set(names) - set(known))
    if unknown:
        parser.error(f"no model is called {unknown[0]}; there are {', '.join(known)}")
    line = header(arguments.threads)
    print(line, flush=True)
    found: list[Measurement] = []
    failed = 0
    holder = nullcontext(str(arguments.work)) if arguments.work else tempfile.TemporaryDirectory(prefix="sparsec-bench-")
    with holder as folder:
        for name in names:
            for target in arguments.targets.split(","):
                try:
                    one = _one(name, target, Path(folder).resolve(), arguments)
                    found.append(one)
                    failed += not one.verification.ok
                except (CommandFailure, SparsecError) as exc:
                    failed += 1
                    print(f"{name} for {target}: {exc}", flush=True)
            if not arguments.work:
                (Path(folder) / f"{name}.onnx").unlink(missing_ok=True)
    if found:
        print(_table(found), flush=True)
    if arguments.json:
        write_json(arguments.json, [as_record(m) for m in found], line)
    return 1 if failed else 0


def _one(name: str, target: str, folder: Path, arguments: Any) -> Measurement:
    """Build, compile, verify and time one model for one target; a line as soon as it is known."""
    path = build_model(name, folder, reuse=True)
    label = f"{name}-{target.replace('+', '_')}"
    compiled = compile_model(path, folder / f"{label}-{arguments.threads}", target=target, threads=arguments.threads)
    single = None
    if arguments.threads > 1 and arguments.rounds:
        single = compile_model(path, folder / f"{label}-1", target=target)
    effort = {"samples": arguments.samples, "rounds": arguments.rounds, "seconds": arguments.seconds}
    one = measure(path, compiled, single=single, **effort)
    ratios = "".join(f", {r:.2f} of {engine}" for engine in one.times if engine != "sparsec" for r in [one.ratio(engine)])
    print(f"{name} for {compiled.report.options.target}: error {one.verification.worst.error:.1e}{ratios}", flush=True)
    return one


def _table(found: Sequence[Measurement]) -> str:
    peers = [e for e in ("onnxruntime", "openvino", "sparsec, 1 thread") if any(e in m.times for m in found)]
    columns = ["model", "target", ">error", ">GMAC"]
    if peers:
        columns += [">sparsec ms", *(f">{p} ms" for p in peers), *(f">time/{p}" for p in peers), ">goal"]
    columns += [">compile s", ">CPU s", ">peak MiB", ">arena MiB", ">/bound", ">weights MiB", ">C KiB"]
    return plain_table(columns, [_row(m, peers) for m in found])


def _row(m: Measurement, peers: Sequence[str]) -> list[str]:
    report, compiled = m.compiled.report, m.compiled
    verdict = "" if m.verification.ok else " WRONG"
    cells = [m.model, report.options.target, f"{m.verification.worst.error:.1e}{verdict}", f"{report.macs / 1e9:.2f}"]
    if peers:
        cells += [f"{m.seconds(e) * 1e3:.2f}" if e in m.times else "" for e in ("sparsec", *peers)]
        cells += [f"{m.ratio(e):.3f}" if e in m.times else "" for e in peers]
        cells += [_goal(m)]
    arena = report.memory.arena_bytes
    cells += [f"{compiled.wall:.1f}", f"{compiled.cpu:.1f}", f"{compiled.peak_bytes / 2**20:.0f}", f"{arena / 2**20:.2f}"]
    cells += [f"{arena / (arena_bound(report) or 1):.3f}", f"{report.memory.weights_bytes / 2**20:.1f}"]
    return [*cells, f"{report.sources.c_bytes / 1024:.0f}"]


def _goal(m: Measurement) -> str:
    """The goal for the ratio to onnxruntime on one thread of the host, and whether it is met."""
    goal = GOALS.get(m.model)
    if goal is None or m.compiled.report.options.threads > 1 or "onnxruntime" not in m.times:
        return ""
    return f"{goal:.2f} {'met' if m.ratio('onnxruntime') <= goal else 'missed'}"


if __name__ == "__main__":
    raise SystemExit(main())
