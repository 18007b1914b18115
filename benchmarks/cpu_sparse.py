"""Pruned float32 models on the CPU: sparsec beside dense onnxruntime and dense sparsec, in turns, in one process.

    python benchmarks/cpu_sparse.py                                    every row that has a goal, one thread
    python benchmarks/cpu_sparse.py resnet50:2:4/rows=32 bert_base:unstructured@90% vgg19:dense
    python benchmarks/cpu_sparse.py model.onnx:block:8x8@75% --spare classifier --json results.json
    python benchmarks/cpu_sparse.py --peer deepsparse=/envs/deepsparse/bin/python

For each row: the model is pruned by `sparsec prune --preserve-norm`, and our library of it compared with onnxruntime on the
same pruned model; then it takes turns with onnxruntime and our own library on the dense model (CPU time on one thread, wall time
on more). OpenVINO takes part where it is installed; `--peer NAME=PYTHON` runs an engine in an environment of its own. DeepSparse
gets the pruned model, all others the dense one: they gain nothing from zeros.

The MAC ratio is what zeros would save if all time went into multiplications; bytes are those of the pruned layers over their
dense ones, in the pattern's own form and as our kernels read them.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.peers import Peer, PeerFailure, Worker, parse_peer
from benchmarks.processes import CommandFailure
from benchmarks.side_by_side import header, model_names, write_json
from benchmarks.sparse_goals import ROWS, Row, parse_row
from benchmarks.sparse_side import OUR_DENSE, THEIR_DENSE, DenseSide, Result, Setup, measure_row
from benchmarks.sparse_table import records, table
from sparsec.compiler.errors import SparsecError

Failures = dict[Row, str]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; 1 when a row was not pruned, not compiled or is wrong."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.spare and not arguments.rows:
        parser.error("--spare goes with MODEL:PATTERN: the rows that have a goal say what they spare")
    try:
        known = model_names()
        rows = [parse_row(text, known, arguments.spare) for text in arguments.rows] or list(ROWS)
        peers = tuple(parse_peer(text) for text in arguments.peer)
        line = "; ".join([header(arguments.threads), *map(_about, peers)])
    except (ValueError, SparsecError, PeerFailure) as exc:
        parser.error(str(exc))
    print(line, flush=True)
    found: list[Result] = []
    failures: Failures = {}
    holder = nullcontext(str(arguments.work)) if arguments.work else tempfile.TemporaryDirectory(prefix="sparsec-bench-")
    with holder as folder:
        effort = {k: getattr(arguments, k) for k in ("target", "threads", "samples", "rounds", "seconds")}
        setup = Setup(Path(folder).resolve(), **effort, peers=peers, keep=bool(arguments.work))
        for model in dict.fromkeys(row.model for row in rows):
            for row, result in _of_model(model, [r for r in dict.fromkeys(rows) if r.model == model], setup):
                if isinstance(result, str):
                    failures[row] = result
                else:
                    found.append(result)
                if arguments.json:  # after every row, for a long run may be cut off
                    write_json(arguments.json, records(found, failures), line)
    if found:
        print(table(found), flush=True)
    return 1 if failures or not all(r.measured.verification.ok for r in found) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "rows", nargs="*", metavar="MODEL:PATTERN", help="a name of models/ or a .onnx file, and a pattern (default: all goals)"
    )
    parser.add_argument("--spare", default="", metavar="WHAT", help="what stays dense, as `sparsec prune --spare` takes it")
    parser.add_argument("--threads", type=int, default=1, help="threads of every engine (default: 1)")
    parser.add_argument("--target", default="host", help="target of our libraries (default: host)")
    parser.add_argument("--rounds", type=int, default=10, help="turns of each engine; 0 verifies only (default: 10)")
    parser.add_argument("--seconds", type=float, default=0.3, help="length of a turn (default: 0.3)")
    parser.add_argument("--samples", type=int, default=3, help="input sets to verify on (default: 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results to FILE too")
    parser.add_argument("--work", type=Path, metavar="DIR", help="keep models and libraries in DIR, and take models from there")
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="NAME=PYTHON",
        help="time openvino, deepsparse or onnxruntime too, from the environment that PYTHON belongs to",
    )
    return parser


def _about(peer: Peer) -> str:
    """The engine and its version: a peer that is not there is told before an hour of work."""
    with Worker(peer) as worker:
        return f"{peer.name} {worker.version}"


def _of_model(model: str, rows: Sequence[Row], setup: Setup) -> Iterator[tuple[Row, Result | str]]:
    """Every row's result, or why there is none; a line as soon as it is known."""
    try:
        with DenseSide(model, setup) as dense:
            for row in rows:
                result: Result | str
                try:
                    result = measure_row(row, dense)
                except (CommandFailure, SparsecError) as exc:
                    result = str(exc)
                print(_line(row, result), flush=True)
                yield row, result
    except CommandFailure as exc:  # the model was not built
        for row in rows:
            print(_line(row, str(exc)), flush=True)
            yield row, str(exc)


def _line(row: Row, result: Result | str) -> str:
    if isinstance(result, str):
        return f"{row.name} {row.pattern}: {result}"
    checked = result.measured.verification
    parts = [f"error {checked.worst.error:.1e}{'' if checked.ok else ' WRONG'}"]
    for engine in (THEIR_DENSE, OUR_DENSE):
        speedup = result.speedup(engine)
        parts += [] if speedup is None else [f"{speedup:.2f} times as fast as {engine}"]
    parts += [f"{name}: {why}" for name, why in result.peer_failures.items()]
    return f"{row.name} {row.pattern}: {', '.join(parts)}"


if __name__ == "__main__":
    raise SystemExit(main())
