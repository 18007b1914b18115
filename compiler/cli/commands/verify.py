"""`sparsec verify`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparsec.compiler.cli.console import Steps, emit_json, say, table
from sparsec.compiler.cli.options import (
    CcOption,
    CompileOptions,
    DimOption,
    FeedOption,
    InputOption,
    JsonOption,
    LimitsOption,
    PassesOption,
    QuietOption,
    SeedOption,
    SubjectArgument,
    TargetOption,
    ThreadsOption,
    ToleranceOption,
)
from sparsec.compiler.cli.quantising import Precision, PrecisionOption, with_precision
from sparsec.compiler.errors import UnsupportedError, UsageError, VerificationError

if TYPE_CHECKING:
    import numpy as np
    import onnx

    from sparsec.compiler.locate import Culprit
    from sparsec.compiler.report import Report
    from sparsec.compiler.verify_model import Verification

    Feeds = dict[str, np.ndarray[Any, Any]]


def verify(
    subject: SubjectArgument,
    feed: FeedOption = None,
    samples: Annotated[int, typer.Option("--samples", min=1, metavar="N", help="Random input sets to try.")] = 3,
    seed: SeedOption = 0,
    tolerance: ToleranceOption = None,
    per_node: Annotated[
        bool, typer.Option("--per-node", help="When a result is wrong, find the first layer that is, by bisection.")
    ] = False,
    target: TargetOption = "host",
    threads: ThreadsOption = 1,
    dim: DimOption = None,
    shape: InputOption = None,
    precision: PrecisionOption = Precision.fp32,
    passes: PassesOption = None,
    cc: CcOption = None,
    limits: LimitsOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Compare with onnxruntime on the same inputs.

    Status 5 when they differ. The measure is max|difference| / max|reference| of every output. --per-node compiles
    the model again with intermediate values as outputs, about log2(layers) times, and names the layer.
    """
    from sparsec.compiler.cli.session import model_path, opened, reference_feeds, runs_here
    from sparsec.compiler.onnxruntime_reference import OnnxRuntime
    from sparsec.compiler.verify_model import default_tolerance, verify_model

    passes = with_precision(passes, precision, target)
    options = CompileOptions(target, threads, dim, shape, passes, cc, limits)
    with Steps("verify", quiet=quiet) as steps:
        with opened(subject, options, steps) as compiled:
            model, report = model_path(subject, compiled), compiled.report
            if not runs_here(compiled):
                raise UsageError(f"{report.options.target} does not run on this machine: verify on one that it does")
            steps("run")
            feeds = reference_feeds(compiled, model, samples=samples, seed=seed, files=feed or ())
            accepted = default_tolerance(report) if tolerance is None else tolerance
            found = verify_model(compiled.run, OnnxRuntime(model).run, feeds, tolerance=accepted)
        culprit = None
        if per_node and not found.ok:
            again = options if not subject.is_dir() else _recorded(report)
            culprit = _locate(model, report, again, feeds[found.worst.sample], accepted, steps)
    _print(found, culprit, json)
    if culprit is not None:
        raise VerificationError(_sentence(culprit), node=culprit.layer, tensor=culprit.value)
    found.require()


def _recorded(report: Report) -> CompileOptions:
    """The options that a folder was compiled with."""
    o = report.options
    dims = [f"{k}={v}" for k, v in o.dims.items()]
    shapes = [f"{k}={','.join(map(str, v))}" for k, v in o.input_shapes.items()]
    return CompileOptions(o.target, o.threads, dims, shapes, o.passes, o.cc or None)


def _locate(model: Path, report: Report, options: CompileOptions, feeds: Feeds, tolerance: float, steps: Steps) -> Culprit | None:
    """Compile and run with one intermediate value more as an output, as often as the bisection asks."""
    import onnx

    from sparsec.compiler.errors import ModelError
    from sparsec.compiler.locate import candidates, locate, with_output
    from sparsec.compiler.onnxruntime_reference import OnnxRuntime
    from sparsec.compiler.verify_model import verify_model

    proto: onnx.ModelProto = onnx.load(model)

    def check(value: str) -> Verification | None:
        steps(f"compare {value!r}")
        exposed = with_output(proto, value)
        try:
            reference = OnnxRuntime(exposed).run(feeds, [value])
            with tempfile.TemporaryDirectory(prefix="sparsec-") as folder:
                compiled = options.compile(exposed, Path(folder) / "library", lambda _: None)
                return verify_model(compiled.run, lambda _: reference, [feeds], tolerance=tolerance)
        except (ModelError, UnsupportedError):  # a value that cannot be an output, as a sequence
            return None

    return locate(report, candidates(proto, report), check)


def _sentence(c: Culprit) -> str:
    origin = ", ".join(map(repr, c.origin)) or "nothing in the model"
    operands = f"; its operands {', '.join(map(repr, c.right_operands))} are right" if c.right_operands else ""
    return (
        f"the first wrong layer is {c.layer!r} ({c.op}, kernel {c.kernel or 'none'}), which stands for {origin}: its result "
        f"{c.value!r} has error {c.check.error:.3g}{operands}"
    )


def _culprit_data(c: Culprit | None) -> dict[str, Any] | None:
    if c is None:
        return None
    keys = ("layer", "op", "kernel", "value")
    return {**{k: getattr(c, k) for k in keys}, "origin": list(c.origin), "error": c.check.error}


def _print(found: Verification, culprit: Culprit | None, json: bool) -> None:
    if json:
        checks = [{"sample": c.sample, "output": c.output, "shape": list(c.shape), "error": c.error} for c in found.checks]
        emit_json({"ok": found.ok, "tolerance": found.tolerance, "checks": checks, "first_wrong_layer": _culprit_data(culprit)})
        return
    rows = [
        [str(c.sample), c.output, f"{c.dtype}{list(c.shape)}", f"{c.error:.2e}", "ok" if c.error <= found.tolerance else "WRONG"]
        for c in found.checks
    ]
    table((">inputs", "output", "type", ">error", "verdict"), rows)
    say(f"{'every output' if found.ok else 'not every output'} within {found.tolerance:g} of onnxruntime's")
