"""Prune within a budget: share it out between layers, so that the pruned model stays close to the dense one.

The loss is measured on the whole pruned network, on samples that it was not pruned with, because what layers lose one at a time
does not add up at high sparsity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx

from sparsec.compiler.errors import UsageError
from sparsec.compiler.graph import Graph
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.limits import Limits
from sparsec.compiler.pruning_report import BudgetReport, CheckReport
from sparsec.passes.permutation.search.api import Method
from sparsec.passes.pruning.budget import Budget, Rules
from sparsec.passes.pruning.calibrated.data import Input, Samples, Source, model_inputs, read_samples
from sparsec.passes.pruning.calibrated.labels import read_labels
from sparsec.passes.pruning.calibrated.metric import Judge, Loss, Metric
from sparsec.passes.pruning.calibrated.parts import Part, divide
from sparsec.passes.pruning.calibrated.quality import make_judge, metric_name
from sparsec.passes.pruning.calibrated.reconstruct import Settings
from sparsec.passes.pruning.exchange import Found, Shares, State, search, sparsest
from sparsec.passes.pruning.model import Model, PrunedModel, editor_of, prune
from sparsec.passes.pruning.recipe import Recipe, make_recipe
from sparsec.passes.pruning.strengths import Counted, Predict, Sharing, sharing, with_goals
from sparsec.passes.pruning.trials import Trials

Array = np.ndarray[Any, Any]
_FIT, _MEASURE, _CHECK = 300, 500, 2000  # samples to prune a trial with, to measure it by, and to check the result with
_MEASURE_QUALITY = 1000  # to measure accuracy and functions by, which are coarser
_ROWS = 10_000  # of a layer's inputs that a trial fits
_BATCHES, _FEW = (25, 5, 1), 12  # samples in a batch: smaller ones where batches would be fewer than this
_MORE = 3  # budgets that are tried where all that the search has found lose too much
_ROUNDING = 1e-9  # relative, of differences of a metric


def prune_within(
    model: Model,
    recipe: Recipe | str,
    data: Source,
    budget: Budget,
    *,
    predict: Predict | None = None,
    settings: Settings | None = None,
    dims: Mapping[str, int] | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    limits: Limits | None = None,
    progress: Callable[[str], None] | None = None,
) -> PrunedModel:
    """Prune `model` so that what layers keep of the patterns in `recipe` meets the budget with little loss.

    Every trial prunes the model as `prune` does, with some of `data`, at most 10,000 rows a layer and without permuting channels,
    and is measured by the metric on others. The result is pruned with all of the data; where the loss is bounded, with all but
    samples that it is checked with then: a budget whose result loses more there gives way to the next larger one. Deterministic
    under the recipe's seed. `predict` is the cost model that a budget of time counts by; the rest is as for `prune`. UsageError
    for a budget out of reach, and data or labels that do not fit; raises what `prune` raises.
    """
    say = progress or (lambda _: None)
    wanted = make_recipe({"pattern": recipe}) if isinstance(recipe, str) else recipe
    rules = budget.checked()
    if wanted.steps > 1:
        raise UsageError(f"a budget is met at once, and the recipe takes {wanted.steps} steps: give steps 1")
    say("budget: what patterns leave")
    editor = editor_of(model)
    dense = editor.embedded()
    inputs = model_inputs(dense)
    samples = _batches(data, inputs)
    labelled = budget.labels is not None or rules.metric is Metric.accuracy
    labels = read_labels(budget.labels, data, sum(samples.sizes())) if labelled else None
    shapes = input_shapes or ({} if dims else read_samples(samples.batches[:1], inputs, 1).shapes())  # of one sample
    bound = _Bound(dims or {}, shapes, limits or Limits())
    graph = import_model(dense, dims=bound.dims, input_shapes=bound.shapes, limits=bound.limits)
    shared = sharing(graph, wanted, budget.density, rules.counted, editor.blocked, predict)
    task = _Task(dense, graph, wanted, budget, rules, shared, samples, labels, settings or Settings.of(wanted), bound, say)
    done, report = _for_density(task) if budget.max_drop is None else _for_drop(task, budget.max_drop)
    if rules.counted is Counted.time and predict is not None:
        us, dense_us = (sum(t for _, t in predict(g)) for g in (done.graph, graph))
        report = report.model_copy(update={"us": us, "dense_us": dense_us, "density": us / dense_us})
    return replace(done, report=done.report.model_copy(update={"budget": report}))


@dataclass(frozen=True)
class _Bound:
    """How a model is imported."""

    dims: Mapping[str, int]
    shapes: Mapping[str, Sequence[int]]
    limits: Limits


@dataclass(frozen=True)
class _Task:
    """A model, what is asked of it, and the data."""

    dense: onnx.ModelProto
    graph: Graph
    recipe: Recipe
    budget: Budget
    rules: Rules
    shared: Sharing
    samples: Samples
    labels: Array | None
    settings: Settings
    bound: _Bound
    say: Callable[[str], None]

    def with_state(self, state: State) -> Recipe:
        """The recipe with a goal for each of the layers."""
        chosen = {layer.name: layer.strengths[i].goal for layer, i in zip(self.shared.layers, state, strict=True)}
        return with_goals(self.recipe, self.graph, chosen)

    def judge(self, part: Part) -> Judge:
        """Compares models on a part of the samples."""
        return make_judge(self.dense, part, self.rules.metric, self.labels, self.settings.threads)

    def loss(self, fit: Part, judge: Judge) -> Callable[[State], Loss]:
        """What a state loses that is pruned with the first of `fit`."""
        quick = replace(self.settings, rows=min(self.settings.rows, _ROWS))
        trials = Trials(self.dense, self.graph, fit.first(_FIT).samples, quick)

        def loss(state: State) -> Loss:
            trial = self.with_state(state).model_copy(update={"permute": Method.none})
            return judge.of(trials.prune(trial))

        return loss

    def prune(self, state: State, samples: Samples) -> PrunedModel:
        """The model pruned in earnest."""
        return prune(
            self.dense,
            self.with_state(state),
            data=samples,
            settings=self.settings,
            dims=self.bound.dims,
            input_shapes=self.bound.shapes,
            limits=self.bound.limits,
            progress=self.say,
        )

    @property
    def measured(self) -> int:
        """How many samples trials are measured by."""
        coarse = self.rules.metric is Metric.accuracy or not isinstance(self.rules.metric, Metric)
        return _MEASURE_QUALITY if coarse else _MEASURE

    def report(self, share: Shares, found: Found, evaluations: int, judge: Judge, check: CheckReport | None) -> BudgetReport:
        """On what was found."""
        return BudgetReport(
            counted=self.rules.counted.value,
            target=share.target,
            density=share.density(found.state),
            metric=metric_name(self.rules.metric),
            dense=judge.dense,
            max_drop=self.budget.max_drop,
            uniform=found.first.value,
            loss=found.loss.value,
            evaluations=evaluations,
            layers=len(self.shared.layers),
            check=check,
        )


def _for_density(task: _Task) -> tuple[PrunedModel, BudgetReport]:
    """The least loss at a given share."""
    share = Shares(task.shared.layers, task.budget.density, task.shared.rest)
    fit, measured = divide(task.samples, (None, task.measured), task.recipe.seed)
    judge = task.judge(measured)
    loss = task.loss(fit, judge)
    found = search(share, share.uniform(), loss, task.budget.evaluations, task.recipe.seed, task.say)
    return task.prune(found.state, task.samples), task.report(share, found, found.evaluations, judge, None)


def _for_drop(task: _Task, allowed: float) -> tuple[PrunedModel, BudgetReport]:
    """The least share at a given loss, which samples confirm that neither the search nor the pruning has seen."""
    allowed *= 1 + _ROUNDING
    fit, measured, held_out = divide(task.samples, (None, task.measured, _CHECK), task.recipe.seed)
    judge, final = task.judge(measured), task.judge(held_out)
    loss = task.loss(fit, judge)
    within, tried = sparsest(
        task.shared.layers, task.shared.rest, loss, allowed, task.budget.evaluations, task.recipe.seed, task.say
    )
    rest = Part(task.samples, (*fit.batches, *measured.batches)).samples
    losses: list[float] = []
    for share, found in _ever_denser(task, within, loss):
        done = task.prune(found.state, rest)
        task.say("budget: check")
        checked = final.of(done.proto)
        losses.append(checked.value)
        if checked.value <= allowed:
            numbers = tuple(sorted(map(int, held_out.numbers)))
            check = CheckReport(
                samples=numbers, dense=final.dense, loss=checked.value, error=checked.error, refused=len(losses) - 1
            )
            even = share.uniform()
            first = found.loss if found.state == even else loss(even)  # searches begin elsewhere
            return done, task.report(share, replace(found, first=first), tried, judge, check)
    raise UsageError(
        f"no pruned model keeps the loss within {allowed:g} on the {len(held_out.numbers):,} samples held out to check it, the "
        f"lowest is {min(losses):.4g}: allow more, give more samples, or prune fewer layers"
    )


def _ever_denser(
    task: _Task, within: list[tuple[Shares, Found]], loss: Callable[[State], Loss]
) -> Iterator[tuple[Shares, Found]]:
    """What a search has found, the sparsest first, then equal shares of budgets halfway to dense."""
    yield from reversed(within)
    target = within[0][0].target
    for _ in range(_MORE):
        target = (1 + target) / 2
        share = Shares(task.shared.layers, target, task.shared.rest)
        yield share, search(share, share.uniform(), loss, 1, task.recipe.seed, task.say)


def _batches(data: Source, inputs: tuple[Input, ...]) -> Samples:
    """The data in batches small enough that few samples divide."""
    samples = read_samples(data, inputs, _BATCHES[0])
    for size in _BATCHES[1:]:
        if len(samples) < _FEW:
            samples = read_samples(samples, inputs, size)
    return samples
