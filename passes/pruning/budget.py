"""Share a budget of multiply-accumulates or weights out between layers, so that the pruned model stays close to the dense one.

The loss is measured on the whole pruned network, on samples that it was not pruned with, because what layers lose one at a time
does not add up at high sparsity.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from sparsec.compiler.errors import UsageError
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.limits import Limits
from sparsec.compiler.pruning_report import BudgetReport
from sparsec.passes.permutation.search.api import Method
from sparsec.passes.pruning.calibrated.data import Source, model_inputs, read_samples
from sparsec.passes.pruning.calibrated.metric import Distance, Metric, held_out
from sparsec.passes.pruning.calibrated.reconstruct import Settings
from sparsec.passes.pruning.exchange import Found, Shares, State, search, sparsest
from sparsec.passes.pruning.model import Model, editor_of, prune
from sparsec.passes.pruning.recipe import Recipe, make_recipe
from sparsec.passes.pruning.strengths import Counted, adjustable_layers, with_goals

EVALUATIONS = 30
_FIT, _MEASURE = 300, 500  # samples that a trial prunes with, and that it is measured by
_ROWS = 10_000  # of a layer's inputs that a trial fits
_BATCH = 25  # small, so that few samples divide


@dataclass(frozen=True, slots=True)
class Budget:
    """A recipe with a rule for each layer that shares the budget, and how it was found."""

    recipe: Recipe
    report: BudgetReport


def budget(
    model: Model,
    recipe: Recipe | str,
    data: Source,
    density: float | None = None,
    *,
    max_drop: float | None = None,
    counted: Counted = Counted.macs,
    metric: Metric = Metric.kl,
    evaluations: int = EVALUATIONS,
    settings: Settings | None = None,
    dims: Mapping[str, int] | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    limits: Limits | None = None,
    progress: Callable[[str], None] | None = None,
) -> Budget:
    """How much each layer of `model` should keep of the patterns in `recipe`, so that `density` remains of what is `counted`.

    The layers that the recipe prunes share the budget; `density` (0 to 1) is the share of their multiply-accumulates, or
    weights, in the place of the amounts that the recipe's patterns give; None: as many as these leave. With `max_drop` it is the
    smallest share at which the loss by `metric` is no larger. Every trial prunes the model as `prune` does, with some of `data`
    and without permuting channels, and is measured by `metric` on others; `settings` are as for `prune`, with at most 10,000
    rows. Deterministic under the recipe's seed. Pass the result's recipe to `prune`, with all of the data. UsageError for a
    budget out of reach or data that does not divide; raises what `prune` raises.
    """
    say = progress or (lambda _: None)
    wanted = make_recipe({"pattern": recipe}) if isinstance(recipe, str) else recipe
    _check(wanted, density, max_drop, evaluations)
    say("budget: what patterns leave")
    editor = editor_of(model)
    dense = editor.embedded()
    samples = read_samples(data, model_inputs(dense), _BATCH)
    shapes = input_shapes or ({} if dims else samples.shapes())
    bound = limits or Limits()
    graph = import_model(dense, dims=dims or {}, input_shapes=shapes, limits=bound)
    layers = adjustable_layers(graph, wanted, density, counted, editor.blocked)

    def with_state(state: State) -> Recipe:
        goals = {layer.name: layer.strengths[i].goal for layer, i in zip(layers, state, strict=True)}
        return with_goals(wanted, graph, goals)

    given = settings or Settings.of(wanted)
    fit, measured = held_out(samples, _FIT, _MEASURE, wanted.seed)
    distance = Distance(dense, measured, metric, given.threads)
    quick = replace(given, rows=min(given.rows, _ROWS))

    def loss(state: State) -> float:
        trial = with_state(state).model_copy(update={"permute": Method.none})
        pruned = prune(dense, trial, data=fit, settings=quick, dims=dims, input_shapes=shapes, limits=bound)
        return distance.of(pruned.proto)

    if max_drop is not None:
        share, found = sparsest(layers, loss, max_drop, evaluations, wanted.seed, say)
    else:
        share = Shares(layers, density)
        found = search(share, share.uniform(), loss, evaluations, wanted.seed, say)
    return Budget(with_state(found.state), _report(share, found, counted, metric))


def _report(share: Shares, found: Found, counted: Counted, metric: Metric) -> BudgetReport:
    return BudgetReport(
        counted=counted.value,
        target=share.target,
        density=share.density(found.state),
        metric=metric.value,
        uniform=found.first,
        loss=found.loss,
        evaluations=found.evaluations,
        layers=len(share.layers),
    )


def _check(recipe: Recipe, density: float | None, max_drop: float | None, evaluations: int) -> None:
    """UsageError for a budget that cannot be."""
    if density is not None and max_drop is not None:
        raise UsageError("a target density and a largest drop ask for two budgets: give one of them")
    if density is not None and not 0 < density <= 1:
        raise UsageError(f"the target density is {density:g}: give a share above 0 and up to 1, as 0.5")
    if max_drop is not None and not max_drop > 0:
        raise UsageError(f"the largest drop is {max_drop:g}: give a loss above 0 by the metric, as 0.01")
    if evaluations < 1:
        raise UsageError(f"{evaluations} evaluations are too few: give 1 or more")
    if recipe.steps > 1:
        raise UsageError(f"a budget is met at once, and the recipe takes {recipe.steps} steps: give steps 1")
