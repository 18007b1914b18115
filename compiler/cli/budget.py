"""The options of a budget that layers share, which `prune` and `compile` take alike, and how its outcome is shown."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated

import typer

from sparsec.compiler.cli.console import duration
from sparsec.compiler.errors import UsageError

if TYPE_CHECKING:
    from sparsec.compiler.pruning_report import BudgetReport, CheckReport
    from sparsec.passes.pruning.budget import Budget
    from sparsec.passes.pruning.calibrated.metric import Metric
    from sparsec.passes.pruning.calibrated.quality import Function

PANEL = "A budget for all layers"

LabelsOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|NAME",
        help="Labels of the samples in --calib, in their order: FILE.npy, .npz, .csv or .txt (class numbers), or an array in the "
        ".npz of --calib; its array `labels` by default.",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]


@dataclass(frozen=True)
class Budgeting:
    """A budget that layers share."""

    target_density: Annotated[
        float | None,
        typer.Option(
            metavar="D",
            help="Leave this share, 0 to 1, of what --density-of counts, shared out between layers so that the outputs on "
            "--calib change least: how much each keeps is searched for, in the place of what the pattern says.",
            show_default=False,
            rich_help_panel=PANEL,
        ),
    ] = None
    max_drop: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Find the smallest such share at which the loss by --metric is at most X (of accuracy: how much it falls, as "
            "0.01), and check the result with samples held out.",
            show_default=False,
            rich_help_panel=PANEL,
        ),
    ] = None
    density_of: Annotated[
        str | None,
        typer.Option(
            metavar="macs|weights|time",
            help="What the share is of: multiply-accumulates (default) or weights of the layers that are pruned, or the "
            "network's predicted time.",
            show_default=False,
            rich_help_panel=PANEL,
        ),
    ] = None
    metric: Annotated[
        str | None,
        typer.Option(
            metavar="kl|mse|cosine|accuracy|MODULE:FUNCTION",
            help="What that search compares models by: divergence of the softmax of their outputs (default), squared difference, "
            "angle, top-1 accuracy with --labels, or a Python function of (outputs, labels), the higher the better.",
            show_default=False,
            rich_help_panel=PANEL,
        ),
    ] = None
    labels: LabelsOption = None
    evaluations: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Prunings that the search tries; 30 by default.",
            show_default=False,
            rich_help_panel=PANEL,
        ),
    ] = None

    def budget(self, calib: Path | None, *, labelled: bool = False) -> Budget | None:
        """The budget that options ask for; None without one. UsageError for options of a budget that there is not, or cannot be.

        `labelled`: the labels have another use, too.
        """
        from sparsec.passes.pruning.budget import EVALUATIONS, Budget
        from sparsec.passes.pruning.calibrated.metric import Metric
        from sparsec.passes.pruning.strengths import Counted

        asked = "--target-density" if self.target_density is not None else "--max-drop" if self.max_drop is not None else ""
        given = {
            "density-of": self.density_of,
            "metric": self.metric,
            "labels": None if labelled else self.labels,
            "evaluations": self.evaluations,
        }
        if not asked and (unused := [option for option, value in given.items() if value is not None]):
            raise UsageError(f"--{unused[0]} says how a budget is shared out: give --target-density D or --max-drop X")
        if not asked:
            return None
        if calib is None:
            raise UsageError(f"{asked} compares pruned models by their outputs: give --calib DATA")
        if self.density_of is not None and self.density_of not in list(Counted):
            raise UsageError(f"--density-of {self.density_of!r} is not known: expected {', '.join(Counted)}")
        if self.max_drop is not None and self.metric is None:
            raise UsageError(
                "--max-drop bounds what --metric loses: give --metric accuracy with --labels FILE, or kl, mse, cosine"
            )
        compared_by = None if self.metric is None else _metric(self.metric)
        labels = None if compared_by is None or compared_by in (Metric.kl, Metric.mse, Metric.cosine) else self.labels
        if labels != self.labels and not labelled:
            raise UsageError("--labels are what accuracy is measured by: give --metric accuracy, or MODULE:FUNCTION")
        counted = Counted(self.density_of or Counted.macs)
        budget = Budget(self.target_density, self.max_drop, counted, compared_by, labels, self.evaluations or EVALUATIONS)
        budget.checked()
        return budget


def _metric(text: str) -> Metric | Function:
    """A metric's name, or a function's place."""
    from sparsec.passes.pruning.calibrated.metric import Metric

    if ":" in text:
        return _function(text)
    if text not in list(Metric):
        raise UsageError(f"--metric {text!r} is not known: expected {', '.join(Metric)}, or MODULE:FUNCTION")
    return Metric(text)


def _function(text: str) -> Function:
    """What MODULE:FUNCTION or FILE.py:FUNCTION names; modules are looked for in the working folder, too, but last."""
    where, _, name = text.rpartition(":")
    if not where or not name:
        raise UsageError(f"--metric {text!r} names no function: give MODULE:FUNCTION or FILE.py:FUNCTION")
    try:
        module = _file_module(Path(where)) if where.endswith(".py") else _module(where)
    except Exception as exc:
        raise UsageError(f"--metric {text!r}: cannot import {where!r}: {type(exc).__name__}: {exc}") from exc
    found: Function | None = getattr(module, name, None)
    if not callable(found):
        raise UsageError(f"--metric {text!r}: {where!r} has no function {name!r}")
    return found


def _module(name: str) -> ModuleType:
    folder = str(Path.cwd())
    sys.path.append(folder)
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(folder)


def _file_module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError(f"no file {str(path)!r}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def budget_lines(b: BudgetReport) -> list[str]:
    """What was found, in words."""
    what = f"{b.metric} loss" if b.dense is None else f"{b.metric} {b.dense:.4g} dense, drop"
    if b.us is not None and b.dense_us is not None:
        us, dense = (duration(t / 1e6) for t in (b.us, b.dense_us))
        left = f"{b.layers} layers share a budget of time: predicted {us} of {dense}, {100 * b.density:.1f} %"
    else:
        left = f"{b.layers} layers share {100 * b.density:.1f} % of their {b.counted}"
    lines = [
        f"{left} (target {100 * b.target:.4g} %): {what} {b.loss:.4g}, {b.uniform:.4g} with the same share in each; "
        f"{b.evaluations} prunings tried"
    ]
    return lines if b.check is None else [*lines, _checked(b.check, b)]


def _checked(check: CheckReport, b: BudgetReport) -> str:
    what = (
        f"{b.metric} loss {check.loss:.4g}"
        if check.dense is None
        else f"{b.metric} {check.dense:.4g} dense, drop {check.loss:.4g}"
    )
    error = "" if check.error is None else f" +-{check.error:.2g}"
    gave_way = f"; {check.refused} sparser ones lost more there" if check.refused else ""
    return (
        f"checked on {len(check.samples):,} samples held out from pruning and search (report: which): {what}{error}, "
        f"at most {b.max_drop:g} allowed{gave_way}"
    )
