"""Gyro-permutation (Yu et al., arXiv 2407.20496), for any pattern that decides about groups of channels.

Channels are taken out of all groups, a few of each (sampling); what was taken is put together in clusters of similar channels
(clustering, where more than one is taken of each); and the clusters go back to the groups so that most is kept (linear
assignment). The paper does so with the outputs of hierarchical n:m, and with one channel a group with its inputs. Here a group
is whatever the patterns of the class decide about, and parts may have groups of different widths.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from sparsec.passes.permutation.search.arrangement import Arrangement, Clock
from sparsec.passes.permutation.search.clusters import balanced_clusters
from sparsec.passes.permutation.search.escape import escape
from sparsec.passes.permutation.search.gains import Gain, OfSums

Array = np.ndarray[Any, Any]
_FAILURES = 3  # of a cluster size, as in the paper
_STALE = 12  # rounds of single channels without a gain after which a search has converged
_STALE_AFTER_ESCAPE = 5
_USUAL_WIDTH = 6  # of groups: in wider ones it takes more rounds until every channel has had its turn
_MOST_STALE = 32  # rounds, however wide they are: tiles of 32 outputs have had one sweep then
_SLIGHT, _SLIGHT_CLUSTERS = 2e-5, 2e-4  # shares of the value: a round of channels or clusters that gains less has failed
_MOST_SLOTS = 256  # single channels assigned at once: an assignment takes the cube of them
_MOST_CLUSTERED = 512  # channels clustered at once, likewise
_WORK = 1 << 28  # features compared a round: beyond, a sample of the features has to do
_LEAST_SAMPLE = 64


def improve(state: Arrangement, rng: np.random.Generator, clock: Clock) -> None:
    """Clusters of ever fewer channels, then single ones."""
    for width in sorted({g.groups.width for g in state.gains if isinstance(g, OfSums)}, reverse=True):
        size = width
        while size > 1 and not clock.over():
            clock.progress(f"gyro: clusters of {size} channels in groups of {width}")
            _repeat_clusters(state, width, size, rng, clock)
            size //= 2
    clock.progress("gyro: single channels")
    assign_singles(state, rng, clock, _STALE)
    escape(state, rng, clock, lambda: assign_singles(state, rng, clock, _STALE_AFTER_ESCAPE))


def _repeat_clusters(state: Arrangement, width: int, size: int, rng: np.random.Generator, clock: Clock) -> None:
    failures, enough = 0, _SLIGHT_CLUSTERS * state.value
    while failures < _FAILURES and not clock.over():
        before = state.gained
        _assign_clusters(state, width, size, rng, clock)
        if state.gained - before <= enough:
            failures += 1
            if size == width:  # nothing stays, so that only the first centres differ
                return


def _assign_clusters(state: Arrangement, width: int, size: int, rng: np.random.Generator, clock: Clock) -> None:
    """Take `size` random channels out of each full group of `width`, cluster and assign them."""
    state.prepare()
    gains = [g for g in state.gains if isinstance(g, OfSums) and g.groups.width == width]
    lead = gains[0].groups
    gains = [g for g in gains if np.array_equal(g.groups.of, lead.of)]
    full = np.flatnonzero((lead.members >= 0).sum(axis=1) >= size)
    full = np.sort(rng.permutation(full)[: max(2, _MOST_CLUSTERED // size)])
    if len(full) < 2:
        return
    slots = np.array([rng.choice(row[row >= 0], size, replace=False) for row in lead.members[full]])
    items = state.order[slots]
    features = np.concatenate([g.features[items.reshape(-1)] for g in gains], axis=1)
    clusters = items.reshape(-1)[balanced_clusters(features, len(full), rng, clock.over)]
    worth = np.zeros((len(full), len(full)))
    for gain in gains:
        taken = gain.features[items].sum(axis=1)
        rest = gain.sums(gain.groups.rows(state.order, full)) - taken
        worth += gain.with_each(full, rest, gain.features[clusters].sum(axis=1), np.arange(gain.width))
    chosen = linear_sum_assignment(worth, maximize=True)[1]
    state.move(slots.reshape(-1), clusters[chosen].reshape(-1))


def assign_singles(state: Arrangement, rng: np.random.Generator, clock: Clock, stale: int) -> None:
    """Rounds of one channel a group until `stale` of them in a row gain nothing, or more where groups are wide."""
    failures, enough = 0, _SLIGHT * state.value
    widest = max((g.groups.width for g in state.gains), default=0)
    stale = max(stale, min(stale * widest // _USUAL_WIDTH, _MOST_STALE))
    while failures < stale and not clock.over() and state.gains:
        before = state.gained
        _assign_round(state, rng)
        failures = 0 if state.gained - before > enough else failures + 1


def _assign_round(state: Arrangement, rng: np.random.Generator) -> None:
    """Assign the channels of random slots that share no group anew: the best order of these, all others staying."""
    state.prepare()
    slots = state.apart(rng.permutation(state.items))[:_MOST_SLOTS]
    if len(slots) < 2:
        return
    items = state.order[slots]

    share = _WORK / len(slots) ** 2 / sum(gain.width for gain in state.gains)

    def sample(gain: Gain) -> Array:
        some = max(min(gain.width, _LEAST_SAMPLE), int(share * gain.width))
        return rng.choice(gain.width, some, replace=False) if some < gain.width else np.arange(gain.width)

    worth = state.table(slots, items, sample)
    chosen = linear_sum_assignment(worth, maximize=True)[1]
    moved = chosen != np.arange(len(slots))
    if not moved.any():
        return
    order, more = state.order.copy(), np.zeros(len(slots))
    order[slots] = items[chosen]
    more[moved] = state.slot_gains(order, slots[moved])
    keep = _gaining_cycles(chosen, more, state.least)
    if keep.any():
        state.move(slots[keep], items[chosen][keep])


def _gaining_cycles(chosen: Array, more: Array, least: float) -> Array:
    """Which slots lie on cycles of the assignment that keep more: the others can stay, since no two slots share a group."""
    count = len(chosen)
    links = coo_array((np.ones(count), (np.arange(count), chosen)), shape=(count, count))
    _, cycle = connected_components(links, directed=False)
    return np.asarray(np.bincount(cycle, weights=more)[cycle] > least)
