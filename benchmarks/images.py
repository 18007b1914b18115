"""The ResNet-8 of `train_fashion.py` on Fashion-MNIST; `fashion.py` alone reads the data where sparsec is not installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from benchmarks.accuracy_task import COMPARED, Feeds, Task, outputs
from benchmarks.fashion import load

Array = np.ndarray[Any, Any]
MODEL = Path(__file__).parent / "data" / "resnet8_fashion.onnx"
CALIBRATION_IMAGES, TEST_BATCH = 2000, 500
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
NARROW = ("blocks.0.*", "blocks.1.conv1", "blocks.1.conv3")  # layers of 16 input channels
WIDE_GOALS: dict[str, float | None] = dict.fromkeys(
    f"block:8x8{even}{taps}" for even in ("@50%", "/2:4", "@75%", "/1:4") for taps in ("", "/taps=each")
)


def top1(model: onnx.ModelProto | Path, images: Array, labels: Array) -> float:
    """Share of `images` whose largest logit is that of their label."""
    logits = outputs(model, {"image": images}, "logits", TEST_BATCH)
    return float((logits.argmax(axis=1) == labels).mean())


def task(goals: Mapping[str, float | None] = GOALS, spared: Sequence[str] = ()) -> Task:
    """The ResNet-8 of `train_fashion.py`: all convolutions but the first and `spared` are pruned, the classifier is not."""
    rules = [{"match": name, "pattern": "dense"} for name in spared]
    (train, _), (images, labels) = load("train"), load("t10k")

    def calibration(seed: int) -> Feeds:
        return {"image": train[np.random.default_rng(seed).choice(len(train), CALIBRATION_IMAGES, replace=False)]}

    return Task(
        "fashion",
        f"ResNet-8 (77,754 parameters), Fashion-MNIST, {CALIBRATION_IMAGES} images a seed, {len(images)} test images",
        ("top-1",),
        MODEL,
        goals,
        lambda pattern: {"pattern": pattern, "layer": rules},
        calibration,
        lambda model: (top1(model, images, labels),),
    )


def wide_task() -> Task:
    """The same where its layers of 32 and 64 input channels alone are pruned: 4 and 8 columns of 8 x 8 blocks."""
    return task(WIDE_GOALS, NARROW)
