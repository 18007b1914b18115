"""Channels in an order in which cores that share a layer's channels have equal numbers of blocks of weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsec.compiler.dtypes import DType
from sparsec.compiler.graph import Graph
from sparsec.compiler.passing.base import Notes, Pass, register_pass
from sparsec.passes.permutation.apply import permuted, with_constants
from sparsec.passes.permutation.coupling import ChannelClass, Coupling, Place, couple
from sparsec.passes.permutation.dealing import Deal, dealt
from sparsec.passes.permutation.sharing import Share, shared, waited

Array = np.ndarray[Any, Any]
_BLOCK = 8  # channels that arrays multiply at once
_TURNS = (2, 4, 8, 16)  # cores among which blocks of output channels are dealt out in turns
_RANGES = (2, 4, 8)  # parts of the input channels
_LESS = 0.998  # of the blocks that cores take or wait for, that another order is worth it
_FEW = 16  # blocks of channels, of which sums of squares tell little of what cores wait for
_OUTPUTS = 4.0  # what even outputs are worth: a core makes up for nothing there, and for some of its inputs


@register_pass
@dataclass(frozen=True)
class BalanceBlocks(Pass):
    """Blocks of 8 channels are put into an order in which the blocks of weights that are not zero are dealt out evenly: those of
    layers that make the channels over every 2nd, 4th, 8th and 16th block, which cores take in turns; those of layers that read
    them over halves, quarters and eighths, for each block of their outputs, which are parts of sums or of chains of cores. Few
    blocks are put so that cores then wait least for the one that has most. This is done again until it gains nothing, so that a
    graph that has been through it stays as it is.

    1. The order of the channels is free, they are a multiple of 8, and 8 of them are blocks in all layers' weights.
    2. All values that have them are whole numbers, so that no sum is rounded, and all weights bytes.
    3. Weights keep the patterns that their types claim.
    """

    name = "balance_blocks"
    summary = "channels in an order that gives cores equal numbers of blocks of weights"

    def rewrite(self, graph: Graph, notes: Notes) -> Graph:
        coupling, kept = couple(graph), dict[str, str]()
        while True:
            better, held = _better(graph, coupling)
            kept = held or kept  # a last search may end before it comes to them
            if better is None:
                break
            graph = better
        for name, why in kept.items():
            notes.say(f"the channels of {name!r} keep their order: {why}")
        return graph


def _better(graph: Graph, coupling: Coupling) -> tuple[Graph | None, dict[str, str]]:
    """The graph with channels in an order in which cores wait less for one another than now, if one is found; and the classes
    that keep theirs, and why."""
    classes, held = [c for c in coupling.free if _in_blocks(graph, c)], dict[str, str]()  # 1, 2
    while True:
        orders = _orders(graph, [c for c in classes if c.name not in held])
        if not orders:
            return None, held
        constants = permuted(graph, coupling, orders)
        wrong = _violating(graph, coupling, constants, orders)  # 3
        if not wrong:
            return with_constants(graph, constants), held
        alone = _alone(graph, coupling, {name: orders[name] for name in wrong})  # not those that share a layer with them
        held |= alone or wrong


def _in_blocks(graph: Graph, c: ChannelClass) -> bool:
    """Whether 8 channels of a class move as whole blocks of bytes wherever they are."""
    if c.outer > 1 or c.extent % _BLOCK or any(graph.types[v].dtype.is_float for v in c.values):
        return False
    return all(graph.types[p.layer.value].dtype is DType.I8 and _aligned(p) for p in c.places)


def _aligned(place: Place) -> bool:
    """Whether each 8 channels of the class are whole blocks of an axis of the filters."""
    indices = np.sort(place.slot.index[0].reshape(-1, _BLOCK * place.slot.index.shape[2]), axis=1)
    first = indices[:, ::_BLOCK]
    return bool((first % _BLOCK == 0).all() and (indices == (first[:, :, None] + np.arange(_BLOCK)).reshape(indices.shape)).all())


def _orders(graph: Graph, classes: Sequence[ChannelClass]) -> dict[str, Array]:
    """By class an order of its channels, where there is a better one: even, and then so that cores wait little for one another;
    none where all together they wait hardly less than now, and more or with work that is hardly more even."""
    kept = {
        p.layer.value: _kept(p.layer.view.filters(graph.constants[p.layer.value]))
        for c in classes
        for p in c.places
        if p.layer.groups == 1
    }
    before = _rated(kept, classes)
    found: dict[str, Array] = {}
    for c in classes:
        deals = list(_deals(kept, c))
        found[c.name] = dealt(deals) if deals else np.arange(c.extent // _BLOCK)
        _reorder(kept, c, found[c.name])
    for c in (c for c in classes if c.extent <= _FEW * _BLOCK):
        shares = [_share(kept, p, c) for p in c.places if p.layer.value in kept]
        order = shared(c.extent // _BLOCK, shares, np.random.default_rng(0))
        found[c.name] = found[c.name][order]
        _reorder(kept, c, order)
    (wait, uneven), (waited_before, uneven_before) = _rated(kept, classes), before
    if wait > _LESS * waited_before and (wait > waited_before or uneven > _LESS * uneven_before):
        return {}
    moved = {name: order for name, order in found.items() if not np.array_equal(order, np.arange(len(order)))}
    return {name: (order[:, None] * _BLOCK + np.arange(_BLOCK)).reshape(-1) for name, order in moved.items()}


def _rated(kept: Mapping[str, Array], classes: Sequence[ChannelClass]) -> tuple[float, float]:
    """What cores take or wait for, and how uneven work is, of layers as they are."""
    first = {c.name: np.arange(c.extent // _BLOCK) for c in classes}
    return sum(map(waited, kept.values())), sum(deal.unevenness(first[c.name]) for c in classes for deal in _deals(kept, c))


def _reorder(kept: dict[str, Array], c: ChannelClass, order: Array) -> None:
    """Put the nonzero blocks of all layers with the channels of a class into an order."""
    for place in c.places:
        if place.layer.value in kept:
            kept[place.layer.value] = _share(kept, place, c).ordered(order)


def _share(kept: Mapping[str, Array], place: Place, c: ChannelClass) -> Share:
    """The nonzero blocks of a layer that has the channels of a class."""
    at = np.sort(place.slot.index[0].reshape(c.extent // _BLOCK, -1), axis=1)[:, ::_BLOCK] // _BLOCK
    return Share(kept[place.layer.value], at, place.role == "outputs")


def _deals(kept: Mapping[str, Array], c: ChannelClass) -> Iterator[Deal]:
    """What has to be even, one deal for all kinds of work with the same groups."""
    found: dict[tuple[int, ...], list[Array]] = {}
    for share in (_share(kept, p, c) for p in c.places if p.layer.value in kept):
        at, axis = share.at, 0 if share.outputs else 1
        work = np.moveaxis(share.counts, axis, 0)[at].sum(axis=1)
        if share.outputs:
            work = np.sqrt(_OUTPUTS) * work.sum(axis=1, keepdims=True)
            groups = [at[:, 0] % n for n in _TURNS]
        else:
            groups = [at[:, 0] * n // share.counts.shape[axis] for n in _RANGES]
        for g in groups:
            if len(set(g)) < len(g):
                found.setdefault(tuple(g), []).append(work)
    return (Deal(np.array(g), np.concatenate(works, axis=1)) for g, works in found.items())


def _kept(filters: Array) -> Array:
    """Of filters [OC, taps, IC] the positions of 8 x 8 blocks that are not zero, float [blocks of OC, blocks of IC]."""
    oc, taps, ic = filters.shape
    full = np.pad(filters != 0, ((0, -oc % _BLOCK), (0, 0), (0, -ic % _BLOCK)))
    blocks = full.reshape(-(-oc // _BLOCK), _BLOCK, taps, -(-ic // _BLOCK), _BLOCK)
    found: Array = blocks.any(axis=(1, 4)).sum(axis=1).astype(float)
    return found


def _alone(graph: Graph, coupling: Coupling, orders: Mapping[str, Array]) -> dict[str, str]:
    """Those whose own order alone is in conflict with a claim, and why."""
    found: dict[str, str] = {}
    for name, order in orders.items():
        found |= _violating(graph, coupling, permuted(graph, coupling, {name: order}), {name: order})
    return found


def _violating(graph: Graph, coupling: Coupling, constants: Mapping[str, Array], orders: Mapping[str, Array]) -> dict[str, str]:
    """Classes with an order in which weights would not have the pattern that their type claims, and why."""
    found: dict[str, str] = {}
    for c in coupling.free:
        for layer in (p.layer for p in c.places if c.name in orders and p.layer.value in constants):
            claim = graph.types[layer.value].sparsity
            if why := claim.violation(layer.view.filters(constants[layer.value])):
                found[c.name] = f"{layer.value!r} would not be {claim.spec}: {why}"
    return found
