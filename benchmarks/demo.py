"""`make demo`: build ResNet-50, compile it, check it against onnxruntime, time both, and print what came of it."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.processes import CommandFailure
from benchmarks.side_by_side import Measurement, build_model, compile_model, header, measure
from sparsec.compiler.cli.console import Steps, plain_table, size

MODEL = "resnet50"


def main() -> int:
    """Run the demo; 1 when the library is wrong or was not made."""
    print(header(1), flush=True)
    with tempfile.TemporaryDirectory(prefix="sparsec-demo-") as folder, Steps("demo", total=3) as steps:
        steps(f"build {MODEL} with random weights")
        model = build_model(MODEL, Path(folder))
        steps("compile it")
        try:
            compiled = compile_model(model, Path(folder) / MODEL)
        except CommandFailure as exc:
            print(f"error: {MODEL} did not compile: {exc}", file=sys.stderr)
            return 1
        steps("verify on 3 inputs, time both engines in turns")
        found = measure(model, compiled)
    print(_table(found))
    return 0 if found.verification.ok else 1


def _table(m: Measurement) -> str:
    report, compiled = m.compiled.report, m.compiled
    error, tolerance = m.verification.worst.error, m.verification.tolerance
    rows = [
        ["max|difference| / max|reference|", f"{error:.1e}", f"{'within' if m.verification.ok else 'NOT WITHIN'} {tolerance:g}"],
        ["sparsec, ms a run", f"{m.seconds('sparsec') * 1e3:.2f}", f"{report.macs / m.seconds('sparsec') / 1e9:.1f} GMAC/s"],
        ["onnxruntime, ms a run", f"{m.seconds('onnxruntime') * 1e3:.2f}", "median CPU time, in turns"],
        ["time(sparsec) / time(onnxruntime)", f"{m.ratio('onnxruntime'):.3f}", "below 1 is faster"],
        ["compile, s", f"{compiled.wall:.1f}", f"the C compiler included; peak memory {size(compiled.peak_bytes)}"],
        ["arena", size(report.memory.arena_bytes), f"no plan takes less than {size(report.memory.arena_lower_bound)}"],
        ["weights", size(report.memory.weights_bytes), "linked into the library"],
        ["C text", size(report.sources.c_bytes), f"{report.sources.kernels} kernels for {len(report.layers)} layers"],
    ]
    return plain_table((f"{MODEL} for {report.options.target}", ">value", "note"), rows)


if __name__ == "__main__":
    raise SystemExit(main())
