"""What pruning costs trained networks in accuracy, and what calibration data gives back; nothing is trained.

    python benchmarks/accuracy.py                                     patterns with goals, ResNet-8 on Fashion-MNIST
    python benchmarks/accuracy.py all --seeds 3                       every pattern, three calibration seeds an arm
    python benchmarks/accuracy.py 2:4 block:8x8@75% --seeds 1
    python benchmarks/accuracy.py --arms refit,together --json results.json
    python benchmarks/accuracy.py --task wide                         the layers that have 4 columns of 8 x 8 blocks or more
    python benchmarks/accuracy.py --task files                        magika's classifier of file types
    python benchmarks/accuracy.py --task sentences --arms refit       MiniLM's sentence embeddings (slow)
    python benchmarks/accuracy.py all --speed sparse.json             beside the speed-ups of `cpu_sparse.py --json sparse.json`

Every arm of a seed sees the same unlabelled calibration inputs. Figures are the mean over seeds and, behind +-, half of the
range; a figure without a spread is of one seed. The standard error of an accuracy of 0.9 on 10,000 images is 0.003.

Besides the patterns of `sparsec prune`, ovw:V@S% and vnm:V:N:M are vector patterns of other tools (`vector_patterns.py`).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import file_types, images, sentences
from benchmarks.accuracy_arms import ARMS, OF_WEIGHTS, Arm
from benchmarks.accuracy_task import Task
from benchmarks.vector_patterns import parse
from sparsec.compiler.cli.console import plain_table
from sparsec.compiler.measure import machine_line
from sparsec.compiler.onnxruntime_reference import version
from sparsec.compiler.sparsity.text import parse_goal

TASKS: dict[str, Callable[[], Task]] = {
    "fashion": images.task,
    "wide": images.wide_task,
    "files": file_types.task,
    "sentences": sentences.task,
}
Speeds = Mapping[str, Mapping[str, float]]  # pattern -> model -> times as fast as dense onnxruntime


@dataclass
class Row:
    """Results of one pattern and arm: a figure of every measure a seed."""

    pattern: str
    arm: str
    density: float = 0.0
    scores: list[tuple[float, ...]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def mean(self, measure: int = 0) -> float:
        """The mean over seeds."""
        return mean(s[measure] for s in self.scores)

    def text(self, measure: int = 0) -> str:
        """Mean and half of the range; "-" where nothing was measured."""
        found = [s[measure] for s in self.scores]
        if not found:
            return "-"
        spread = f" +-{(max(found) - min(found)) / 2:.4f}" if len(found) > 1 else ""
        return f"{mean(found):.4f}{spread}"


def measure(task: Task, pattern: str, arm: Arm, seeds: int) -> Row:
    """One cell of the table; without figures where the arm is for other patterns."""
    row = Row(pattern, arm.name)
    for seed in range(seeds if arm.fits(pattern) else 0):
        feeds = task.calibration(seed)
        begin = time.perf_counter()
        done = arm.prune(task, pattern, feeds, seed)
        row.seconds.append(time.perf_counter() - begin)
        row.scores.append(task.score(done.proto))
        row.density = done.density
    return row


def verdict(goal: float | None, rows: Sequence[Row]) -> str:
    """The goal of a pattern and whether its best arm reaches it; "" without a goal."""
    if goal is None:
        return ""
    best = max(r.mean() for r in rows if r.scores and r.arm != OF_WEIGHTS)
    return f"{goal:.3f} {'met' if round(best, 4) >= goal else 'missed'}"


def read_speeds(path: Path) -> Speeds:
    """The speed-ups in a file that `cpu_sparse.py --json` wrote, by the pattern as `_spelled`."""
    found: dict[str, dict[str, float]] = {}
    for record in json.loads(path.read_text(encoding="utf-8"))["results"]:
        speedup = record.get("speedups", {}).get("onnxruntime")
        if speedup is not None:
            found.setdefault(_spelled(record["pattern"]), {})[record["model"]] = speedup
    return found


def _spelled(pattern: str) -> str:
    """A pattern in one of the orders that its options may have; those that sparsec does not have as they are."""
    return pattern if parse(pattern) else str(parse_goal(pattern))


def table(task: Task, arms: Sequence[Arm], by_pattern: Sequence[Sequence[Row]], speeds: Speeds) -> str:
    """A table for every measure of the task."""
    columns = ["pattern", ">density", *(f">{a.name}" for a in arms), "goal", ">s", *(["speed-up"] if speeds else [])]
    texts = []
    for number, name in enumerate(task.measures):
        cells = []
        for rows in by_pattern:
            pattern = rows[0].pattern
            density = next(r.density for r in rows if r.scores)
            goal = verdict(task.goals.get(pattern), rows) if number == 0 else ""
            slowest = max(mean(r.seconds) for r in rows if r.seconds)
            speed = ", ".join(f"{s:.2f} {model}" for model, s in speeds.get(_spelled(pattern), {}).items())
            row = [pattern, f"{density:.3f}", *(r.text(number) for r in rows), goal, f"{slowest:.0f}"]
            cells.append([*row, *([speed] if speeds else [])])
        texts.append(f"{name}\n{plain_table(columns, cells)}")
    return "\n\n".join(texts)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "patterns",
        nargs="*",
        metavar="PATTERN",
        help="as `sparsec prune --pattern`, or a vector pattern (default: those with a goal, or all); all: every one",
    )
    parser.add_argument("--task", choices=sorted(TASKS), default="fashion", help="the network (default: fashion)")
    parser.add_argument("--arms", metavar="NAME,...", help=f"of: {', '.join(repr(a.name) for a in ARMS)}")
    parser.add_argument("--seeds", type=int, metavar="N", help="of every arm; by default 3 of refit and 1 of others")
    parser.add_argument("--speed", type=Path, metavar="FILE", help="results of `cpu_sparse.py --json FILE` to print beside")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results to FILE too")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark, print the table."""
    parser = _parser()
    options = parser.parse_args(argv)
    named = [a.strip() for a in (options.arms or "").split(",") if a.strip()]
    if unknown := set(named) - {a.name for a in ARMS}:
        parser.error(f"no arm is called {', '.join(map(repr, sorted(unknown)))}")
    arms = [a for a in ARMS if (a.name in named if named else a.seeds)]
    speeds = read_speeds(options.speed) if options.speed else {}
    task = TASKS[options.task]()
    line = f"{machine_line()}; onnxruntime {version()}"
    dense = task.score(task.model)
    figures = ", ".join(f"{name} {value:.4f}" for name, value in zip(task.measures, dense, strict=True))
    print(f"{line}\n{task.about}\ndense: {figures}", flush=True)
    with_goal = [p for p, goal in task.goals.items() if goal] or list(task.goals)
    patterns = list(task.goals) if options.patterns == ["all"] else options.patterns or with_goal
    by_pattern: list[list[Row]] = []
    records: list[dict[str, Any]] = []
    for pattern in patterns:
        rows = []
        for arm in arms:
            rows.append(measure(task, pattern, arm, options.seeds or arm.seeds or 1))
            records.append(asdict(rows[-1]))
            if rows[-1].seconds:
                texts = ", ".join(rows[-1].text(i) for i in range(len(task.measures)))
                print(f"  {pattern} {arm.name}: {texts}, {mean(rows[-1].seconds):.0f} s", file=sys.stderr, flush=True)
        if any(r.scores for r in rows):
            by_pattern.append(rows)
        if options.json:  # after every pattern, for a long run may be cut off
            found = {"machine": line, "task": task.about, "measures": task.measures, "dense": dense, "rows": records}
            options.json.write_text(json.dumps(found, indent=1) + "\n")
    if by_pattern:
        print(table(task, arms, by_pattern, speeds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
