"""How strongly a pattern can prune a layer: the amounts that a budget chooses from, and what each leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from sparsec.compiler.errors import UsageError
from sparsec.compiler.graph import Graph
from sparsec.compiler.sparsity import DENSE, NM, NMG, Block, HiNM
from sparsec.compiler.sparsity.text import Goal
from sparsec.compiler.sparsity.weights import LayerWeights, layer_weights
from sparsec.passes.pruning.prune import Pruned, layer_names, prune_graph, wanted_layers, with_weights
from sparsec.passes.pruning.recipe import LayerRule, Recipe

_DENSITIES = (0.875, 0.75, 0.625, 0.5, 0.4375, 0.375, 0.3125, 0.25, 0.1875, 0.125, 0.0625)


class Counted(StrEnum):
    """What a density is a share of."""

    macs = "macs"
    weights = "weights"
    time = "time"


Predict = Callable[[Graph], Sequence[tuple[tuple[str, ...], float]]]
"""A target's cost model: of a graph as imported, the ONNX nodes of each compiled layer, and its predicted microseconds."""


@dataclass(frozen=True, slots=True)
class Strength:
    """A goal for a layer and the share that it leaves of what is counted: weights and multiply-accumulates alike, or time."""

    goal: Goal
    density: float


@dataclass(frozen=True, slots=True)
class Adjustable:
    """A layer that shares the budget.

    `name` finds it alone, `size` is what it takes when dense (time in microseconds), `left` the share that the recipe itself
    leaves; strengths begin with dense.
    """

    name: str
    size: float
    left: float
    strengths: tuple[Strength, ...]


def strengths(asked: Goal, *more: float) -> list[Goal]:
    """The goals of a pattern's kind from dense to sparsest: every n of n:m (of weights or of blocks), otherwise a scale of shares
    with `asked` in it.

    `more` are further densities for the scale.

    UsageError for a pattern that has one strength.
    """
    pattern = asked.pattern
    if isinstance(pattern, NM | NMG) or (isinstance(pattern, Block) and pattern.m_group):
        fewer = [replace(pattern, n_keep=n) for n in range(pattern.m_group - 1, 0, -1)]
        return [Goal(DENSE, 0.0), *(Goal(p, 1 - p.n_keep / p.m_group) for p in fewer)]
    if pattern == DENSE:
        raise UsageError("the pattern dense has no strengths to choose from: give one such as 2:4 or block:8x8@50%")
    most = pattern.n_keep / pattern.m_group if isinstance(pattern, HiNM) else 1.0
    densities = sorted({*_DENSITIES, *(round(d, 6) for d in (1 - asked.sparsity, *more))} - {0.0, 1.0}, reverse=True)
    return [Goal(DENSE, 0.0), *(Goal(pattern, 1 - d) for d in densities if d <= most + 1e-9)]


@dataclass(frozen=True, slots=True)
class Sharing:
    """The layers that share a budget, and what else counts and never gets less (of a budget of time: all other layers)."""

    layers: tuple[Adjustable, ...]
    rest: float = 0.0


def sharing(
    graph: Graph,
    recipe: Recipe,
    target: float | None,
    counted: Counted,
    fixed: Callable[[str], str] = lambda _: "",
    predict: Predict | None = None,
) -> Sharing:
    """The layers that `recipe` prunes, each with what its pattern can leave of it (strengths that leave no less are left out).

    Times are those that `predict` gives when all layers are pruned alike. UsageError where there are no such layers, or time is
    counted and `predict` is None, and what `prune_graph` raises.
    """
    wanted = wanted_layers(graph, recipe, fixed)
    if not wanted:
        raise UsageError("there is nothing to share a budget: the recipe prunes no layer of this model")
    layers = {layer.value: layer for layer in layer_weights(graph)}
    names = _own_names(layers)
    if clash := [v for v in wanted if v not in names]:
        raise UsageError(f"layer {layer_names(layers[clash[0]])[0]!r} shares all its names with others: rename its ONNX node")
    more = () if target is None else (target,)
    ladders = {value: strengths(found.goal, *more) for value, found in wanted.items()}
    measure = _Measure.of(graph, {v: layers[v] for v in wanted}, counted, predict)
    own = measure.shares(prune_graph(graph, recipe, fixed))
    found: dict[str, list[Strength]] = {value: [Strength(ladder[0], 1.0)] for value, ladder in ladders.items()}
    for i in range(1, max(map(len, ladders.values()))):
        asked = {value: ladder[i] for value, ladder in ladders.items() if i < len(ladder)}
        tried = prune_graph(graph, with_goals(recipe, graph, {names[v]: g for v, g in asked.items()}), fixed)
        for value, density in measure.shares(tried).items():
            if value in asked and value in tried.weights and density < found[value][-1].density - measure.step:
                found[value].append(Strength(asked[value], density))
    sizes = measure.sizes
    if counted is Counted.time and all(len(s) == 1 for s in found.values()):
        raise UsageError(
            "no layer that the recipe prunes is predicted to be faster for it, however sparse: `sparsec explain` says why"
        )
    return Sharing(tuple(Adjustable(names[v], sizes[v], own[v], tuple(s)) for v, s in found.items() if sizes[v]), measure.rest)


@dataclass(frozen=True)
class _Measure:
    """What layers take, by the names of their weights, and what the rest of the network does."""

    graph: Graph
    layers: Mapping[str, LayerWeights]
    sizes: Mapping[str, float]
    rest: float
    predict: Predict | None

    @property
    def step(self) -> float:
        """What a strength must leave less than the one before: predictions of time that differ by less do not say anything."""
        return 1e-9 if self.predict is None else 0.005

    @staticmethod
    def of(graph: Graph, layers: Mapping[str, LayerWeights], counted: Counted, predict: Predict | None) -> _Measure:
        if counted is Counted.weights:
            return _Measure(graph, layers, {v: graph.constants[v].size for v in layers}, 0.0, None)
        if counted is Counted.macs:
            macs = {v: sum(n.op.macs(graph.in_types(n)) for n in layer.nodes) for v, layer in layers.items()}
            return _Measure(graph, layers, macs, 0.0, None)
        if predict is None:
            raise UsageError("a budget of time takes a cost model: use sparsec.prune or sparsec.compile, which have the target's")
        times = predict(graph)
        sizes = _times(layers, times)
        return _Measure(graph, layers, sizes, sum(us for _, us in times) - sum(sizes.values()), predict)

    def shares(self, pruned: Pruned) -> dict[str, float]:
        """What is left of each layer."""
        if self.predict is None:
            return {r.weights: r.kept / max(r.elements, 1) for r in pruned.report.layers if r.weights in self.layers}
        times = _times(self.layers, self.predict(with_weights(self.graph, pruned)))
        return {value: us / self.sizes[value] if self.sizes[value] else 1.0 for value, us in times.items()}


def _times(layers: Mapping[str, LayerWeights], times: Sequence[tuple[tuple[str, ...], float]]) -> dict[str, float]:
    """Microseconds by the name of the weights; what several layers are compiled into is theirs in equal parts."""
    owner = {name: value for value, layer in layers.items() for name in layer_names(layer)}
    found = dict.fromkeys(layers, 0.0)
    for origin, us in times:
        owners = {owner[name] for name in origin if name in owner}
        for value in owners:
            found[value] += us / len(owners)
    return found


def with_goals(recipe: Recipe, graph: Graph, goals: Mapping[str, Goal]) -> Recipe:
    """The recipe with a goal for each layer named in `goals`, which wins over its rules."""
    theirs = {n for layer in layer_weights(graph) if (names := set(layer_names(layer))) & goals.keys() for n in names}
    rules = [LayerRule(match=name, pattern=goal) for name, goal in goals.items()]
    return recipe.model_copy(update={"layer": (*rules, *(r for r in recipe.layer if r.match not in theirs))})


def _own_names(layers: Mapping[str, LayerWeights]) -> dict[str, str]:
    """A name that no other layer has, by the name of the weights."""
    owners: dict[str, set[str]] = {}
    for value, layer in layers.items():
        for name in layer_names(layer):
            owners.setdefault(name, set()).add(value)
    own = {value: [n for n in layer_names(layer) if len(owners[n]) == 1] for value, layer in layers.items()}
    return {value: names[0] for value, names in own.items() if names}
