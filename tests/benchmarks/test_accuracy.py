"""The accuracy benchmark: the trained model is what it is said to be, and verdicts are those of the best arm."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import models
from benchmarks.accuracy import TASKS, Row, main, measure, read_speeds, table, verdict
from benchmarks.accuracy_arms import ARMS, OF_WEIGHTS
from benchmarks.accuracy_task import COMPARED, Feeds, Task, outputs
from benchmarks.fashion import load
from benchmarks.images import GOALS, MODEL, top1, wide_task
from benchmarks.vector_patterns import parse
from sparsec.compiler.sparsity.text import parse_goal
from sparsec.passes.pruning.model import prune
from sparsec.passes.pruning.recipe import make_recipe

NAMED = {a.name: a for a in ARMS}


def test_the_model_is_a_resnet8_with_its_normalisations() -> None:
    graph = onnx.load(MODEL).graph
    statistics = {name for n in graph.node if n.op_type == "BatchNormalization" for name in n.input[3:]}
    assert sum(prod(t.dims) for t in graph.initializer if t.name not in statistics) == 77_754
    assert len(statistics) == 2 * 9
    assert MODEL.stat().st_size < 400_000


def test_top1_counts_what_onnxruntime_says() -> None:
    images = np.random.default_rng(0).random((600, 1, 28, 28), np.float32)
    hits = [top1(MODEL, images, np.full(600, label)) for label in range(10)]
    assert sum(hits) == pytest.approx(1)


def test_patterns_and_arms_are_known() -> None:
    assert all(parse(text) or parse_goal(text).sparsity > 0 for text in (*GOALS, *COMPARED))
    assert len(NAMED) == len(ARMS)
    with pytest.raises(SystemExit):
        main(["--arms", "nonsense"])
    with pytest.raises(SystemExit):
        main(["--task", next(iter(TASKS)) + "?"])


def test_a_goal_is_met_by_the_best_arm() -> None:
    rows = [Row("2:4", "in place", scores=[(0.4,)]), Row("2:4", "refit", scores=[(0.9189, 0.5), (0.9191, 0.7)])]
    assert verdict(0.919, rows) == "0.919 met"
    assert verdict(0.919, rows[:1]) == "0.919 missed"
    assert verdict(None, rows) == ""
    assert [rows[1].text(), rows[1].text(1)] == ["0.9190 +-0.0001", "0.6000 +-0.1000"]
    assert verdict(0.919, [*rows[:1], Row("2:4", OF_WEIGHTS, scores=[(0.93,)]), Row("2:4", "budget")]) == "0.919 missed"
    assert [rows[0].text(), Row("2:4", "budget").text()] == ["0.4000", "-"]


def small_task(seen: list[int]) -> Task:
    """A tiny network, and as its score how often its largest output stays the same."""
    model = models.build("tiny_cnn")
    inputs = [models.inputs(model, seed=seed) for seed in range(6)]
    output = model.graph.output[0].name

    def calibration(seed: int) -> Feeds:
        seen.append(seed)
        return inputs[seed]

    def answers(of: Path | onnx.ModelProto) -> list[int]:
        return [int(outputs(of, feeds, output, 1).argmax()) for feeds in inputs]

    dense = answers(model)

    def options(pattern: str) -> Mapping[str, Any]:
        return {"pattern": pattern}

    def score(of: Path | onnx.ModelProto) -> tuple[float, ...]:
        return float(np.mean(np.equal(answers(of), dense))), 0.5

    return Task("small", "tiny", ("same", "half"), model, {"2:4": 0.5, "ovw:4@50%": None}, options, calibration, score)


@pytest.mark.parametrize("pattern", ["2:4", "ovw:4@50%"])
@pytest.mark.parametrize("name", ["in place", "permuted moments", "activation", "refit", "together"])
def test_every_seed_prunes_and_is_scored(pattern: str, name: str) -> None:
    seen: list[int] = []
    row = measure(small_task(seen), pattern, NAMED[name], 2)
    assert seen == [0, 1] and len(row.scores) == len(row.seconds) == 2
    assert row.density == pytest.approx(0.5, abs=0.02) and row.scores[0][1] == 0.5


def test_the_table_shows_measures_and_speeds(tmp_path: Path) -> None:
    record = {"pattern": "block:8x8/taps=each@50%", "model": "resnet50", "speedups": {"onnxruntime": 1.71}}
    dense = {"pattern": "dense", "model": "vgg19", "speedups": {"onnxruntime": 1.88}}
    failed = {"model": "vgg19", "pattern": "2:4", "failure": "no room"}
    (tmp_path / "s.json").write_text(json.dumps({"header": "", "results": [record, dense, failed]}))
    rows = [[Row(p, "refit", 0.5, [(0.75, 0.25)], [1.0])] for p in ("2:4", "block:8x8@50%/taps=each", "ovw:4@50%")]
    text = table(small_task([]), [NAMED["refit"]], rows, read_speeds(tmp_path / "s.json"))
    same, half = (line for line in text.splitlines() if line.startswith("2:4"))
    assert "0.7500" in same and "0.500 met" in same and "resnet50" not in same
    assert "0.2500" in half and "met" not in half
    assert text.count("1.71 resnet50") == 2 and "1.88" not in text


def test_arms_for_some_patterns_measure_nothing_else() -> None:
    assert measure(small_task([]), "2:4", NAMED["budget"], 1).scores == []
    assert NAMED[OF_WEIGHTS].only == "block:8x8"


def test_the_wide_task_prunes_what_has_four_columns_of_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it, so that blocks and n:m of blocks leave the same share of the same weights."""
    nothing = np.zeros((1, 1, 28, 28), np.float32), np.zeros(1, np.int64)
    monkeypatch.setattr("benchmarks.images.load", lambda part: nothing)
    task, pruned = wide_task(), {}
    for pattern in task.goals:
        recipe = make_recipe(task.options(pattern))
        pruned[pattern] = prune(task.model, recipe, input_shapes={"image": (1, 1, 28, 28)}).report.changed
        assert [x.node for x in pruned[pattern]] == ["blocks.1.conv2", "blocks.2.conv1", "blocks.2.conv2", "blocks.2.conv3"]
    for even, plain in (("/2:4", "@50%"), ("/1:4", "@75%")):
        assert [x.kept for x in pruned[f"block:8x8{even}"]] == [x.kept for x in pruned[f"block:8x8{plain}"]]


def test_images_are_read_as_the_package_stores_them(tmp_path: Path) -> None:
    pixels = np.arange(2 * 784, dtype=np.uint32).astype(np.uint8)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(bytes(16) + pixels.tobytes()))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(bytes(8) + b"\x03\x09"))
    images, labels = load("train", tmp_path)
    assert images.shape == (2, 1, 28, 28)
    np.testing.assert_allclose(images.reshape(-1), pixels / 255, rtol=1e-6)
    assert labels.tolist() == [3, 9]
    with pytest.raises(SystemExit, match="dataset-fashion-mnist"):
        load("train", tmp_path / "none")
