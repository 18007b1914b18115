"""Accuracy and functions as metrics of a budget: what they count, the labels that they take, and what is checked with them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

import sparsec
from sparsec.compiler.errors import UsageError
from sparsec.compiler.pruning_report import BudgetReport
from sparsec.passes.pruning.budget import Budget
from sparsec.passes.pruning.calibrated.data import Samples
from sparsec.passes.pruning.calibrated.labels import read_labels
from sparsec.passes.pruning.calibrated.metric import Metric
from sparsec.passes.pruning.calibrated.parts import Part
from sparsec.passes.pruning.calibrated.quality import make_judge
from sparsec.passes.pruning.calibrated.reconstruct import Settings
from sparsec.passes.pruning.within import prune_within
from tests.reference import make_model, run_ort

Array = np.ndarray[Any, Any]
QUICK = Settings(threads=1)


def scores(shift: Array, classes: int = 4) -> onnx.ModelProto:
    """Adds a constant to rows of class scores."""
    nodes = [helper.make_node("Add", ["x", "shift"], ["y"])]
    return make_model(nodes, {"x": (TensorProto.FLOAT, ["n", classes])}, ["y"], {"shift": shift}, opset=17)


def part_of(x: Array, batch: int = 3) -> Part:
    samples = Samples(tuple({"x": x[i : i + batch]} for i in range(0, len(x), batch)))
    return Part(samples, tuple(range(len(samples))))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(0, 99))
def test_the_drop_is_that_of_top_1(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, labels, shift = rng.standard_normal((n, 4)).astype(np.float32), rng.integers(0, 4, n), rng.standard_normal(4)
    dense, pruned = scores(np.zeros(4, np.float32)), scores(shift.astype(np.float32))
    part = part_of(x)
    judge = make_judge(dense, Part(part.whole, part.batches[::-1]), Metric.accuracy, labels, 1)  # any order of batches
    before, after = x.argmax(axis=1) == labels, (x + shift.astype(np.float32)).argmax(axis=1) == labels
    found = judge.of(pruned)
    assert judge.dense == pytest.approx(before.mean())
    assert found.value == pytest.approx(before.mean() - after.mean())
    assert found.error == pytest.approx((before.astype(int) - after).std() / np.sqrt(n)) and found.tie > 0
    assert (judge.of(dense).value, judge.of(dense).error) == (0, 0) and judge.of(dense).tie == pytest.approx(0, abs=1e-9)
    broken = scores(np.full(4, np.nan, np.float32))
    assert judge.of(broken).value == np.inf


@pytest.mark.parametrize(
    ("shape", "axes", "labels", "fits"),
    [
        ([6, 5, 3], [], (6, 5), True),  # a label a token
        ([6, 5, 3], [], (6,), False),
        ([6, 3], [2, 3], (6,), True),  # what a global pooling leaves
        ([6, 1], [], (6,), False),
    ],
)
def test_which_outputs_have_classes(shape: list[int], axes: list[int], labels: tuple[int, ...], fits: bool) -> None:
    nodes = [helper.make_node("Unsqueeze", ["x", "axes"], ["y"]), helper.make_node("ReduceSum", ["x"], ["z"])]
    inputs = {"x": (TensorProto.FLOAT, ["n", *shape[1:]])}
    model = make_model(nodes, inputs, ["y", "z"], {"axes": np.array(axes, np.int64)}, opset=17)
    part = part_of(np.random.default_rng(0).standard_normal(shape).astype(np.float32), batch=6)
    if fits:
        assert make_judge(model, part, Metric.accuracy, np.zeros(labels, np.int64), 1).of(model).value == 0
        return
    with pytest.raises(UsageError, match=r"no output has a row of classes for every label, .* give a function as the metric"):
        make_judge(model, part, Metric.accuracy, np.zeros(labels, np.int64), 1)


def test_labels_that_are_no_classes_are_refused() -> None:
    model, part = scores(np.zeros(4, np.float32)), part_of(np.eye(4, dtype=np.float32))
    with pytest.raises(UsageError, match=r"the label of sample 2 is 4, and output 'y' has 4 classes: expected 0 to 3"):
        make_judge(model, part, Metric.accuracy, np.array([0, 3, 4, 1]), 1)
    with pytest.raises(UsageError, match="labels are float64, the metric accuracy takes class numbers"):
        make_judge(model, part, Metric.accuracy, np.array([0.0, 1, 2, 3]), 1)
    with pytest.raises(UsageError, match="the metric accuracy takes labels"):
        make_judge(model, part, Metric.accuracy, None, 1)


def test_functions_get_outputs_by_name_and_the_labels_of_their_samples() -> None:
    x = np.arange(24, dtype=np.float32).reshape(6, 4)
    whole, labels = part_of(x, batch=2), np.arange(6) * 10
    part = Part(whole.whole, (2, 0))
    seen: list[tuple[dict[str, Array], Array | None]] = []

    def mean(outputs: dict[str, Array], labels: Array | None) -> Any:
        seen.append((outputs, labels))
        return outputs["y"].mean(dtype=np.float64)

    judge = make_judge(scores(np.zeros(4, np.float32)), part, mean, labels, 1)
    found = judge.of(scores(np.full(4, -1, np.float32)))
    assert judge.dense == pytest.approx(x[[4, 5, 0, 1]].mean()) and found.value == pytest.approx(1) and found.error is None
    assert len(seen) == 2 and list(seen[0][0]) == ["y"]
    np.testing.assert_array_equal(seen[0][0]["y"], x[[4, 5, 0, 1]])
    assert seen[1][1] is not None and seen[1][1].tolist() == [40, 50, 0, 10]
    assert make_judge(scores(np.zeros(4, np.float32)), part, mean, None, 1).dense == judge.dense and seen[-1][1] is None


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda o, y: float("nan"), r"the metric <lambda>.* gives nan for the outputs of the dense model"),
        (lambda o, y: float("inf"), "gives inf"),
        (lambda o, y: None, "failed on the outputs of the dense model: TypeError"),
        (lambda o, y: o["scores"], r"failed on the outputs of the dense model: KeyError: 'scores'"),
        (lambda o, y: 0.0 if (o["y"] < 2).all() else float("nan"), "gives nan for the outputs of a pruned model"),
    ],
)
def test_functions_that_fail_are_named(result: Any, message: str) -> None:
    part = part_of(np.eye(4, dtype=np.float32))
    with pytest.raises(UsageError, match=message):
        judge = make_judge(scores(np.zeros(4, np.float32)), part, result, None, 1)
        judge.of(scores(np.full(4, 2, np.float32)))


def labelled_net(n: int = 600) -> tuple[onnx.ModelProto, Array, Array]:
    """A network of two products, inputs, and labels that it gets right nearly always."""
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((32, 48)), "v": rng.standard_normal((48, 32)) / 7, "c": rng.standard_normal((32, 6)) / 5}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("MatMul", ["r", "v"], ["b"], name="second"),
        helper.make_node("Relu", ["b"], ["s"]),
        helper.make_node("MatMul", ["s", "c"], ["y"], name="classifier"),
    ]
    arrays = {k: v.astype(np.float32) for k, v in weights.items()}
    model = make_model(nodes, {"x": (TensorProto.FLOAT, ["n", 32])}, ["y"], arrays, opset=17)
    x = rng.standard_normal((n, 32)).astype(np.float32)
    labels = run_ort(model, {"x": x})["y"].argmax(axis=1)
    wrong = rng.random(n) < 0.05
    return model, x, np.where(wrong, (labels + 1) % 6, labels)


def top1(outputs: dict[str, Array], labels: Array | None) -> float:
    return float((outputs["y"].argmax(axis=1) == labels).mean())


@pytest.mark.parametrize("metric", ["accuracy", top1], ids=["accuracy", "function"])
def test_the_sparsest_model_within_a_drop_holds_on_samples_never_seen(metric: Any) -> None:
    model, x, labels = labelled_net()
    found: list[BudgetReport] = []
    for allowed in (0.1, 0.02):
        budget = Budget(max_drop=allowed, metric=metric, labels=labels, evaluations=12)
        pruned = sparsec.prune(model, "unstructured@50%", data={"x": x}, budget=budget, settings=QUICK)
        report = pruned.report.budget
        assert report is not None and report.check is not None and report.dense is not None
        held = list(report.check.samples)
        assert len(held) == len(set(held)) >= 190 and report.check.dense == pytest.approx(0.95, abs=0.05)
        right = [(run_ort(m, {"x": x[held]})["y"].argmax(axis=1) == labels[held]).mean() for m in (model, pruned.proto)]
        assert report.check.loss == pytest.approx(right[0] - right[1]) and report.check.loss <= allowed + 1e-9
        assert (report.check.error is not None) == (metric == "accuracy")
        found.append(report)
    assert found[0].density < found[1].density < 1 and found[0].max_drop == 0.1


def test_models_that_lose_more_on_samples_held_out_give_way() -> None:
    """A function that likes pruned models while searching: only the last samples, which it knows by their labels, count."""
    model, x, _ = labelled_net(240)
    truth = run_ort(model, {"x": x})["y"]
    calls: list[int] = []

    def picky(outputs: dict[str, Array], numbers: Array | None) -> float:
        assert numbers is not None
        calls.append(len(calls))
        error = float(np.abs(outputs["y"] - truth[numbers]).mean())
        return 0.0 if searching(numbers) else -error

    first: list[tuple[int, ...]] = []

    def searching(numbers: Array) -> bool:
        first.append(tuple(numbers))
        return tuple(numbers) == first[0]  # the first call is for the samples that trials are measured by

    budget = Budget(max_drop=0.35, metric=picky, labels=np.arange(240), evaluations=6)
    report = prune_within(model, "unstructured@50%", {"x": x}, budget, settings=QUICK).report.budget
    assert report is not None and report.check is not None
    assert report.loss == 0 and report.check.refused > 0 and report.check.loss <= 0.35
    with pytest.raises(UsageError, match=r"no pruned model keeps the loss within 1e-06 on the 80 samples held out"):
        first.clear()
        prune_within(
            model, "2:4", {"x": x}, Budget(max_drop=1e-6, metric=picky, labels=np.arange(240), evaluations=6), settings=QUICK
        )


def test_labels_from_files_and_from_the_data(tmp_path: Path) -> None:
    labels = np.array([3, 0, 2])
    np.save(tmp_path / "a.npy", labels[:, None])
    np.savez(tmp_path / "one.npz", y=labels)
    np.savez(tmp_path / "two.npz", labels=labels, other=labels + 1)
    (tmp_path / "a.txt").write_text("3\n0\n\n2\n")
    (tmp_path / "a.csv").write_text("label\n3\n0\n2\n")
    (tmp_path / "b.csv").write_text('file,label,note\na.png,3,"x, y"\nb.png,0,\nc.png,2,\n')
    np.savez(tmp_path / "data.npz", x=np.zeros((3, 4)), labels=labels, classes=labels + 1)
    folder = tmp_path / "folder"
    folder.mkdir()
    np.savez(folder / "1.npz", x=np.zeros((2, 4)), labels=labels[:2])
    np.savez(folder / "2.npz", x=np.zeros((1, 4)), labels=labels[2:])
    data = tmp_path / "data.npz"
    for name in ("a.npy", "one.npz", "two.npz", "a.txt", "a.csv", "b.csv"):
        found = read_labels(tmp_path / name, data, 3)
        assert found.tolist() == [3, 0, 2] and found.dtype.kind == "i", name
    assert read_labels(None, data, 3).tolist() == [3, 0, 2] and read_labels("classes", data, 3).tolist() == [4, 1, 3]
    assert read_labels(None, folder, 3).tolist() == [3, 0, 2]
    assert read_labels(None, {"x": np.zeros((3, 4)), "labels": labels}, 3).tolist() == [3, 0, 2]
    assert read_labels([3, 0, 2], data, 3).tolist() == [3, 0, 2]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "1\n2\n", r"labels '.*a.txt': 2 entries for 3 calibration samples"),
        ("a.txt", "1\ntwo\n3\n", r"entry 2 is 'two', expected a number"),
        ("a.txt", "", r"0 entries for 3"),
        ("a.csv", "file,class\na,1\n", r"is a table of 2 columns: head that of the class numbers 'label'"),
        ("a.csv", "1,2\n3,4\n", r"is a table of 2 columns"),
        ("a.json", "[1]", r"in no form that is read: give a file .npy, .npz, .csv, .txt"),
        ("a.npy", "text", r"cannot read labels '.*a.npy'"),
    ],
)
def test_label_files_that_cannot_be(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match=message):
        read_labels(tmp_path / name, {"x": np.zeros((3, 4))}, 3)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, r"takes labels: give a file, or an array 'labels' in the calibration data \(it holds 'x'\)"),
        ("lables.npy", r"labels 'lables.npy' are neither a file nor an array of the calibration data"),
        ([1, 2], r"the labels: 2 entries for 3 calibration samples, give one for each"),
        (5, "the labels: a single number for 3"),
    ],
)
def test_labels_that_are_not_there(labels: str | Sequence[int] | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_labels(labels, {"x": np.zeros((3, 4))}, 3)


def test_archives_of_several_arrays_must_say_which(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", one=np.zeros(3), two=np.zeros(3))
    with pytest.raises(UsageError, match=r"holds 'one', 'two': name one of them 'labels'"):
        read_labels(tmp_path / "a.npz", {"x": np.zeros((3, 4))}, 3)
    with pytest.raises(UsageError, match=r"it names no arrays"):
        read_labels(None, [np.zeros((3, 4))], 3)
