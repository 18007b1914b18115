"""Rows as users write them, and goals that the better of some rows has to reach."""

from pathlib import Path

import pytest

from benchmarks import sparse_goals
from benchmarks.sparse_goals import GOALS, PACKED_GOALS, PRUNING_GOALS, ROWS, Goal, Reached, Row, judge, parse_row
from models import names
from sparsec.compiler.errors import UsageError
from sparsec.compiler.sparsity.text import parse_goal

KNOWN = ("resnet50", "vgg19")
SHARED, EACH = Row("resnet50", "block:8x8@50%"), Row("resnet50", "block:8x8/taps=each@50%")


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ("resnet50:2:4/rows=32", Row("resnet50", "2:4/rows=32")),
        ("resnet50:block:8x8@75%", Row("resnet50", "block:8x8@75%")),
        ("resnet50:block:8x8@75%/taps=each", Row("resnet50", "block:8x8/taps=each@75%")),  # spelled as goals are
        ("resnet50:unstructured@90%", Row("resnet50", "unstructured@90%")),
    ],
)
def test_the_model_ends_at_the_first_colon(text: str, row: Row) -> None:
    assert parse_row(text, KNOWN) == row
    assert parse_row(text, KNOWN, "classifier") == Row(row.model, row.pattern, "classifier")


def test_dense_rows_spare_nothing() -> None:
    row = parse_row("vgg19:dense", KNOWN, "classifier")
    assert row == Row("vgg19", "dense") and not row.pruned and row in ROWS


def test_a_model_may_be_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.onnx"
    with pytest.raises(ValueError, match=r"there is no file .*mine\.onnx"):
        parse_row(f"{file}:2:4", KNOWN)
    file.touch()
    row = parse_row(f"{file}:2:4", KNOWN)
    assert (row.model, row.name, row.pattern) == (str(file), "mine", "2:4")


@pytest.mark.parametrize("text", ["resnet50", "resnet50:", ":2:4", ""])
def test_what_is_no_row(text: str) -> None:
    with pytest.raises(ValueError, match="is not MODEL:PATTERN"):
        parse_row(text, KNOWN)


def test_unknown_models_and_patterns() -> None:
    with pytest.raises(ValueError, match="no model is called resnet51; there are resnet50, vgg19, and files"):
        parse_row("resnet51:2:4", KNOWN)
    with pytest.raises(UsageError, match="does not say how much to drop"):
        parse_row("resnet50:unstructured", KNOWN)


def test_the_table_is_of_models_and_patterns_that_exist() -> None:
    assert {row.model for row in ROWS} <= set(names()) and set(PRUNING_GOALS) <= set(names())
    assert len(set(ROWS)) == len(ROWS), "a row belongs to one goal"
    assert [str(parse_goal(p)) for p in (*(row.pattern for row in ROWS), *PACKED_GOALS)] == [
        *(row.pattern for row in ROWS),
        *PACKED_GOALS,
    ]
    assert all((goal.speedup > 0) != (goal.of_macs > 0) for goal in GOALS)


def test_the_better_row_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse_goals, "GOALS", (Goal((SHARED, EACH), speedup=1.75),))
    reached = {SHARED: Reached(1.6, 2.0), EACH: Reached(1.8, 2.0)}
    for row in reached:
        verdict = judge(row, reached)
        assert verdict is not None and (verdict.goal, verdict.best, verdict.met) == (1.75, EACH, True)
    reached[EACH] = Reached(1.5, 2.0)
    verdict = judge(EACH, reached)
    assert verdict is not None and (verdict.best, verdict.met) == (SHARED, False)
    assert judge(Row("resnet50", "2:4"), reached) is None
    assert judge(SHARED, {}) is None, "nothing was timed"


def test_a_goal_may_be_a_share_of_the_mac_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    row = Row("mobilenet_v2", "block:8x8@75%")
    monkeypatch.setattr(sparse_goals, "GOALS", (Goal((row,), of_macs=0.8),))
    met = [judge(row, {row: Reached(speedup, 2.5)}) for speedup in (2.0, 1.99)]
    assert [(v.goal, v.met) for v in met if v] == [(2.0, True), (2.0, False)]
