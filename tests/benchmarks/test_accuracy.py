"""The accuracy benchmark: the trained model is what it is said to be, and verdicts are those of the best arm."""

import gzip
from math import prod
from pathlib import Path

import numpy as np
import onnx
import pytest

from benchmarks.accuracy import ARMS, GOALS, MODEL, OF_WEIGHTS, Row, main, measure, top1, verdict
from benchmarks.fashion import load
from sparsec.compiler.sparsity.text import parse_goal


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
    assert all(parse_goal(text).sparsity > 0 for text in GOALS)
    assert len({a.name for a in ARMS}) == len(ARMS)
    with pytest.raises(SystemExit):
        main(["--arms", "nonsense"])


def test_a_goal_is_met_by_the_best_arm() -> None:
    rows = [Row("2:4", "in place", accuracy=[0.4]), Row("2:4", "refit", accuracy=[0.9189, 0.9191])]
    assert verdict(rows) == "0.919 met"
    assert verdict(rows[:1]) == "0.919 missed"
    assert verdict([Row("2:4/rows=4", "refit", accuracy=[0.9])]) == ""
    assert rows[1].text == "0.9190 +-0.0001"
    assert verdict([*rows[:1], Row("2:4", OF_WEIGHTS, accuracy=[0.93]), Row("2:4", "budget")]) == "0.919 missed"
    assert [rows[0].text, Row("2:4", "budget").text] == ["0.4000", "-"]


def test_arms_for_some_patterns_measure_nothing_else() -> None:
    arms = {a.name: a for a in ARMS}
    assert measure("2:4", arms["budget"], 1).accuracy == []
    assert arms[OF_WEIGHTS].only == "block:8x8"


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
