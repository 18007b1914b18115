"""Magika's classifier of file types (the package magika, Fratantonio et al., arXiv 2409.13768) on a frozen list of files.

The files are the examples of the lexers in the source distribution of Pygments 2.20.0, hundreds of languages of text and code,
in the order of their names. Each gives up to three excerpts of 4,096 bytes; those of every other file are the test, the rest
is what calibration draws from.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import models
from benchmarks.accuracy_task import COMPARED, Download, Feeds, Task, outputs

Array = np.ndarray[Any, Any]
SOURCE = Download(
    "pygments-2.20.0.tar.gz",
    "6757cd03768053ff99f3039c1a36d6c0aa0b263438fcab17520b30a303a82b5f",
    "--no-binary pygments pygments==2.20.0",
)
EXCERPT, EXCERPTS, SMALLEST = 4096, 3, 64  # bytes, excerpts a file, bytes of the smallest
CALIBRATION_EXCERPTS, TEST_BATCH = 100, 50
CONFIG = "magika/models/standard_v3_3/config.min.json"
# Pygments' names of what magika has a label for under another name.
NAMES = {
    "ahk": "autohotkey", "bash": "shell", "bat": "batch", "coffee-script": "coffeescript", "common-lisp": "lisp", "csharp": "cs",
    "docker": "dockerfile", "email": "eml", "html+handlebars": "handlebars", "js": "javascript", "make": "makefile",
    "md": "markdown", "nasm": "asm", "objective-c": "objectivec", "pot": "po", "protobuf": "proto", "python": "python",
    "rb": "ruby", "registry": "winregistry", "sqlite3": "sql", "splus": "r", "systemverilog": "verilog", "text": "txt",
    "ts": "typescript", "tsql": "sql", "vb.net": "vba", "wdiff": "diff",
}  # fmt: skip


def excerpts(archive: Path) -> Iterator[tuple[int, str, bytes]]:
    """(number of the file, Pygments' name of its language, bytes) of every excerpt, in the order of the files' names."""
    with tarfile.open(archive) as tar:
        files = {m.name: m for m in tar if m.isfile() and "/tests/examplefiles/" in m.name and m.name.count("/") > 3}
        chosen = [name for name in sorted(files) if not name.endswith(".output")]
        for number, name in enumerate(chosen):
            reader = tar.extractfile(files[name])
            data = reader.read() if reader else b""
            for begin in range(0, min(len(data), EXCERPT * EXCERPTS), EXCERPT):
                piece = data[begin : begin + EXCERPT]
                if len(piece.strip()) >= SMALLEST:
                    yield number, name.split("/")[3], piece


def features(data: bytes, ends: int = 1024, padding: int = 256) -> Array:
    """What the model reads of a file of at most 4,096 bytes, int32 [2048]: its first and its last bytes, spaces stripped."""
    found = np.full(2 * ends, padding, np.int32)
    stripped = np.frombuffer(data.strip(), np.uint8)
    head, tail = stripped[:ends], stripped[-ends:]
    found[: len(head)] = head
    found[2 * ends - len(tail) :] = tail
    return found


def task() -> Task:
    """The convolution (84 % of the weights) is pruned; the embedding of bytes and the classifier are not."""
    config = json.loads(Path(str(distribution("magika").locate_file(CONFIG))).read_text(encoding="utf-8"))
    labels = {label: i for i, label in enumerate(config["target_labels_space"])}
    found = list(excerpts(SOURCE.path()))
    inputs = np.stack([features(data) for _, _, data in found])
    testing = np.array([number % 2 == 0 for number, _, _ in found])
    wanted = np.array([labels.get(NAMES.get(name, name), -1) for _, name, _ in found])[testing]
    model = models.packaged("magika")
    convolution = next(n.name for n in model.graph.node if n.op_type == "Conv")

    def answers(of: Path | onnx.ModelProto) -> Array:
        return outputs(of, {"bytes": inputs[testing]}, "target_label", TEST_BATCH)

    dense = answers(model).argmax(axis=1)

    def score(of: Path | onnx.ModelProto) -> tuple[float, ...]:
        given = answers(of).argmax(axis=1)
        known = wanted >= 0
        return float((given == dense).mean()), float((given == wanted)[known].mean())

    def calibration(seed: int) -> Feeds:
        return {"bytes": np.random.default_rng(seed).permutation(inputs[~testing])[:CALIBRATION_EXCERPTS]}

    files = len({number for number, _, _ in found if number % 2 == 0})
    return Task(
        "files",
        f"magika standard_v3_3, {CALIBRATION_EXCERPTS} excerpts a seed, {testing.sum()} test excerpts of {files} files, "
        f"{(wanted >= 0).sum()} of them in languages that it has a label for",
        ("agreement with dense", "right label"),
        model,
        dict.fromkeys(
            ("2:4", "1:4", "hinm:16:2:4@75%", "hinm:32:2:4@75%", "block:8x8@50%/taps=each", "block:8x8@75%/taps=each",
             "block:8x8@50%", "block:8x8@75%", *COMPARED)
        ),
        lambda pattern: {"layer": [{"match": convolution, "pattern": pattern}]},
        calibration,
        score,
    )  # fmt: skip
