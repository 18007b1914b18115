"""What another order of channels costs at run time: nothing, and this measures it.

    python benchmarks/zero_cost.py                                every model of models/, trained ones too
    python benchmarks/zero_cost.py resnet50 bert_base --json results.json

Every free class of channels of a model gets a random order, without pruning. The model and its reordered twin are compiled; the
lists of their operations (kernels, calls, loops) and their C sources are compared, then their outputs (the largest difference
over the largest value). Both take turns with a second copy of the original, which shows what is noise: CPU time on one thread,
medians.

Where float32 outputs differ by more than 1e-5 of the largest value, both graphs are run in double precision besides, which tells
rounding from a wrong order.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.processes import CommandFailure
from benchmarks.side_by_side import (
    Compiled,
    Feeds,
    build_model,
    compile_model,
    header,
    in_turns,
    inputs_for,
    model_names,
    write_json,
)
from sparsec.compiler.cli.console import plain_table
from sparsec.compiler.driver import load
from sparsec.compiler.errors import SparsecError
from sparsec.compiler.importer.api import import_model
from sparsec.passes.permutation.apply import check_permuted, permuted, random_orders
from sparsec.passes.permutation.coupling_model import couple_model
from sparsec.passes.pruning.model import editor_of

TOLERANCE, DOUBLE_TOLERANCE = 1e-5, 1e-9
ORIGINAL, COPY, REORDERED = "original", "copy", "reordered"


@dataclass(frozen=True)
class Twin:
    """A model and what it is with its channels in random orders: how many classes are free, and how many constants moved."""

    path: Path
    free: int
    moved: int


@dataclass(frozen=True)
class Result:
    """What one model did. `double_error` is None where float32 was close enough; times are milliseconds, empty without turns."""

    model: str
    classes: int
    constants: int
    layers: int
    same_operations: bool
    same_source: bool
    error: float
    double_error: float | None
    ms: Mapping[str, float]

    @property
    def ok(self) -> bool:
        """Whether the twin does the same work, and gives the same."""
        close = self.error <= TOLERANCE or (self.double_error is not None and self.double_error <= DOUBLE_TOLERANCE)
        return self.same_operations and self.same_source and close

    def ratio(self, engine: str) -> float:
        """Time over that of the original."""
        return self.ms[engine] / self.ms[ORIGINAL]


def reorder(model: Path, output: Path, seed: int) -> Twin:
    """Write `model` to `output` with every free class of channels in a random order. A SparsecError where none is free."""
    editor = editor_of(model)
    graph = import_model(model, as_stored=True, input_shapes=_shapes(inputs_for(model, 1)[0]))
    coupling = couple_model(graph, editor)
    changed = permuted(graph, coupling, random_orders(coupling, np.random.default_rng(seed)))
    for value, array in changed.items():
        editor.replace(value, array)
    output.parent.mkdir(parents=True, exist_ok=True)
    editor.save(output)
    return Twin(output, len(coupling.free), len(changed))


def double_error(model: Path, twin: Path, feeds: Feeds) -> float:
    """The largest difference of outputs over the largest value, in double precision. InternalError from 1e-9 on."""
    graph, other = (import_model(path, as_stored=True, input_shapes=_shapes(feeds)) for path in (model, twin))
    return check_permuted(graph, other.constants, feeds, tolerance=DOUBLE_TOLERANCE)


def operations(compiled: Compiled) -> list[tuple[Any, ...]]:
    """What the library does, step by step: all that the report says of a layer but estimates and names of constants."""
    return [
        (x.node, x.op, x.kernel, x.calls, x.schedule, tuple(t.shape for t in x.inputs), x.outputs, x.packed_bytes)
        for x in compiled.report.layers
    ]


def sources(compiled: Compiled) -> dict[str, bytes]:
    """The C files of a library."""
    return {p.name: p.read_bytes() for p in sorted(compiled.folder.iterdir()) if p.suffix in (".c", ".h")}


def measure(name: str, folder: Path, arguments: argparse.Namespace) -> Result:
    """Build, reorder, compile both, compare and time one model."""
    path = build_model(name, folder, reuse=True)
    twin = reorder(path, folder / REORDERED / path.name, arguments.seed)
    places = {which: folder / f"{name}-{which}" for which in (ORIGINAL, COPY, REORDERED)}
    original = compile_model(path, places[ORIGINAL], target=arguments.target)
    reordered = compile_model(twin.path, places[REORDERED], target=arguments.target)
    shutil.copytree(places[ORIGINAL], places[COPY], dirs_exist_ok=True)  # files of its own: a library is loaded once a file
    feeds, libraries = inputs_for(path, arguments.samples), {which: load(place) for which, place in places.items()}
    error = max(_difference(libraries[ORIGINAL].run(f), libraries[REORDERED].run(f)) for f in feeds)
    times = {}
    if arguments.rounds:
        runs = {which: library.runner(feeds[0]) for which, library in libraries.items()}
        times = in_turns(runs, threads=1, rounds=arguments.rounds, seconds=arguments.seconds)
    return Result(
        name,
        twin.free,
        twin.moved,
        len(original.report.layers),
        operations(original) == operations(reordered),
        sources(original) == sources(reordered),
        error,
        double_error(path, twin.path, feeds[0]) if error > TOLERANCE else None,
        {which: t.cpu_median * 1e3 for which, t in times.items()},
    )


def _shapes(feeds: Feeds) -> dict[str, tuple[int, ...]]:
    return {name: a.shape for name, a in feeds.items()}


def _difference(expected: Feeds, found: Feeds) -> float:
    """The largest difference of an output over its largest value."""
    errors = []
    for name, want in expected.items():
        wide = want.astype(np.float64)
        errors.append(np.abs(found[name] - wide).max() / max(np.abs(wide).max(), 1e-30))
    return float(max(errors))


def table(found: Sequence[Result]) -> str:
    """The results as text."""
    columns = [
        "model",
        ">classes",
        ">constants",
        ">layers",
        "operations",
        "C",
        ">error",
        ">in double",
        ">ms",
        ">copy",
        ">reordered",
    ]
    return plain_table(columns, [_row(r) for r in found])


def _row(r: Result) -> list[str]:
    same = ["same" if s else "DIFFER" for s in (r.same_operations, r.same_source)]
    double = "" if r.double_error is None else f"{r.double_error:.0e}"
    times = [f"{r.ms[ORIGINAL]:.2f}", *(f"{r.ratio(e):.3f}" for e in (COPY, REORDERED))] if r.ms else ["", "", ""]
    return [r.model, str(r.classes), str(r.constants), str(r.layers), *same, f"{r.error:.1e}", double, *times]


def _record(r: Result) -> dict[str, Any]:
    return {**asdict(r), "ratios": {e: r.ratio(e) for e in r.ms if e != ORIGINAL}, "ok": r.ok}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; 1 when a twin does other work, gives something else, or was not compiled."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help="names of models/ (default: all, trained ones too)")
    parser.add_argument("--target", default="host", help="target of the libraries (default: host)")
    parser.add_argument("--rounds", type=int, default=10, help="turns of each library; 0 compares only (default: 10)")
    parser.add_argument("--seconds", type=float, default=0.3, help="length of a turn (default: 0.3)")
    parser.add_argument("--samples", type=int, default=2, help="input sets to compare on (default: 2)")
    parser.add_argument("--seed", type=int, default=0, help="of the orders (default: 0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results to FILE too")
    parser.add_argument("--work", type=Path, metavar="DIR", help="keep models and libraries in DIR, and take models from there")
    arguments = parser.parse_args(argv)
    known = model_names()
    if unknown := sorted(set(arguments.models) - set(known)):
        parser.error(f"no model is called {unknown[0]}; there are {', '.join(known)}")
    line = header(1)
    print(line, flush=True)
    found: list[Result] = []
    failed = False
    for name in arguments.models or known:
        holder = nullcontext(str(arguments.work)) if arguments.work else tempfile.TemporaryDirectory(prefix="sparsec-bench-")
        with holder as folder:
            try:
                found.append(measure(name, Path(folder).resolve(), arguments))
            except (CommandFailure, SparsecError) as exc:
                failed = True
                print(f"{name}: {exc}", flush=True)
                continue
        failed |= not found[-1].ok
        print("  ".join(_row(found[-1])), file=sys.stderr, flush=True)
        if arguments.json:  # after every model, for a long run may be cut off
            write_json(arguments.json, [_record(r) for r in found], line)
    if found:
        print(table(found), flush=True)
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
