"""Prefetch: what of a layer comes to cores while these compute the last unit of the layer before, and when circuits change for
that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sparsec.backends.aie.lower.chaining import parts_of_one
from sparsec.backends.aie.lower.circuits import keeps_results, keeps_way_out
from sparsec.backends.aie.lower.core_places import CorePlaces, Used, comes_beside, likely_places
from sparsec.backends.aie.lower.cost import estimate
from sparsec.backends.aie.lower.cutting import LOCK_MAXIMUM
from sparsec.backends.aie.lower.plan import LayerPlan
from sparsec.backends.aie.lower.tile_control import NONE_QUEUED
from sparsec.backends.aie.lower.tiling import Tiling
from sparsec.backends.aie.machine import Machine

NOTHING = (False, False, False)
_KEPT = 32  # places of a layer in cores that differ in what they leave
_SHARE = 0.6  # of the time of a layer, in which its results leave


def change_early(before: Tiling, after: Tiling, leaves: bool, *, more: bool) -> bool:
    """Whether circuits may change to the next layer's as soon as cores have all of their data and weights, while they still
    compute: results go on leaving them, and memory tiles if they do that (`leaves`); and all cores have some to tell of. Where
    circuits stay, whether there is something `more` to come to cores then."""
    if not _all_take(before):
        return False
    if before.mode == after.mode:
        return more
    return keeps_results(before.mode, after.mode) and (not leaves or keeps_way_out(before.mode, after.mode))


def narrowed(machine: Machine, before: Tiling, after: Tiling) -> Tiling:
    """The way of a layer, with one channel for results out of memory tiles if circuits can change early then, and not with two,
    and results of its tiles leave meanwhile all the same."""
    one, other = before.mode, after.mode
    narrow = replace(before, mode=replace(one, narrow=True))
    if one == other or before.tiles == 1 or not keeps_results(one, other) or keeps_way_out(one, other):
        return before
    if not keeps_way_out(narrow.mode, other):
        return before
    cost = estimate(machine, narrow)
    return narrow if cost.ddr_out <= _SHARE * cost.compute else before


def taken(before: Tiling, after: Tiling, early: tuple[bool, bool, bool]) -> tuple[int, int, int]:
    """Buffers of data, pages, and blocks of the residual, that cores' channels take of those that the layer before has left, if
    their tasks are queued while it computes: of the first two one each, as all channels have tasks, and words come later; of data
    that are handed to cores all, one after the other; of pages that stay until the end none, unless one more is for what is
    handed; of the residual all or none."""
    if not (_all_take(before) and _all_take(after)):
        return NONE_QUEUED
    data, weights, residual = early
    if after.mode.weights_first and not data:
        return NONE_QUEUED
    blocks = after.layer.output_blocks // after.mode.channel_parts if residual else 0
    return before.buffers if data else 1, int(not before.kept or weights), blocks


def prefetched(before: LayerPlan, after: LayerPlan, *, here: bool) -> tuple[bool, bool, bool]:
    """Whether data, weights, and the residual, may come to cores while these compute the last unit of the layer before: where
    they have places that nothing else is in then, locks count them, and data that are `here` have been made. A residual comes
    behind the first page of a core's own stream."""
    one, other = before.tiling, after.tiling
    return _may_come(one, other, comes_beside(other, after.core, Used.of(one, before.core)), here=here)


def _may_come(one: Tiling, other: Tiling, beside: tuple[bool, bool, bool], *, here: bool) -> tuple[bool, bool, bool]:
    if not (_all_take(one) and _all_take(other)) or other.mode.together > 1:
        return NOTHING
    data, weights, residual = beside
    data = data and one.buffers <= other.buffers and not (here and not first_is_there(one, other))
    weights = weights and one.kept and _one_more_page(one)
    each, rest = divmod(other.layer.output_blocks, other.mode.channel_parts)
    own = other.mode.own and other.layer.residual is not None and one.layer.residual is None
    if other.mode.weights_first:
        data = weights = data and weights
    return data, weights, residual and weights and own and not rest and each <= LOCK_MAXIMUM


@dataclass(frozen=True, slots=True)
class _Placed:
    """Where things of a layer are in cores, behind those of the layer before, and how much came early up to here."""

    come: int
    core: CorePlaces
    before: _Placed | None


def places_along(machine: Machine, tilings: Sequence[Tiling], early: Sequence[bool]) -> list[CorePlaces]:
    """Where things are in cores, of layers that follow one another, to some of which words may come `early`: so that most do. Of
    the places of a layer beside those of the layer before, some are kept that leave different ones. FitError where things are
    too large."""
    states: Sequence[_Placed | None] = [None]
    for i, tiling in enumerate(tilings):
        made: list[_Placed] = []
        for state in states:
            used = Used.of(tilings[i - 1], state.core) if early[i] and state else None
            for core in likely_places(machine, tiling, used):
                beside = comes_beside(tiling, core, used) if used else (False,) * 3
                come = sum(_may_come(tilings[i - 1], tiling, beside, here=False)) if used else 0
                made.append(_Placed(come + (state.come if state else 0), core, state))
        made.sort(key=lambda one: -one.come)
        left: dict[Used, _Placed] = {}
        for one in made:
            left.setdefault(Used.of(tiling, one.core), one)
        states = list(left.values())[: _KEPT if i + 1 < len(tilings) and early[i + 1] else 1]
    found: list[CorePlaces] = []
    state = states[0]
    while state:
        found.append(state.core)
        state = state.before
    return found[::-1]


def first_is_there(before: Tiling, after: Tiling) -> bool:
    """Whether results that stay for the first tile of a layer are in memory tiles when all cores have the data of the last unit
    of the layer before: other units than fill buffers are done then, and of their results a core's buffers may be full."""
    if after.mode.streams > 1:  # which follow one another by locks of their own
        return False
    done = (before.units - before.buffers) // (before.splits * before.groups)
    done -= (parts_of_one(before, after) - 1) * after.tiles * after.rows // before.rows  # tiles of its other parts come first
    return done > -(-before.results_buffers // (before.layer.output_blocks // before.mode.channel_parts))


def _all_take(t: Tiling) -> bool:
    """Whether all cores take data and weights."""
    return t.layer.output_blocks >= t.mode.channel_parts and all(map(t.pages, range(t.mode.weight_parts)))


def _one_more_page(before: Tiling) -> bool:
    """Whether the lock of a layer's pages that stay can count one of the next layer's as well."""
    return max(map(before.paging.held, range(before.mode.weight_parts))) < LOCK_MAXIMUM
