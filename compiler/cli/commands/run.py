"""`sparsec run`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparsec.compiler.cli.console import Steps, duration, emit_json, say, table
from sparsec.compiler.cli.options import (
    CompileOptions,
    DimOption,
    FeedOption,
    InputOption,
    JsonOption,
    QuietOption,
    SeedOption,
    SubjectArgument,
    TargetOption,
    ThreadsOption,
)

if TYPE_CHECKING:
    import numpy as np

    Arrays = dict[str, np.ndarray[Any, Any]]


def run(
    subject: SubjectArgument,
    feed: FeedOption = None,
    seed: SeedOption = 0,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE.npz", help="Write the outputs by name.", show_default=False)
    ] = None,
    target: TargetOption = "host",
    threads: ThreadsOption = 1,
    dim: DimOption = None,
    shape: InputOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Run a model once and summarise its outputs.

    Inputs come from files or are random. An .onnx file is compiled for the occasion; a folder that `sparsec compile`
    wrote runs at once.
    """
    import time

    from sparsec.compiler.cli.session import feeds_for, opened

    options = CompileOptions(target, threads, dim, shape)
    with Steps("run", quiet=quiet) as steps, opened(subject, options, steps) as compiled:
        feeds = feeds_for(subject, compiled, seed=seed, files=feed or ())
        steps("run")
        start = time.perf_counter()
        outputs = compiled.run(feeds)
        seconds = time.perf_counter() - start
    if output is not None:
        _save(output, outputs)
    rows = [_summary(name, array) for name, array in outputs.items()]
    if json:
        emit_json({"seconds": seconds, "outputs": rows})
        return
    table(("output", "type", ">min", ">max", ">mean", "first values"), [[str(v) for v in row.values()] for row in rows])
    say(f"ran in {duration(seconds)}" + (f"; outputs in {output}" if output else ""))


def _save(path: Path, outputs: Arrays) -> None:
    import numpy as np

    with path.open("wb") as file:  # given a name, numpy would append .npz to it
        np.savez(file, **outputs)  # type: ignore[arg-type]


def _summary(name: str, array: np.ndarray[Any, Any]) -> dict[str, str]:
    """An output in a row of text."""
    import numpy as np

    values = np.asarray(array, np.float64)
    low, high, mean = (f"{f(values):.6g}" if values.size else "" for f in (np.min, np.max, np.mean))
    first = " ".join(f"{v:.6g}" for v in values.reshape(-1)[:4]) + (" ..." if values.size > 4 else "")
    return {"name": name, "type": f"{array.dtype}{list(array.shape)}", "min": low, "max": high, "mean": mean, "first": first}
