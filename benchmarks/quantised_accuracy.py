"""What int8 and bfloat16 cost a trained network in accuracy, dense and pruned; nothing is trained.

    python benchmarks/quantised_accuracy.py                       bfloat16, and every way to choose ranges, dense
    python benchmarks/quantised_accuracy.py --pattern 2:4         the same of the network pruned with calibration data

The network is the ResNet-8 of `train_fashion.py`. Pruning sees 2,000 training images, quantising the first of them, all without
labels; each seed draws others. Accuracy is top-1 on the 10,000 test images, through onnxruntime on the QDQ model, for bfloat16
through the library that `sparsec compile --precision bf16` makes (of scalar C where the CPU lacks the instructions): the mean
over seeds, and in how many points the float model of the same seed is better at worst. `agree` is the share of test images to
which that gives the same class, `SQNR` the ratio of its logits' power to their error's, in dB. The standard error of an accuracy
of 0.92 on 10,000 images is 0.003.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.accuracy_arms import THREADS  # noqa: E402
from benchmarks.fashion import load  # noqa: E402
from benchmarks.images import CALIBRATION_IMAGES, MODEL  # noqa: E402
from sparsec.backends.cpu.isa import host_isa  # noqa: E402
from sparsec.compiler.cli.console import plain_table  # noqa: E402
from sparsec.compiler.driver import compile as compile_model  # noqa: E402
from sparsec.compiler.measure import machine_line  # noqa: E402
from sparsec.compiler.onnxruntime_reference import OnnxRuntime, version  # noqa: E402
from sparsec.passes.pruning.calibrated.reconstruct import Settings as Pruning  # noqa: E402
from sparsec.passes.pruning.model import prune  # noqa: E402
from sparsec.passes.quantisation.model import quantise  # noqa: E402
from sparsec.passes.quantisation.ranges import Method  # noqa: E402
from sparsec.passes.quantisation.settings import Settings  # noqa: E402

Array = np.ndarray[Any, Any]
IMAGES, BATCH = 512, 500
BFLOAT16 = "bfloat16"
SETTINGS = {
    **{str(m): Settings(method=m, threads=THREADS) for m in Method},
    "mse, no bias correction": Settings(correct_bias=False, threads=THREADS),
    "mse, one scale a layer": Settings(per_channel=False, threads=THREADS),
    "mse, powers of two": Settings(power_of_two=True, threads=THREADS),
    "mse, reduced range": Settings(reduce_range=True, threads=THREADS),
}
NAMES = (BFLOAT16, *SETTINGS)


def logits(model: onnx.ModelProto, images: Array) -> Array:
    """[N, 10] of `images`."""
    runtime = OnnxRuntime(model)
    return np.concatenate([runtime.run({"image": images[i : i + BATCH]})["logits"] for i in range(0, len(images), BATCH)])


def bfloat16_logits(model: onnx.ModelProto, images: Array) -> Array:
    """[N, 10] of `images`, by the compiled library."""
    target = host_isa().name if host_isa().bf16 else "generic"
    batch = max(n for n in range(1, BATCH + 1) if len(images) % n == 0)
    shape = {"image": (batch, *images.shape[1:])}
    with tempfile.TemporaryDirectory() as folder:
        library = compile_model(model, Path(folder) / "net", target=target, input_shapes=shape, bfloat16=True)
        parts = np.split(images, len(images) // batch)
        return np.concatenate([library.run({"image": part})["logits"] for part in parts])


def decibels(real: Array, quantised: Array) -> float:
    """Signal to quantisation noise."""
    noise = np.square(real - quantised, dtype=np.float64).sum()
    return float(10 * np.log10(np.square(real, dtype=np.float64).sum() / noise)) if noise else float("inf")


def measure(pattern: str | None, seed: int, names: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """By name of settings (and "float"): top-1, drop in points, share of equal classes, SQNR, seconds of quantising."""
    train, (images, labels) = load("train")[0], load("t10k")
    chosen = np.random.default_rng(seed).choice(len(train), CALIBRATION_IMAGES, replace=False)
    model = onnx.load(MODEL)
    if pattern:
        model = prune(MODEL, pattern, data={"image": train[chosen]}, settings=Pruning(seed=seed, threads=THREADS)).proto
    real = logits(model, images)
    best = float((real.argmax(axis=1) == labels).mean())
    found: dict[str, tuple[float, ...]] = {"float": (best,)}
    for name in names:
        begin = time.perf_counter()
        quantised = quantise(model, {"image": train[chosen[:IMAGES]]}, SETTINGS[name]) if name in SETTINGS else None
        seconds = time.perf_counter() - begin
        got = logits(quantised.proto, images) if quantised else bfloat16_logits(model, images)
        top1 = float((got.argmax(axis=1) == labels).mean())
        same = float((got.argmax(axis=1) == real.argmax(axis=1)).mean())
        found[name] = top1, 100 * (best - top1), same, decibels(real, got), seconds
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pattern", metavar="PATTERN", help="prune to this first, as `sparsec prune --pattern --calib`")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="draws of training images (default: 3)")
    parser.add_argument("--only", metavar="NAME", help=f"one of: {', '.join(map(repr, NAMES))}")
    options = parser.parse_args(argv)
    if options.only and options.only not in NAMES:
        parser.error(f"--only is one of {', '.join(map(repr, NAMES))}")
    names = [options.only] if options.only else list(NAMES)
    runs = [measure(options.pattern, seed, names) for seed in range(options.seeds)]
    rows = [["float", f"{np.mean([run['float'][0] for run in runs]):.4f}", "", "", "", ""]]
    for name in names:
        top1, drop, same, ratio, seconds = (np.array(column) for column in zip(*(run[name] for run in runs), strict=True))
        cells = f"{top1.mean():.4f}", f"{drop.max():.2f}", f"{same.mean():.4f}", f"{ratio.mean():.1f}", f"{seconds.mean():.1f}"
        rows.append([name, *cells])
    about = f"{options.pattern or 'dense'}, {min(IMAGES, CALIBRATION_IMAGES)} images, {options.seeds} seeds"
    print(f"{machine_line()}; onnxruntime {version()}; {about}")
    print(plain_table(["ranges", ">top-1", ">worst drop", ">agree", ">SQNR", ">s"], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
