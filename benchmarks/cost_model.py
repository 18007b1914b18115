"""How often the cost model picks the right kernel: every family of kernels timed on every layer, beside the choice.

    python benchmarks/cost_model.py squeezenet:2:4/rows=16           one model, pruned to a pattern
    python benchmarks/cost_model.py resnet50 resnet50:block:8x8@75%  dense, and pruned

The network is compiled as it is and once more for every family, restricted to it. All are timed layer by layer, in turns.
A choice is good when it is within 10 % of the best measured kernel; the goal is 90 % of the layers that have a choice.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import sparsec
from benchmarks.side_by_side import build_model, header, inputs_for, model_names, write_json
from sparsec.backends.cpu.lower.explain import FAMILIES
from sparsec.compiler.cli.console import plain_table
from sparsec.compiler.cli.layer_times import layer_seconds
from sparsec.compiler.errors import SparsecError
from sparsec.compiler.runtime import CompiledModel
from sparsec.passes.pruning.recipe import make_recipe

NEAR, GOAL = 1.10, 0.90
CHOICE = "chosen"


@dataclass(frozen=True)
class Verdict:
    """A layer that can be computed in several ways: what was chosen, what was best, in measured microseconds."""

    layer: str
    pattern: str
    chosen: str
    best: str
    us: dict[str, float]  # by kernel in words
    predicted_us: dict[str, float]

    @property
    def ratio(self) -> float:
        """Time of the choice over the best."""
        return self.us[self.chosen] / self.us[self.best]

    @property
    def good(self) -> bool:
        """Whether the choice is as good as the best."""
        return self.ratio <= NEAR


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; 1 when a model cannot be compiled."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL[:PATTERN]", help="names of models/, with what to prune them to")
    parser.add_argument("--target", default="host", help="target that runs here (default: host)")
    parser.add_argument("--threads", type=int, default=1, help="threads of the libraries (default: 1)")
    parser.add_argument("--rounds", type=int, default=10, help="turns of each library (default: 10)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results to FILE too")
    arguments = parser.parse_args(argv)
    for asked in arguments.models:
        if (name := asked.partition(":")[0]) not in model_names():
            parser.error(f"no model is called {name}; there are {', '.join(model_names())}")
    line = header(arguments.threads)
    print(line, flush=True)
    records: list[dict[str, Any]] = []
    failed = 0
    for asked in arguments.models:
        try:
            with tempfile.TemporaryDirectory(prefix="sparsec-bench-") as folder:
                verdicts = judge(asked, Path(folder), arguments)
        except SparsecError as exc:
            failed += 1
            print(f"{asked}: {exc}", flush=True)
            continue
        print(report(asked, verdicts), flush=True)
        layers = [{**asdict(v), "ratio": v.ratio, "good": v.good} for v in verdicts]
        records.append({"model": asked, "good": sum(v.good for v in verdicts), "layers": layers})
    if arguments.json:
        write_json(arguments.json, records, line)
    return 1 if failed else 0


def judge(asked: str, folder: Path, arguments: Any) -> list[Verdict]:
    """Compile and time one model in every way."""
    name, _, pattern = asked.partition(":")
    path = build_model(name, folder)
    feeds = inputs_for(path, 1)[0]
    shapes = {key: array.shape for key, array in feeds.items()}
    if pattern:
        recipe = make_recipe({"pattern": pattern, "preserve_norm": True})
        path = folder / "pruned.onnx"
        sparsec.prune(folder / f"{name}.onnx", recipe, input_shapes=shapes).save(path)
    how = {"target": arguments.target, "threads": arguments.threads, "input_shapes": shapes}
    libraries: dict[str, CompiledModel] = {}
    seen: set[tuple[str, ...]] = set()
    for label, kernels in ((CHOICE, ()), *((family, (family,)) for family in FAMILIES)):
        compiled = sparsec.compile(path, folder / label, kernels=kernels, name="model", **how)
        ways = tuple(_kernel(layer) for layer in compiled.report.layers)
        if ways not in seen:  # a family that the network has no use for changes nothing
            libraries[label] = compiled
        seen.add(ways)
    return verdicts_of(libraries, layer_seconds(libraries, feeds, arguments.rounds))


def verdicts_of(libraries: dict[str, CompiledModel], seconds: dict[str, list[float]]) -> list[Verdict]:
    """For every layer with weights that was computed in more than one way. A kernel's time is the best over all libraries."""
    us: dict[str, dict[str, float]] = {}
    predicted: dict[str, dict[str, float]] = {}
    for label, compiled in libraries.items():
        for layer, s in zip(compiled.report.layers, seconds[label], strict=True):
            if layer.density is not None and layer.calls:
                kernel, times = _kernel(layer), us.setdefault(layer.node, {})
                times[kernel] = min(1e6 * s, times.get(kernel, float("inf")))
                predicted.setdefault(layer.node, {})[kernel] = layer.predicted_us
    found = []
    for layer in libraries[CHOICE].report.layers:
        times = us.get(layer.node, {})
        if len(times) > 1:
            best = min(times, key=lambda kernel: times[kernel])
            found.append(Verdict(layer.node, layer.pattern, _kernel(layer), best, times, predicted[layer.node]))
    return found


def _kernel(layer: Any) -> str:
    return layer.candidates[0].kernel if layer.candidates else ""


def report(asked: str, verdicts: Sequence[Verdict]) -> str:
    """The share of good choices, and the layers where the choice was not good."""
    if not verdicts:
        return f"{asked}: no layer has a choice"
    good = sum(v.good for v in verdicts)
    share, lost = good / len(verdicts), sum(v.us[v.chosen] for v in verdicts) / sum(v.us[v.best] for v in verdicts)
    goal = f"goal {100 * GOAL:.0f} % {'met' if share >= GOAL else 'missed'}"
    text = (
        f"{asked}: {good} of {len(verdicts)} layers within {100 * (NEAR - 1):.0f} % of the best measured kernel "
        f"({100 * share:.0f} %, {goal}); together they take {lost:.3f} times the best"
    )
    rows = [[v.layer, v.pattern, *_side(v, v.chosen), *_side(v, v.best), f"{v.ratio:.2f}"] for v in verdicts if not v.good]
    columns = ("layer", "pattern", "chosen", ">predicted us", ">measured", "best", ">predicted us", ">measured", ">ratio")
    return f"{text}\n{plain_table(columns, rows)}" if rows else text


def _side(v: Verdict, kernel: str) -> list[str]:
    return [kernel, f"{v.predicted_us[kernel]:.1f}", f"{v.us[kernel]:.1f}"]


if __name__ == "__main__":
    raise SystemExit(main())
