"""How strongly a pattern can prune a layer: the amounts that a budget chooses from, and what each leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from sparsec.compiler.errors import UsageError
from sparsec.compiler.graph import Graph
from sparsec.compiler.sparsity import DENSE, NM, NMG, HiNM
from sparsec.compiler.sparsity.text import Goal
from sparsec.compiler.sparsity.weights import LayerWeights, layer_weights
from sparsec.passes.pruning.prune import layer_names, prune_graph, wanted_layers
from sparsec.passes.pruning.recipe import LayerRule, Recipe

_DENSITIES = (0.875, 0.75, 0.625, 0.5, 0.4375, 0.375, 0.3125, 0.25, 0.1875, 0.125, 0.0625)


class Counted(StrEnum):
    """What a density is a share of."""

    macs = "macs"
    weights = "weights"


@dataclass(frozen=True, slots=True)
class Strength:
    """A goal for a layer and the share of its weights that it leaves."""

    goal: Goal
    density: float


@dataclass(frozen=True, slots=True)
class Adjustable:
    """A layer that shares the budget.

    `name` finds it alone, `size` is what it takes when dense, `left` the share that the recipe itself leaves; strengths begin
    with dense.
    """

    name: str
    size: int
    left: float
    strengths: tuple[Strength, ...]


def strengths(asked: Goal, *more: float) -> list[Goal]:
    """The goals of a pattern's kind from dense to sparsest: every n of n:m, otherwise a scale of shares with `asked` in it.

    `more` are further densities for the scale.

    UsageError for a pattern that has one strength.
    """
    pattern = asked.pattern
    if isinstance(pattern, NM | NMG):
        fewer = [replace(pattern, n_keep=n) for n in range(pattern.m_group - 1, 0, -1)]
        return [Goal(DENSE, 0.0), *(Goal(p, 1 - p.n_keep / p.m_group) for p in fewer)]
    if pattern == DENSE:
        raise UsageError("the pattern dense has no strengths to choose from: give one such as 2:4 or block:8x8@50%")
    most = pattern.n_keep / pattern.m_group if isinstance(pattern, HiNM) else 1.0
    densities = sorted({*_DENSITIES, *(round(d, 6) for d in (1 - asked.sparsity, *more))} - {0.0, 1.0}, reverse=True)
    return [Goal(DENSE, 0.0), *(Goal(pattern, 1 - d) for d in densities if d <= most + 1e-9)]


def adjustable_layers(
    graph: Graph, recipe: Recipe, target: float | None, counted: Counted, fixed: Callable[[str], str] = lambda _: ""
) -> list[Adjustable]:
    """The layers that `recipe` prunes, each with what its pattern can leave of it (strengths that leave the same appear once).

    UsageError where there are none, and what `prune_graph` raises.
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
    own = {r.weights: r.kept / max(r.elements, 1) for r in prune_graph(graph, recipe, fixed).report.layers}
    found: dict[str, list[Strength]] = {value: [Strength(ladder[0], 1.0)] for value, ladder in ladders.items()}
    for i in range(1, max(map(len, ladders.values()))):
        asked = {value: ladder[i] for value, ladder in ladders.items() if i < len(ladder)}
        tried = prune_graph(graph, with_goals(recipe, graph, {names[v]: g for v, g in asked.items()}), fixed)
        for report in tried.report.layers:
            density = report.kept / max(report.elements, 1)
            if report.weights in asked and report.status == "pruned" and density < found[report.weights][-1].density:
                found[report.weights].append(Strength(asked[report.weights], density))
    sizes = {v: graph.constants[v].size for v in wanted}
    if counted is Counted.macs:
        sizes = {v: sum(n.op.macs(graph.in_types(n)) for n in layers[v].nodes) for v in wanted}
    return [Adjustable(names[v], sizes[v], own[v], tuple(s)) for v, s in found.items() if sizes[v]]


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
