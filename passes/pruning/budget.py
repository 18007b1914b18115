"""Share a budget of multiply-accumulates or weights out between layers, so that the pruned model stays close to the dense one.

The loss is measured on the whole pruned network, on samples that it was not pruned with, because what layers lose one at a time
does not add up at high sparsity.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx

from sparsec.compiler.errors import UsageError
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.limits import Limits
from sparsec.compiler.pruning_report import BudgetReport
from sparsec.passes.permutation.search.api import Method
from sparsec.passes.pruning.calibrated.data import Samples, Source, model_inputs, read_samples
from sparsec.passes.pruning.calibrated.metric import Distance, Metric, held_out
from sparsec.passes.pruning.calibrated.reconstruct import Settings
from sparsec.passes.pruning.model import Model, editor_of, prune
from sparsec.passes.pruning.recipe import Recipe, make_recipe
from sparsec.passes.pruning.strengths import Adjustable, Counted, adjustable_layers, with_goals

EVALUATIONS = 30
_FIT, _MEASURE = 300, 500  # samples that a trial prunes with, and that it is measured by
_ROWS = 10_000  # of a layer's inputs that a trial fits
_ATTEMPTS = 300  # at two exchanges that lead to something new
_BATCH = 25  # small, so that few samples divide

State = tuple[int, ...]  # of every layer, which of its strengths


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
    weights, in the place of the amounts that the recipe's patterns give; None: as many as these leave. Every trial prunes the
    model as `prune` does, with some of `data` and without permuting channels, and is measured by `metric` on others; `settings`
    are as for `prune`, with at most 10,000 rows. Deterministic under the recipe's seed. Pass the result's recipe to `prune`,
    with all of the data. UsageError for a density out of reach or data that does not divide; raises what `prune` raises.
    """
    say = progress or (lambda _: None)
    wanted = make_recipe({"pattern": recipe}) if isinstance(recipe, str) else recipe
    if density is not None and not 0 < density <= 1:
        raise UsageError(f"the target density is {density:g}: give a share above 0 and up to 1, as 0.5")
    if evaluations < 1:
        raise UsageError(f"{evaluations} evaluations are too few: give 1 or more")
    if wanted.steps > 1:
        raise UsageError(f"a budget is met at once, and the recipe takes {wanted.steps} steps: give steps 1")
    say("budget: what patterns leave")
    editor = editor_of(model)
    dense = editor.embedded()
    samples = read_samples(data, model_inputs(dense), _BATCH)
    shapes = input_shapes or ({} if dims else samples.shapes())
    graph = import_model(dense, dims=dims or {}, input_shapes=shapes, limits=limits or Limits())
    layers = adjustable_layers(graph, wanted, density, counted, editor.blocked)

    def with_state(state: State) -> Recipe:
        goals = {layer.name: layer.strengths[i].goal for layer, i in zip(layers, state, strict=True)}
        return with_goals(wanted, graph, goals)

    given = settings or Settings.of(wanted)
    trials = _Trials(dense, samples, metric, wanted.seed, replace(given, rows=min(given.rows, _ROWS)), shapes, dims or {})
    share = Shares(layers, density)
    start = share.uniform()

    def loss(state: State) -> float:
        return trials.loss(with_state(state).model_copy(update={"permute": Method.none}))

    found = search(share, start, loss, evaluations, wanted.seed, say)
    report = BudgetReport(
        counted=counted.value,
        target=share.target,
        density=share.density(found.state),
        metric=metric.value,
        uniform=found.first,
        loss=found.loss,
        evaluations=found.evaluations,
        layers=len(layers),
    )
    return Budget(with_state(found.state), report)


class _Trials:
    """Prunes on some samples and measures on others."""

    def __init__(
        self,
        dense: onnx.ModelProto,
        samples: Samples,
        metric: Metric,
        seed: int,
        settings: Settings,
        shapes: Mapping[str, Sequence[int]],
        dims: Mapping[str, int],
    ) -> None:
        self._dense, self._settings, self._shapes, self._dims = dense, settings, shapes, dims
        self._fit, measured = held_out(samples, _FIT, _MEASURE, seed)
        self._distance = Distance(dense, measured, metric, settings.threads)

    def loss(self, recipe: Recipe) -> float:
        """Of the model pruned so."""
        pruned = prune(self._dense, recipe, data=self._fit, settings=self._settings, dims=self._dims, input_shapes=self._shapes)
        return self._distance.of(pruned.proto)


class Shares:
    """What states of the layers leave of their sizes, and exchanges between them that keep within a budget."""

    def __init__(self, layers: Sequence[Adjustable], target: float | None) -> None:
        """`target` None: what the recipe leaves. UsageError when the sparsest state is above it."""
        self.layers = layers
        total = sum(layer.size for layer in layers) or 1
        self._cost = [[layer.size * s.density / total for s in layer.strengths] for layer in layers]
        left = sum(layer.size * layer.left / total for layer in layers)
        self._wanted = [layer.left if target is None else target for layer in layers]
        self.target = left if target is None else target
        self._limit = self.target + 1e-6
        if (least := sum(c[-1] for c in self._cost)) > self._limit:
            raise UsageError(
                f"a target density of {self.target:g} cannot be reached: the strongest patterns leave {least:.4f} of "
                f"what the {len(layers)} layers that share it take, give that or more"
            )

    def density(self, state: State) -> float:
        """The share that is left."""
        return sum(c[i] for c, i in zip(self._cost, state, strict=True))

    def uniform(self) -> State:
        """The target in every layer, as nearly as its strengths allow; what is left over goes to the sparsest."""
        levels = [
            next((i for i, s in enumerate(layer.strengths) if s.density <= wanted + 1e-6), len(layer.strengths) - 1)
            for layer, wanted in zip(self.layers, self._wanted, strict=True)
        ]
        while self.density(tuple(levels)) > self._limit:
            lower = [k for k, layer in enumerate(self.layers) if levels[k] + 1 < len(layer.strengths)]
            levels[max(lower, key=lambda k: (self.layers[k].strengths[levels[k]].density, self.layers[k].size))] += 1
        order = sorted(range(len(levels)), key=lambda k: self.layers[k].strengths[levels[k]].density)
        return self._raised(levels, order)

    def exchange(self, state: State, giver: int, taker: int, steps: int, others: Sequence[int]) -> State | None:
        """`giver` gets sparser, by `steps` or more, until `taker` can get denser, which takes all it can; None if it never can.

        What the taker leaves goes to `others`, in their order.
        """
        levels = list(state)
        for _ in range(len(self._cost[giver])):
            levels[giver] += steps
            if levels[giver] >= len(self._cost[giver]):
                return None
            raised = self._raised(levels, [taker])
            if raised[taker] < state[taker]:
                return self._raised(list(raised), [k for k in others if k not in (giver, taker)])
            steps = 1
        return None

    def _raised(self, levels: Sequence[int], order: Sequence[int]) -> State:
        """Denser in the order given, as far as the budget allows."""
        found = list(levels)
        room = self._limit - self.density(tuple(found))
        for k in order:
            while found[k] and (more := self._cost[k][found[k] - 1] - self._cost[k][found[k]]) <= room:
                found[k] -= 1
                room -= more
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Found:
    """The best state of a search, its loss, that of the first state, and how many were tried."""

    state: State
    loss: float
    first: float
    evaluations: int


def search(
    share: Shares, start: State, loss: Callable[[State], float], evaluations: int, seed: int, say: Callable[[str], None]
) -> Found:
    """Hill climbing: exchanges between two layers, kept when the loss falls.

    What helps is done again; the opposite of what hurts comes next; otherwise pairs come at random, in larger steps for the first
    half. It ends when nothing new can be tried.
    """
    rng: np.random.Generator = np.random.default_rng(seed)
    say(f"budget: 1 of up to {evaluations}")
    best = first = loss(start)
    state, tried, count = start, {start}, 1
    urgent: list[tuple[int, int]] = []
    while count < evaluations:
        steps = 2 if count < evaluations // 2 else 1
        move = _next(share, state, urgent, tried, steps, rng)
        if move is None:
            break
        pair, candidate = move
        tried.add(candidate)
        count += 1
        say(f"budget: {count} of up to {evaluations}, loss {best:.4g}")
        value = loss(candidate)
        if value < best:
            best, state, urgent = value, candidate, [pair]
        else:
            urgent = [(pair[1], pair[0])]
    return Found(state, best, first, count)


def _next(
    share: Shares, state: State, urgent: Sequence[tuple[int, int]], tried: set[State], steps: int, rng: np.random.Generator
) -> tuple[tuple[int, int], State] | None:
    """The next pair and the state that it leads to, not tried before; None when there is none."""
    n = len(state)
    pairs: list[tuple[int, int]] = [(a, b) for a in range(n) for b in range(n) if a != b]
    order: list[Any] = [*urgent, *(pairs[i] for i in rng.permutation(len(pairs)))]
    others = [int(i) for i in rng.permutation(n)]
    for step in sorted({steps, 1}, reverse=True):
        for giver, taker in order:
            found = share.exchange(state, giver, taker, step, others)
            if found is not None and found not in tried:
                return (giver, taker), found
    return _two_givers(share, state, pairs, tried, rng)


def _two_givers(
    share: Shares, state: State, pairs: Sequence[tuple[int, int]], tried: set[State], rng: np.random.Generator
) -> tuple[tuple[int, int], State] | None:
    """Two exchanges at once, where none alone is new."""
    for _ in range(_ATTEMPTS if pairs else 0):
        first, second = (pairs[i] for i in rng.integers(len(pairs), size=2))
        between = share.exchange(state, *first, 1, ())
        found = between and share.exchange(between, *second, 1, [int(i) for i in rng.permutation(len(state))])
        if found and found not in tried:
            return second, found
    return None
