"""Fashion-MNIST as the Debian package dataset-fashion-mnist ships it (Xiao, Rasul, Vollgraf, arXiv 1708.07747)."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from benchmarks.accuracy_task import COMPARED, Feeds, Task, outputs

Array = np.ndarray[Any, Any]
FOLDER = Path("/usr/share/datasets/fashion-mnist")
MODEL = Path(__file__).parent / "data" / "resnet8_fashion.onnx"
CLASSES, CALIBRATION_IMAGES, TEST_BATCH = 10, 2000, 500
GOALS: dict[str, float | None] = {
    "2:4": 0.919,
    "1:4": 0.908,
    "hinm:16:2:4@75%": 0.908,
    "hinm:32:2:4@75%": 0.908,
    "block:8x8@50%/taps=each": 0.910,
    "block:8x8@75%/taps=each": 0.872,
    "block:8x8@50%": 0.895,
    "block:8x8@75%": 0.858,
    **dict.fromkeys(COMPARED),
}


def load(part: str, folder: Path = FOLDER) -> tuple[Array, Array]:
    """Images [N, 1, 28, 28] float32 in [0, 1] and labels [N] int64 of `part`, "train" (60,000) or "t10k" (10,000)."""
    if not folder.is_dir():
        raise SystemExit(f"no folder {str(folder)!r}: install the Debian package dataset-fashion-mnist")
    images = _read(folder / f"{part}-images-idx3-ubyte.gz", header=16).reshape(-1, 1, 28, 28)
    labels = _read(folder / f"{part}-labels-idx1-ubyte.gz", header=8)
    return images.astype(np.float32) / np.float32(255), labels.astype(np.int64)


def _read(path: Path, header: int) -> Array:
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header)


def top1(model: onnx.ModelProto | Path, images: Array, labels: Array) -> float:
    """Share of `images` whose largest logit is that of their label."""
    logits = outputs(model, {"image": images}, "logits", TEST_BATCH)
    return float((logits.argmax(axis=1) == labels).mean())


def task() -> Task:
    """The ResNet-8 of `train_fashion.py`: all convolutions but the first are pruned, the classifier is not."""
    (train, _), (images, labels) = load("train"), load("t10k")

    def calibration(seed: int) -> Feeds:
        return {"image": train[np.random.default_rng(seed).choice(len(train), CALIBRATION_IMAGES, replace=False)]}

    return Task(
        "fashion",
        f"ResNet-8 (77,754 parameters), Fashion-MNIST, {CALIBRATION_IMAGES} images a seed, {len(images)} test images",
        ("top-1",),
        MODEL,
        GOALS,
        lambda pattern: {"pattern": pattern},
        calibration,
        lambda model: (top1(model, images, labels),),
    )
