"""Choose orders for a model's channels so that the patterns of a recipe keep the most, and put them into its weights.

Classes take turns: each gets the order that keeps the most importance under the patterns of all layers that it orders, while the
others stay. A second turn meets the orders that the first ones have left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsec.compiler.exporter.weights import WeightEditor
from sparsec.compiler.graph import Graph
from sparsec.compiler.pruning_report import ClassReport, PermutationReport
from sparsec.compiler.sparsity import HiNM, Sparsity
from sparsec.passes.permutation.apply import permuted, with_constants
from sparsec.passes.permutation.coupling import ChannelClass, Coupling, Place
from sparsec.passes.permutation.coupling_model import couple_model
from sparsec.passes.permutation.held import hold, holds_in_any_order
from sparsec.passes.permutation.search.api import Method, search
from sparsec.passes.permutation.search.part import INPUTS, OUTPUTS, Part
from sparsec.passes.pruning.prune import Wanted, wanted_layers
from sparsec.passes.pruning.recipe import Recipe
from sparsec.passes.pruning.scores import output_scale, scores

Array = np.ndarray[Any, Any]
Energy = Callable[[Mapping[str, Wanted]], Mapping[str, Array]]
TURNS, ESCAPES = 2, 10  # more escapes gain a class little, and the others that it waits for nothing
_LEAST_SHARE = 0.02  # of the time that is left, which small classes need as well


def permute(
    graph: Graph,
    editor: WeightEditor,
    recipe: Recipe,
    progress: Callable[[str], None] = lambda _: None,
    energy: Energy | None = None,
) -> PermutationReport:
    """Reorder the channels of the model in `editor` as the recipe asks; `graph` is that model, imported `as_stored`.

    Layers that the recipe does not prune keep the patterns that they have. The outputs stay what they were, but for the order in
    which sums are added up. `energy` gives what the squares of layers' weights are worth, [OC, taps, IC] by the name of the
    weights; the criterion counts where it gives nothing.
    """
    began = time.perf_counter()
    wanted = wanted_layers(graph, recipe, editor.blocked)
    coupling = hold(couple_model(graph, editor), graph, recipe, wanted)
    seen = energy(wanted) if energy else {}
    saliency = {value: _saliency(graph, layer, recipe, seen.get(value)) for value, layer in wanted.items()}
    tally = {c.name: _Tally() for c in coupling.free}
    deadline = began + recipe.permute_seconds
    for turn in range(TURNS):
        orders = _turn(coupling, wanted, saliency, recipe, turn, deadline, tally, progress)
        constants = permuted(graph, coupling, orders)
        for value, array in constants.items():
            editor.replace(value, array)
        graph = with_constants(graph, constants)
        if not constants:
            break
    classes = tuple(class_report(c, tally.get(c.name)) for c in coupling.classes)
    return PermutationReport(method=recipe.permute.value, seed=recipe.seed, seconds=time.perf_counter() - began, classes=classes)


@dataclass
class _Tally:
    """What the searches of a class have found: saliency kept at first, what they gained, and whether all came to an end."""

    before: float | None = None
    gained: float = 0.0
    seconds: float = 0.0
    finished: bool = True


def _turn(
    coupling: Coupling,
    wanted: Mapping[str, Wanted],
    saliency: Mapping[str, Array],
    recipe: Recipe,
    turn: int,
    deadline: float,
    tally: Mapping[str, _Tally],
    progress: Callable[[str], None],
) -> dict[str, Array]:
    """An order for every class that gains by one, the others held; `saliency` is put into these orders."""
    orders: dict[str, Array] = {}
    classes = [c for c in coupling.free if any(_matters(p, wanted) for p in c.places)]
    tied = _tied(classes, wanted)
    classes = [c for c in classes if turn == 0 or c.name in tied]
    work = [c.extent * sum(saliency[p.layer.value].size for p in c.places if p.layer.value in saliency) for c in classes]
    for i, c in enumerate(classes):
        left = max(deadline - time.perf_counter(), 0.0)
        share = left * max(work[i] / max(sum(work[i:]), 1) * 2, _LEAST_SHARE) if i + 1 < len(classes) else left
        progress(f"order the channels of {c.name}")
        escapes = 0 if turn < TURNS - 1 and c.name in tied else ESCAPES  # no sooner than the others have their orders
        order = _order(c, wanted, saliency, recipe.permute, recipe.seed + turn, escapes, min(share, left), tally[c.name])
        if order is not None:
            orders[c.name] = order
            for place in c.places:
                if place.layer.value in saliency:
                    reorder(saliency[place.layer.value], place, order.reshape(c.outer, c.extent))
    return orders


def _saliency(graph: Graph, wanted: Wanted, recipe: Recipe, energy: Array | None) -> Array:
    layer = wanted.layer
    w = layer.view.filters(graph.constants[layer.value])
    if energy is None:
        return np.array(scores(w, output_scale(graph, layer), recipe.criterion, wanted.goal.pattern))
    return np.asarray(np.square(w, dtype=np.float32) * energy)


def _order(
    c: ChannelClass,
    wanted: Mapping[str, Wanted],
    saliency: Mapping[str, Array],
    method: Method,
    seed: int,
    escapes: int,
    limit_s: float,
    tally: _Tally,
) -> Array | None:
    """The order of a class that its search found; None when the present one is as good."""
    order, changed = np.array(c.identity.reshape(c.outer, c.extent)), False
    before = after = 0.0
    for row in range(c.outer):
        parts = list(_parts(c, row, wanted, saliency))
        if not parts:
            continue
        found = search(parts, method, seed=seed, time_limit_s=limit_s / c.outer, escapes=escapes)
        before, after = before + found.before, after + found.after
        tally.seconds += found.seconds
        tally.finished &= found.finished
        if found.after > found.before:
            order[row], changed = found.order, True
    tally.before = before if tally.before is None else tally.before
    tally.gained += after - before
    return order.reshape(c.shape) if changed else None


def _tied(classes: Sequence[ChannelClass], wanted: Mapping[str, Wanted]) -> set[str]:
    """The classes, by name, with a layer whose pattern keeps more or less with the order of another one too."""
    users: dict[str, set[str]] = {}
    for c in classes:
        for place in c.places:
            if _matters(place, wanted):
                users.setdefault(place.layer.value, set()).add(c.name)
    return {name for names in users.values() if len(names) > 1 for name in names}


def _matters(place: Place, wanted: Mapping[str, Wanted]) -> bool:
    """Whether the pattern of a layer keeps more or less with another order of these channels."""
    found = wanted.get(place.layer.value)
    return found is not None and _decides(found.goal.pattern, place.role)


def _decides(pattern: Sparsity, role: str) -> bool:
    own_lists = isinstance(pattern, HiNM) and role == INPUTS  # each tile has an order of its own
    return not own_lists and not holds_in_any_order(pattern, role)


def _parts(c: ChannelClass, row: int, wanted: Mapping[str, Wanted], saliency: Mapping[str, Array]) -> Iterator[Part]:
    for place in c.places:
        if not _matters(place, wanted):
            continue
        slot, goal, full = place.slot, wanted[place.layer.value].goal, saliency[place.layer.value]
        for r in np.flatnonzero(slot.rows == row):
            seen = full
            if slot.outer is not None:
                seen = full[slot.outer[r]] if place.role == INPUTS else full[:, :, slot.outer[r]]
            yield Part(seen, goal, place.role, slot.index[r], own_lists=isinstance(goal.pattern, HiNM))


def reorder(filters: Array, place: Place, order: Array) -> None:
    """Put filters [OC, taps, IC] of the place's layer into an order [outer, extent] of its class, in place."""
    slot, axis = place.slot, 0 if place.role == OUTPUTS else 2
    for r, row in enumerate(slot.rows):
        source = np.arange(filters.shape[axis])
        source[slot.index[r]] = slot.index[r][order[row]]
        if slot.outer is None:
            filters[...] = np.take(filters, source, axis=axis)
        elif axis == 0:
            filters[:, :, slot.outer[r]] = filters[:, :, slot.outer[r]][source]
        else:
            filters[slot.outer[r]] = filters[slot.outer[r]][:, :, source]


def class_report(c: ChannelClass, tally: _Tally | None = None) -> ClassReport:
    """A class as reports show it, with what searches found if there were any."""
    before = tally.before if tally is not None else None
    return ClassReport(
        name=c.name,
        channels=c.extent,
        orders=c.outer,
        weights=c.weights,
        fixed=c.fixed,
        before=before,
        after=None if tally is None or before is None else before + tally.gained,
        seconds=tally.seconds if tally is not None else 0.0,
        finished=tally.finished if tally is not None else True,
    )
