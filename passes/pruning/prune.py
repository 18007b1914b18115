"""Prune the weights of an imported graph by a recipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sparsec.compiler.errors import ModelError
from sparsec.compiler.graph import Graph
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.pruning_report import LayerReport, PruneReport, Status
from sparsec.compiler.sparsity import DENSE, NM, NMG, Block, HiNM, Sparsity
from sparsec.compiler.sparsity.text import Goal, implied_sparsity
from sparsec.compiler.sparsity.weights import LayerWeights, filter_shape, layer_weights
from sparsec.passes.permutation.search.api import Method
from sparsec.passes.permutation.search.tiles import choose_with_lists
from sparsec.passes.pruning.masks import Choice, vector_count
from sparsec.passes.pruning.recipe import Recipe
from sparsec.passes.pruning.scores import output_scale, scores

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Pruned:
    """New weights by name (those that changed), the patterns of all sparse ones, and the report."""

    weights: dict[str, Array]
    patterns: dict[str, Sparsity]
    report: PruneReport


def with_weights(graph: Graph, done: Pruned) -> Graph:
    """The graph with what pruning made of its weights."""
    types = dict(graph.types)
    for value in done.weights:
        types[value] = replace(types[value], sparsity=done.patterns.get(value, DENSE))
    constants = {**graph.constants, **done.weights}
    return Graph(graph.name, graph.inputs, graph.outputs, graph.nodes, types, constants)


@dataclass(frozen=True)
class _Outcome:
    """One layer: `w` are the new filters, None when they stay, and `pattern` what they were pruned to."""

    status: Status
    w: Array | None = None
    remarks: tuple[str, ...] = ()
    pattern: Sparsity = DENSE


def prune_graph(graph: Graph, recipe: Recipe, fixed: Callable[[str], str] = lambda _: "") -> Pruned:
    """Prune the constants of Conv and MatMul nodes of a graph as imported, before any fusion.

    `fixed` says why a value cannot be changed ("" when it can). UsageError for a recipe that does not fit the model, ModelError
    for weights that are not finite.
    """
    weights: dict[str, Array] = {}
    patterns: dict[str, Sparsity] = {}
    reports = []
    for layer, asked, left in _decided(graph, recipe, fixed):
        array = graph.constants[layer.value]
        if left is not None:
            outcome = left
        else:
            assert asked is not None  # else the layer is left alone
            outcome = _prune(graph, layer, asked, recipe)
        before = array if layer.reason else layer.view.filters(array)
        after = before if outcome.w is None else outcome.w
        if outcome.w is not None:
            weights[layer.value] = layer.view.restore(after, array.shape)
        pattern = outcome.pattern if outcome.w is not None else graph.types[layer.value].sparsity
        if pattern != DENSE and not layer.reason and pattern.holds(after):
            patterns[layer.value] = pattern.of(after)
        reports.append(layer_report(layer, array.shape, asked, outcome.status, outcome.remarks, before, after))
    return Pruned(weights, patterns, PruneReport(layers=tuple(reports)))


@dataclass(frozen=True)
class Wanted:
    """A layer that a recipe prunes, and its goal."""

    layer: LayerWeights
    goal: Goal


def wanted_layers(graph: Graph, recipe: Recipe, fixed: Callable[[str], str] = lambda _: "") -> dict[str, Wanted]:
    """The layers that `prune_graph` would prune, by the names of their weights. Raises what it raises."""
    decided = _decided(graph, recipe, fixed)
    return {layer.value: Wanted(layer, asked) for layer, asked, left in decided if asked is not None and left is None}


def _decided(
    graph: Graph, recipe: Recipe, fixed: Callable[[str], str]
) -> Iterator[tuple[LayerWeights, Goal | None, _Outcome | None]]:
    """Every layer, what is asked of it, and the outcome where it stays as it is (always where nothing is asked)."""
    layers = layer_weights(graph)
    spared = _spared(layers, recipe)
    for layer, (asked, by_rule) in zip(layers, recipe.goals([layer_names(layer) for layer in layers]), strict=True):
        if asked is None:
            yield layer, None, _Outcome("dense", remarks=("not asked for",))
        elif asked.pattern == DENSE:
            yield layer, asked, _Outcome("dense")
        elif layer.value in spared and not by_rule:
            yield layer, asked, _Outcome("spared", remarks=(spared[layer.value],))
        elif why := layer.reason or fixed(layer.value):
            yield layer, asked, _Outcome("dense", remarks=(why,))
        else:
            yield layer, asked, _left_alone(graph, layer, asked)


def goals_by_value(layers: Sequence[LayerWeights], recipe: Recipe) -> dict[str, Goal]:
    """What the recipe asks of each layer, by the name of its weights; layers that it asks nothing of are left out."""
    goals = recipe.goals([layer_names(layer) for layer in layers])
    return {layer.value: asked for layer, (asked, _) in zip(layers, goals, strict=True) if asked is not None}


def layer_names(layer: LayerWeights) -> tuple[str, ...]:
    """Names that rules find a layer by: of the ONNX nodes that it came from, and its own."""
    return tuple(dict.fromkeys(name for node in layer.nodes for name in (*node.origin, node.name)))


def _spared(layers: Sequence[LayerWeights], recipe: Recipe) -> dict[str, str]:
    """Why layers stay dense unless a rule names them."""
    found: dict[str, str] = {}
    for layer in layers:
        if layer.depthwise and "depthwise" in recipe.spare:
            found[layer.value] = "depthwise"
    convolutions = [x.value for x in layers if isinstance(x.nodes[0].op, Conv)]
    products = [x.value for x in layers if isinstance(x.nodes[-1].op, MatMul)]
    if convolutions and "first" in recipe.spare:
        found[convolutions[0]] = "the first convolution"
    if products and "classifier" in recipe.spare:
        found[products[-1]] = "the classifier: the last Gemm or MatMul"
    return found


def _left_alone(graph: Graph, layer: LayerWeights, asked: Goal) -> _Outcome | None:
    """The outcome of a layer that the pattern does not fit, or that has enough zeros; None for the others."""
    array, node = graph.constants[layer.value], layer.nodes[0]
    if not np.isfinite(array).all():
        raise ModelError(
            f"weights {layer.value!r} of node {layer_names(layer)[0]!r} hold NaN or infinity, which have no importance: "
            f"repair the model",
            node=node.name,
            tensor=layer.value,
        )
    if why := unfit(asked, filter_shape(layer.view, array.shape), layer.groups):
        return _Outcome("dense", remarks=(why,))
    why = _enough(asked, layer.view.filters(array))
    return _Outcome("kept", remarks=(why,)) if why else None


def _prune(graph: Graph, layer: LayerWeights, asked: Goal, recipe: Recipe) -> _Outcome:
    array = graph.constants[layer.value]
    w, shape = layer.view.filters(array), filter_shape(layer.view, array.shape)
    score = scores(w, output_scale(graph, layer), recipe.criterion, asked.pattern)
    pattern = asked.pattern
    choice, lists = choose_with_lists(asked, score, None if recipe.permute is Method.none else recipe.seed)
    mask, step = (choice.mask, "") if recipe.steps == 1 else _step(choice, w, recipe.steps)
    remarks = [*tails(pattern, shape), *choice.remarks, *([step] if step else [])]
    if mask.all():
        return _Outcome("dense", remarks=(*remarks, f"{asked} drops nothing here"))
    kept = np.where(mask, w, 0).astype(w.dtype)
    kept = _with_norm(kept, w) if recipe.preserve_norm else kept
    if lists is not None and isinstance(pattern, HiNM):
        pattern = pattern.ordered(lists, kept)
    return _Outcome("pruned", kept, tuple(remarks), pattern)


def unfit(asked: Goal, shape: tuple[int, int, int], groups: int) -> str:
    """Why filters of `shape` cannot have the pattern; "" when they can."""
    oc, taps, ic = shape
    pattern = asked.pattern
    rows, columns = _tile(pattern)
    if columns > ic:
        return f"{ic} input channel{'s' if ic > 1 else ''}, and {pattern.spec} takes {columns} together"
    if rows > oc and not isinstance(pattern, NM | HiNM):
        return f"{oc} output channel{'s' if oc > 1 else ''}, and {pattern.spec} takes {rows} together"
    if groups > 1 and oc // groups % rows:
        return f"groups of {oc // groups} outputs, which {pattern.spec} does not divide into tiles of {rows}"
    if isinstance(pattern, Block) and pattern.m_group:
        least = -(-pattern.m_group // (pattern.n_keep * (taps if pattern.taps == "each" else 1)))  # rows of blocks
        if -(-oc // rows) < least:
            needed = (least - 1) * rows + 1
            return f"{oc} output channels, and {pattern.spec} takes {needed} or more to leave no column of blocks empty"
    if isinstance(pattern, HiNM) and not vector_count(pattern, asked.sparsity, ic):
        return f"{asked} keeps fewer than {pattern.m_group} of {ic} input channels"
    return ""


def _tile(pattern: Sparsity) -> tuple[int, int]:
    """Outputs and input channels that a pattern decides on together."""
    match pattern:
        case Block():
            return pattern.br, pattern.columns_together
        case NM():
            return pattern.rows, pattern.m_group
        case NMG():
            return pattern.m_group, 1
        case HiNM():
            return pattern.v, pattern.m_group
        case _:
            return 1, 1


def tails(pattern: Sparsity, shape: tuple[int, int, int]) -> list[str]:
    """What the pattern does not divide, in words."""
    rows, columns = _tile(pattern)
    found = []
    if shape[0] % rows:
        found.append(f"the last tile has {shape[0] % rows} of {rows} outputs (padded)")
    if isinstance(pattern, HiNM):
        return found
    if shape[2] % columns:
        found.append(f"the last group has {shape[2] % columns} of {columns} input channels (padded)")
    if isinstance(pattern, NMG) and shape[1] * shape[2] % pattern.chunk:
        found.append(f"the last chunk has {shape[1] * shape[2] % pattern.chunk} of {pattern.chunk} columns (padded)")
    return found


def _enough(asked: Goal, w: Array) -> str:
    """Why weights need no pruning: they have the pattern, or as many zeros as asked for; "" when they need it."""
    pattern, zeros = asked.pattern, 1 - np.count_nonzero(w) / max(w.size, 1)
    if implied_sparsity(pattern) is not None and pattern.holds(w):
        return f"already {pattern.spec}, {100 * zeros:.1f} % zeros: left as it is"
    kept = pattern.kept(w) if isinstance(pattern, Block) else w
    if kept.size - np.count_nonzero(kept) >= round(asked.sparsity * kept.size):
        return f"already {100 * zeros:.1f} % zeros, {asked} asks for {100 * asked.sparsity:.6g} %: left as it is"
    if zeros >= asked.sparsity:
        return f"already {100 * zeros:.1f} % zeros in another pattern, which {asked} does not improve on: left as it is"
    return ""


def _step(choice: Choice, w: Array, steps: int) -> tuple[Array, str]:
    """The next increment towards a mask, and which it is: the least important of what it drops and is not zero yet."""
    dropped, zero = ~choice.mask, w == 0
    goal, done = int(dropped.sum()), int((dropped & zero).sum())
    strays = int(zero.sum()) - done  # steps were taken towards choices that differ a little
    number = min(steps, int((done + strays) / max(goal, 1) * steps + 1e-9) + 1)
    if number == steps:
        return choice.mask, f"step {steps} of {steps}"
    unit = np.where(zero, -1, choice.unit)[dropped]
    wanted = max(-(-goal * number // steps) - strays, done + 1)  # rounded up, so that the next run counts this step as taken
    threshold = np.partition(unit, wanted - 1)[wanted - 1]
    return ~(dropped & (np.where(zero, -1, choice.unit) <= threshold)), f"step {number} of {steps}"


def _with_norm(kept: Array, w: Array) -> Array:
    """The kept weights of every output scaled to the Euclidean norm that all its weights had."""
    before, after = (np.square(a, dtype=np.float64).sum(axis=(1, 2), keepdims=True) for a in (w, kept))
    factor = np.sqrt(np.divide(before, after, out=np.ones_like(before), where=after > 0))
    return np.asarray((kept * factor).astype(w.dtype))


def layer_report(
    layer: LayerWeights,
    shape: tuple[int, ...],
    asked: Goal | None,
    status: Status,
    remarks: tuple[str, ...],
    before: Array,
    after: Array,
) -> LayerReport:
    """The report on one layer: what `after` keeps of the filters `before` (the same object when nothing changed)."""
    size = np.abs(before.reshape(-1).astype(np.float32))
    l1, l2 = float(size.sum(dtype=np.float64)), float(np.square(size, dtype=np.float64).sum())
    kept, same = int(np.count_nonzero(after)), after is before
    left = size.size - kept
    chosen, free = (size, size) if same else (size[after.reshape(-1) != 0], np.partition(size, min(left, size.size - 1))[left:])
    sums = [
        (l1, l2) if same else (float(a.sum(dtype=np.float64)), float(np.square(a, dtype=np.float64).sum()))
        for a in (chosen, free)
    ]
    return LayerReport(
        node=layer_names(layer)[0],
        weights=layer.value,
        shape=tuple(shape),
        status=status,
        asked="" if asked is None else str(asked),
        remarks=remarks,
        elements=size.size,
        kept=kept,
        l1=l1,
        l2=l2,
        kept_l1=sums[0][0],
        kept_l2=sums[0][1],
        free_l1=sums[1][0],
        free_l2=sums[1][1],
    )
