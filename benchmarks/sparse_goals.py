"""What is pruned how, and the speed and size that the project aims at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sparsec.compiler.sparsity.text import parse_goal

DENSE = "dense"


@dataclass(frozen=True)
class Row:
    """A model (a name of models/, or the path of a .onnx file), a pattern as `sparsec prune` takes it, and what it spares.

    `spare` is the value of --spare; "" for its default.
    """

    model: str
    pattern: str
    spare: str = ""

    @property
    def pruned(self) -> bool:
        """Whether there is anything to prune."""
        return self.pattern != DENSE

    @property
    def name(self) -> str:
        """The model's name, whatever folder it is in."""
        return Path(self.model).stem if is_path(self.model) else self.model


@dataclass(frozen=True)
class Goal:
    """A speed-up over dense onnxruntime on one thread that the best of some rows reaches at least.

    `of_macs` instead of `speedup`: that share of the MAC ratio.
    """

    rows: tuple[Row, ...]
    speedup: float = 0.0
    of_macs: float = 0.0

    def wanted(self, mac_ratio: float) -> float:
        """The speed-up for a network that multiplies so many times less."""
        return self.speedup or self.of_macs * mac_ratio


@dataclass(frozen=True)
class Reached:
    """What one row did."""

    speedup: float
    mac_ratio: float


@dataclass(frozen=True)
class Verdict:
    """The goal for a row, and the row that it is judged on: the best of those that were measured."""

    goal: float
    best: Row
    met: bool


def _goal(model: str, *patterns: str, speedup: float = 0.0, of_macs: float = 0.0, spare: str = "") -> Goal:
    return Goal(tuple(Row(model, p, spare) for p in patterns), speedup, of_macs)


def _blocks(sparsity: int) -> tuple[str, str]:
    return f"block:8x8@{sparsity}%", f"block:8x8/taps=each@{sparsity}%"


GOALS = (
    _goal("resnet50", DENSE, speedup=1.15),
    _goal("resnet50", "2:4/rows=32", speedup=2.0),
    _goal("resnet50", "1:4/rows=32", speedup=3.6),
    _goal("resnet50", "block:32x1@50%", speedup=2.2),
    _goal("resnet50", "block:32x1@75%", speedup=4.0),
    _goal("resnet50", "2:4", speedup=1.3),
    _goal("resnet50", "1:4", speedup=2.1),
    _goal("resnet50", *_blocks(50), speedup=1.75),
    _goal("resnet50", *_blocks(75), speedup=3.0),
    _goal("resnet50", *_blocks(90), speedup=5.0),
    _goal("resnet50", "unstructured@90%", speedup=3.0),
    _goal("bert_base", "2:4/rows=32", "2:4/rows=4", speedup=2.2),
    _goal("bert_base", "1:4/rows=32", "1:4/rows=4", speedup=3.8),
    _goal("bert_base", "block:8x8@75%", speedup=3.8),
    _goal("bert_base", "block:8x8@90%", speedup=6.5),
    _goal("bert_base", "unstructured@90%", speedup=4.5),
    _goal("vgg19", DENSE, speedup=2.3),
    _goal("vgg19", "block:8x8@75%", of_macs=0.8, spare="classifier"),  # all its products but the last are to shrink
    _goal("densenet121", "block:8x8@75%", of_macs=0.8),
    _goal("mobilenet_v2", "block:8x8@75%", of_macs=0.8),  # depthwise layers are spared: the pointwise ones
)
ROWS = tuple(row for goal in GOALS for row in goal.rows)

# Largest share of the dense bytes that weights packed in their pattern's own form take.
PACKED_GOALS = {"2:4": 0.58, "2:4/rows=32": 0.53, "block:8x8@75%": 0.27}
# Most CPU seconds that pruning takes, the reading and writing of files included.
PRUNING_GOALS = {"resnet50": 10.0}


def is_path(model: str) -> bool:
    """Whether a model is given as a file."""
    return model.endswith(".onnx")


def parse_row(text: str, known: Iterable[str], spare: str = "") -> Row:
    """`MODEL:PATTERN`. ValueError when it is not, or when nothing is called so; UsageError for a pattern that is none.

    The pattern is spelled as `sparsec` prints it, so that it compares with those of the goals.
    """
    model, colon, pattern = text.partition(":")
    if not (model and colon and pattern):
        raise ValueError(f"{text!r} is not MODEL:PATTERN, as resnet50:2:4 or resnet50:block:8x8@75%")
    if is_path(model):
        if not Path(model).is_file():
            raise ValueError(f"there is no file {model}")
    elif model not in (names := tuple(known)):
        raise ValueError(f"no model is called {model}; there are {', '.join(names)}, and files that end in .onnx")
    spelled = str(parse_goal(pattern))
    return Row(model, spelled, spare if spelled != DENSE else "")


def judge(row: Row, reached: Mapping[Row, Reached]) -> Verdict | None:
    """The verdict on the goal that `row` belongs to, given all rows that were measured; None when it belongs to none."""
    goal = next((g for g in GOALS if row in g.rows), None)
    rows = [r for r in goal.rows if r in reached] if goal else []
    if goal is None or not rows:
        return None
    best = max(rows, key=lambda r: reached[r].speedup)
    wanted = goal.wanted(reached[best].mac_ratio)
    return Verdict(wanted, best, reached[best].speedup >= wanted)
