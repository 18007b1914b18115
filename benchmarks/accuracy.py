"""What pruning costs a trained network in accuracy, and what calibration data gives back; nothing is trained.

    python benchmarks/accuracy.py                                   patterns with goals
    python benchmarks/accuracy.py all --seeds 3                     every pattern, three calibration seeds an arm
    python benchmarks/accuracy.py 2:4 block:8x8@75% --seeds 1
    python benchmarks/accuracy.py --arms refit,permuted --json results.json

The network is the ResNet-8 of `train_fashion.py` (77,754 parameters, BatchNormalization nodes kept). All convolutions but the
first are pruned, the classifier is not. Every arm of a seed sees the same unlabelled training images; accuracy is top-1 on the
10,000 test images, through onnxruntime. Figures are the mean over seeds and, behind +-, half of the range; a figure without a
spread is of one seed. The standard error of an accuracy of 0.9 on 10,000 images is 0.003.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import onnx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.fashion import load  # noqa: E402
from sparsec.compiler.cli.console import plain_table  # noqa: E402
from sparsec.compiler.measure import machine_line  # noqa: E402
from sparsec.compiler.onnxruntime_reference import OnnxRuntime, version  # noqa: E402
from sparsec.passes.pruning.budget import Budget  # noqa: E402
from sparsec.passes.pruning.calibrated.importance import Importance, Repair  # noqa: E402
from sparsec.passes.pruning.calibrated.reconstruct import Settings  # noqa: E402
from sparsec.passes.pruning.model import PrunedModel, prune  # noqa: E402
from sparsec.passes.pruning.recipe import make_recipe  # noqa: E402
from sparsec.passes.pruning.strengths import Counted  # noqa: E402
from sparsec.passes.pruning.within import prune_within  # noqa: E402

Array = np.ndarray[Any, Any]
MODEL = ROOT / "benchmarks" / "data" / "resnet8_fashion.onnx"
CALIBRATION_IMAGES, SEEDS, TEST_BATCH = 2000, 3, 500
EVALUATIONS, THREADS = 20, 1
OF_WEIGHTS = "budget of weights"  # may leave more multiply-accumulates than the pattern does, so it meets no goal

# Pattern -> top-1 that the best arm should reach (None: measured for comparison). Vectors of 16 and 32 outputs (block:Vx1) are
# what OVW (Tan et al., arXiv 2210.07606) keeps and drops.
GOALS: dict[str, float | None] = {
    "2:4": 0.919,
    "1:4": 0.908,
    "hinm:16:2:4@75%": 0.908,
    "hinm:32:2:4@75%": 0.908,
    "block:8x8@50%/taps=each": 0.910,
    "block:8x8@75%/taps=each": 0.872,
    "block:8x8@50%": 0.895,
    "block:8x8@75%": 0.858,
    "2:4/rows=4": None,
    "1:4/rows=4": None,
    "2:4/rows=32": None,
    "1:4/rows=32": None,
    "block:16x1@75%/taps=each": None,
    "block:32x1@75%/taps=each": None,
}


@dataclass(frozen=True)
class Arm:
    """One way to prune: from the model, a pattern, calibration images [N, 1, 28, 28] and a seed to the pruned model."""

    name: str
    prune: Callable[[Path, str, Array, int], PrunedModel]
    seeds: int = 1  # that are run by default; 0: only where the arm is named
    only: str = ""  # patterns that begin so, where the arm is slow and the others gain little


def _with(importance: Importance, repair: Repair, *, refit: bool = False) -> Callable[[Path, str, Array, int], PrunedModel]:
    def run(model: Path, pattern: str, images: Array, seed: int) -> PrunedModel:
        settings = Settings(importance=importance, repair=repair, refit=refit, seed=seed, threads=THREADS)
        return prune(model, pattern, data={"image": images}, settings=settings)

    return run


def _found(*, permute: bool = False, counted: Counted | None = None) -> Callable[[Path, str, Array, int], PrunedModel]:
    """What `refit` does, with channels reordered, and with what uniform pruning leaves shared out between layers."""

    def run(model: Path, pattern: str, images: Array, seed: int) -> PrunedModel:
        recipe = make_recipe({"pattern": pattern, "seed": seed, "permute": "gyro" if permute else "none"})
        settings, data = Settings(seed=seed, threads=THREADS), {"image": images}
        if counted is not None:
            return prune_within(model, recipe, data, Budget(counted=counted, evaluations=EVALUATIONS), settings=settings)
        return prune(model, recipe, data=data, settings=settings)

    return run


ARMS = (
    Arm("in place", lambda model, pattern, images, seed: prune(model, pattern, dims={"batch": 1})),
    Arm("moments", _with(Importance.magnitude, Repair.moments)),
    Arm("activation", _with(Importance.activation, Repair.moments)),
    Arm("activation reconstructed", _with(Importance.activation, Repair.least_squares)),
    Arm("reconstructed", _with(Importance.obs, Repair.least_squares)),
    Arm("refit", _with(Importance.obs, Repair.least_squares, refit=True), SEEDS),
    Arm("permuted", _found(permute=True)),
    Arm("budget", _found(counted=Counted.macs), only="block:8x8"),
    Arm("permuted budget", _found(permute=True, counted=Counted.macs), 0, "block:8x8"),
    Arm(OF_WEIGHTS, _found(counted=Counted.weights), 0, "block:8x8"),
)


@dataclass
class Row:
    """Results of one pattern and arm, a figure a seed."""

    pattern: str
    arm: str
    density: float = 0.0
    accuracy: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @property
    def text(self) -> str:
        """Mean and half of the range; "-" where nothing was measured."""
        if not self.accuracy:
            return "-"
        if len(self.accuracy) == 1:
            return f"{self.accuracy[0]:.4f}"
        spread = (max(self.accuracy) - min(self.accuracy)) / 2
        return f"{mean(self.accuracy):.4f} +-{spread:.4f}"


def top1(model: onnx.ModelProto | Path, images: Array, labels: Array) -> float:
    """Share of `images` whose largest logit is that of their label."""
    runtime = OnnxRuntime(model)
    parts = range(0, len(images), TEST_BATCH)
    logits = np.concatenate([runtime.run({"image": images[i : i + TEST_BATCH]})["logits"] for i in parts])
    return float((logits.argmax(axis=1) == labels).mean())


def measure(pattern: str, arm: Arm, seeds: int) -> Row:
    """One cell of the table; without figures where the arm is for other patterns."""
    if not pattern.startswith(arm.only):
        return Row(pattern, arm.name)
    train, (images, labels) = load("train")[0], load("t10k")
    row = Row(pattern, arm.name)
    for seed in range(seeds):
        chosen = np.random.default_rng(seed).choice(len(train), CALIBRATION_IMAGES, replace=False)
        begin = time.perf_counter()
        pruned = arm.prune(MODEL, pattern, train[chosen], seed)
        row.seconds.append(time.perf_counter() - begin)
        row.accuracy.append(top1(pruned.proto, images, labels))
        changed = pruned.report.changed
        row.density = sum(x.kept for x in changed) / max(sum(x.elements for x in changed), 1)
    return row


def verdict(rows: Sequence[Row]) -> str:
    """The goal of a pattern and whether its best arm reaches it; "" without a goal."""
    goal = GOALS.get(rows[0].pattern)
    if goal is None:
        return ""
    best = max(mean(r.accuracy) for r in rows if r.accuracy and r.arm != OF_WEIGHTS)
    return f"{goal:.3f} {'met' if round(best, 4) >= goal else 'missed'}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "patterns",
        nargs="*",
        metavar="PATTERN",
        help="as `sparsec prune --pattern`; those with a goal by default; all: every one",
    )
    parser.add_argument("--arms", metavar="NAME,...", help=f"of: {', '.join(repr(a.name) for a in ARMS)}")
    parser.add_argument("--seeds", type=int, metavar="N", help="of every arm; by default 3 of refit and 1 of others")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(argv)
    named = [a.strip() for a in (options.arms or "").split(",") if a.strip()]
    if unknown := set(named) - {a.name for a in ARMS}:
        parser.error(f"no arm is called {', '.join(map(repr, sorted(unknown)))}")
    arms = [a for a in ARMS if (a.name in named if named else a.seeds)]
    line = f"{machine_line()}; onnxruntime {version()}"
    dense = top1(MODEL, *load("t10k"))
    print(f"{line}\ndense top-1 {dense:.4f}, {CALIBRATION_IMAGES} images a seed", flush=True)
    patterns = list(GOALS) if options.patterns == ["all"] else options.patterns or [p for p, goal in GOALS.items() if goal]
    table: list[list[str]] = []
    records: list[dict[str, Any]] = []
    for pattern in patterns:
        rows = []
        for arm in arms:
            rows.append(measure(pattern, arm, options.seeds or arm.seeds or 1))
            records.append(asdict(rows[-1]))
            if rows[-1].seconds:
                print(f"  {pattern} {arm.name}: {rows[-1].text}, {mean(rows[-1].seconds):.0f} s", file=sys.stderr, flush=True)
        if not any(r.accuracy for r in rows):
            continue
        slowest = max(mean(r.seconds) for r in rows if r.seconds)
        table.append(
            [
                pattern,
                f"{next(r.density for r in rows if r.accuracy):.3f}",
                *(r.text for r in rows),
                verdict(rows),
                f"{slowest:.0f}",
            ]
        )
        if options.json:  # after every pattern, for a long run may be cut off
            options.json.write_text(json.dumps({"machine": line, "dense": dense, "rows": records}, indent=1) + "\n")
    print(plain_table(["pattern", ">density", *(f">{a.name}" for a in arms), "goal", ">s"], table))
    return 0


if __name__ == "__main__":
    sys.exit(main())
