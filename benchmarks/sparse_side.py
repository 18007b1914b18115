"""One pruned model through sparsec beside dense engines: prune, compile, verify, weigh, time in turns."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType

from benchmarks.peers import Peer, PeerFailure, Worker
from benchmarks.processes import CommandFailure, Usage, run_python
from benchmarks.side_by_side import (
    Compiled,
    Feeds,
    Measurement,
    build_model,
    compile_model,
    in_turns,
    inputs_for,
    peer_runs,
    shape_options,
)
from benchmarks.sparse_goals import Row, is_path
from sparsec.compiler.driver import load
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.measure import Run, Timing, Turn
from sparsec.compiler.onnxruntime_reference import OnnxRuntime
from sparsec.compiler.pruning_report import LayerReport, PruneReport, total
from sparsec.compiler.report import Layer
from sparsec.compiler.runtime import CompiledModel
from sparsec.compiler.sparsity import DENSE
from sparsec.compiler.sparsity.text import parse_goal
from sparsec.compiler.sparsity.weights import LayerWeights, layer_weights
from sparsec.compiler.verify_model import TOLERANCE, verify_model

OURS, OUR_DENSE, THEIR_DENSE = "sparsec", "sparsec, dense", "onnxruntime"
Counts = Mapping[str, tuple[int, int]]  # ONNX node -> weights that are not zero, and all


@dataclass(frozen=True)
class Setup:
    """How rows are measured. Files go to `folder`, and stay there when `keep`."""

    folder: Path
    target: str = "host"
    threads: int = 1
    samples: int = 3
    rounds: int = 10
    seconds: float = 0.3
    peers: tuple[Peer, ...] = ()
    keep: bool = False


@dataclass(frozen=True)
class Weighed:
    """What pruning left. Bytes are those of the pruned layers alone.

    `density` is their share of nonzero weights; `packed_bytes` what they take in the pattern's own form, `library_bytes` what
    our kernels read for them, biases included.
    """

    density: float
    mac_ratio: float
    dense_bytes: int
    packed_bytes: int
    library_bytes: int


@dataclass(frozen=True)
class Result:
    """What one row did. `pruning` and `weighed` are None for a dense one; `peer_failures`: engine -> why it has no time."""

    row: Row
    measured: Measurement
    pruning: Usage | None = None
    weighed: Weighed | None = None
    peer_failures: Mapping[str, str] = field(default_factory=dict)

    @property
    def mac_ratio(self) -> float:
        """Multiply-accumulates of the dense network over those that are left."""
        return self.weighed.mac_ratio if self.weighed else 1.0

    def speedup(self, engine: str) -> float | None:
        """time(engine) / time(sparsec); None when it was not timed."""
        return self.measured.ratio(OURS, engine) if engine in self.measured.times else None


class DenseSide:
    """What all rows of a model share: the dense model, our library of it, and the engines that run it. Use it in a `with`."""

    def __init__(self, model: str, setup: Setup) -> None:
        """Build the model, unless it is a file."""
        self.setup, self._peers = setup, ExitStack()
        self.name = Path(model).stem if is_path(model) else model
        self._own = not is_path(model)
        self.path = build_model(model, setup.folder, reuse=True) if self._own else Path(model).resolve()
        self.failures: dict[str, str] = {}

    def __enter__(self) -> DenseSide:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._peers.close()
        if not self.setup.keep:
            shutil.rmtree(self._library_folder, ignore_errors=True)
            if self._own:
                self.path.unlink(missing_ok=True)

    @property
    def _library_folder(self) -> Path:
        return self.setup.folder / f"{self.name}-{DENSE.spec}-{self.setup.threads}"

    @cached_property
    def compiled(self) -> Compiled:
        """Our dense library."""
        return compile_model(self.path, self._library_folder, target=self.setup.target, threads=self.setup.threads)

    @cached_property
    def library(self) -> CompiledModel:
        """The same, loaded."""
        return load(self.compiled.folder)

    @cached_property
    def feeds(self) -> list[Feeds]:
        """The inputs of all rows."""
        return inputs_for(self.path, self.setup.samples)

    @cached_property
    def reference(self) -> OnnxRuntime:
        """Onnxruntime on the dense model."""
        return OnnxRuntime(self.path, threads=self.setup.threads)

    @cached_property
    def peers_here(self) -> dict[str, Run]:
        """The engines of this process, apart from those that a worker runs."""
        runs = peer_runs(self.path, self.reference, self.feeds[0], self.setup.threads)
        return {name: run for name, run in runs.items() if all(name != p.name for p in self.setup.peers)}

    @cached_property
    def peers_elsewhere(self) -> dict[str, Turn]:
        """The engines of other processes that run the dense model."""
        chosen = [p for p in self.setup.peers if not p.reads_zeros]
        return start_peers(chosen, self.path, self.feeds[0], self.setup.threads, self._peers, self.failures)


def start_peers(
    peers: Sequence[Peer], model: Path, feeds: Feeds, threads: int, until: ExitStack, failures: dict[str, str]
) -> dict[str, Turn]:
    """Workers with the model loaded, as contestants. One that fails is left out, then or later, and `failures` says why."""
    turns: dict[str, Turn] = {}
    for peer in peers:
        try:
            worker = until.enter_context(Worker(peer))
            worker.load(model, feeds, threads)
            turns[peer.name] = _forgiving(peer.name, worker.turn, failures)
        except PeerFailure as exc:
            failures[peer.name] = str(exc)
    return turns


def _forgiving(name: str, turn: Callable[[float], Timing], failures: dict[str, str]) -> Turn:
    def attempt(seconds: float) -> Timing:
        if name not in failures:
            try:
                return turn(seconds)
            except PeerFailure as exc:
                failures[name] = str(exc)
        return Timing((), ())

    return attempt


def measure_row(row: Row, dense: DenseSide) -> Result:
    """Measure one row. CommandFailure or SparsecError when it cannot be pruned or compiled."""
    if not row.pruned:
        verified = _verified(dense.compiled, dense.library, dense, dense.reference)
        return _timed(Result(row, verified), dense.library, dense.path, dense)
    label = f"{dense.name}_{re.sub('[^a-z0-9]+', '_', row.pattern).strip('_')}"
    model, library = dense.setup.folder / f"{label}.onnx", dense.setup.folder / f"{label}-{dense.setup.threads}"
    try:
        report, pruning = prune_model(dense.path, model, row)
        compiled = compile_model(model, library, target=dense.setup.target, threads=dense.setup.threads)
        weighed = weigh(model, report, compiled.report.layers, dense.feeds[0])
        loaded, reference = load(compiled.folder), OnnxRuntime(model, threads=dense.setup.threads)
        result = Result(row, _verified(compiled, loaded, dense, reference), pruning, weighed)
        del reference  # its memory
        return _timed(result, loaded, model, dense)
    finally:
        if not dense.setup.keep:
            shutil.rmtree(library, ignore_errors=True)
            for file in (model, model.with_name(f"{model.name}.data")):
                file.unlink(missing_ok=True)


def _verified(compiled: Compiled, library: CompiledModel, dense: DenseSide, reference: OnnxRuntime) -> Measurement:
    """The library against onnxruntime on the same model, zeros included."""
    verification = verify_model(library.run, reference.run, dense.feeds, tolerance=TOLERANCE)
    return Measurement(dense.name, compiled, verification)


def _timed(result: Result, library: CompiledModel, model: Path, dense: DenseSide) -> Result:
    """The result with times in turns. Only those whose time depends on zeros run the pruned model."""
    setup, m = dense.setup, result.measured
    if not setup.rounds:
        return result
    feeds = dense.feeds[0]
    runs: dict[str, Run] = {OURS: library.runner(feeds), **dense.peers_here}
    if result.row.pruned:
        runs[OUR_DENSE] = dense.library.runner(feeds)
    failures: dict[str, str] = {}
    with ExitStack() as until:
        sparse_aware = [p for p in setup.peers if p.reads_zeros]
        elsewhere = start_peers(sparse_aware, model, feeds, setup.threads, until, failures)
        effort = {"threads": setup.threads, "rounds": setup.rounds}
        times = in_turns(runs, **effort, seconds=setup.seconds, elsewhere={**dense.peers_elsewhere, **elsewhere})
    failures |= dense.failures
    times = {name: t for name, t in times.items() if name not in failures}
    timed = Measurement(m.model, m.compiled, m.verification, times)
    return Result(result.row, timed, result.pruning, result.weighed, failures)


def prune_model(model: Path, output: Path, row: Row) -> tuple[PruneReport, Usage]:
    """`sparsec prune` in a process of its own. CommandFailure when it fails, or when nothing has the pattern afterwards."""
    command = ["-m", "sparsec.compiler.cli", "prune", str(model), "-o", str(output), "--pattern", row.pattern, "--preserve-norm"]
    spare = ["--spare", row.spare] if row.spare else []
    usage = run_python([*command, *spare, *shape_options(model), "--json", "--quiet"])
    report = PruneReport.model_validate_json(usage.output)
    if not sparse_layers(report):
        why = "; ".join(dict.fromkeys(remark for layer in report.layers for remark in layer.remarks))
        raise CommandFailure(f"no layer can be pruned to {row.pattern}: {why or 'none has weights'}")
    return report, usage


def sparse_layers(report: PruneReport) -> tuple[LayerReport, ...]:
    """The layers that were pruned, or had zeros enough before."""
    return tuple(layer for layer in report.layers if layer.status in ("pruned", "kept"))


def weigh(model: Path, report: PruneReport, layers: Sequence[Layer], feeds: Feeds) -> Weighed:
    """What pruning left of `model`, the pruned one; `layers` are those of its compilation."""
    graph = import_model(model, input_shapes={name: a.shape for name, a in feeds.items()})
    weights = {one.value: one for one in layer_weights(graph)}
    counts = {node: (x.kept, x.elements) for x in report.layers for node in _nodes(weights[x.weights])}
    sparse = sparse_layers(report)
    dense_bytes = packed_bytes = 0
    for x in sparse:
        array, asked = graph.constants[x.weights], parse_goal(x.asked).pattern
        w = weights[x.weights].view.filters(array)
        dense_bytes += array.nbytes
        packed_bytes += (asked if asked.holds(w) else DENSE).pack(w).nbytes
    names = {node for x in sparse for node in _nodes(weights[x.weights])}
    library_bytes = sum(layer.packed_bytes for layer in layers if names & set(layer.origin))
    return Weighed(total(sparse).density, mac_ratio(layers, counts), dense_bytes, packed_bytes, library_bytes)


def _nodes(weights: LayerWeights) -> set[str]:
    return {name for node in weights.nodes for name in (*node.origin, node.name)}


def mac_ratio(layers: Sequence[Layer], counts: Counts) -> float:
    """Multiply-accumulates of the dense network over those with weights that are not zero."""
    left = 0.0
    for layer in layers:
        kept, every = (sum(c) for c in zip((0, 0), *(counts[o] for o in layer.origin if o in counts), strict=True))
        left += layer.macs * (kept / every if every else 1.0)
    return sum(layer.macs for layer in layers) / left if left else 1.0
