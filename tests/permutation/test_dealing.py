"""Work dealt out to groups: what swaps gain, and that none is left that gains."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.passes.permutation.dealing import Array, Deal, dealt


@st.composite
def _deals(draw: st.DrawFn) -> list[Deal]:
    """Some deals of the same items: to any groups, of which some may be empty, and of any kinds of work, whole numbers."""
    items, rng = draw(st.integers(1, 9)), np.random.default_rng(draw(st.integers(0, 999)))
    found = []
    for kinds in draw(st.lists(st.integers(1, 3), min_size=1, max_size=3)):
        groups, most = draw(st.integers(1, 5)), draw(st.sampled_from([1, 3, 20]))
        found.append(Deal(rng.integers(0, groups, items), rng.integers(0, most + 1, (items, kinds)).astype(float)))
    return found


def _squares(deal: Deal, order: Array) -> float:
    """The sum of squares, group by group and kind by kind."""
    return sum(
        sum(deal.work[item, kind] for item, g in zip(order, deal.groups, strict=True) if g == group) ** 2
        for group in set(deal.groups)
        for kind in range(deal.work.shape[1])
    )


def _swapped(order: Array, a: int, b: int) -> Array:
    found = order.copy()
    found[[a, b]] = found[[b, a]]
    return found


def _changes(deals: list[Deal], order: Array) -> Array:
    """By how much each swap changes the sum of squares, by trying all of them."""
    items, whole = range(len(order)), sum(_squares(deal, order) for deal in deals)
    return np.array([[sum(_squares(d, _swapped(order, a, b)) for d in deals) - whole for b in items] for a in items])


@settings(max_examples=40)
@given(_deals(), st.integers(0, 99))
def test_gains_are_what_swaps_change(deals: list[Deal], seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(deals[0].groups))
    for deal in deals:
        assert deal.unevenness(order) == _squares(deal, order)
        assert np.array_equal(deal.gains(order), _changes([deal], order))


@settings(max_examples=40)
@given(_deals())
def test_no_swap_makes_a_deal_more_even(deals: list[Deal]) -> None:
    items = len(deals[0].groups)
    order, first = dealt(deals), np.arange(items)
    assert sorted(order) == list(first)
    assert sum(_squares(d, order) for d in deals) <= sum(_squares(d, first) for d in deals)
    assert _changes(deals, order).min() >= 0
    again = [Deal(d.groups, d.work[order]) for d in deals]
    assert np.array_equal(dealt(again), first)  # what is dealt out stays


def test_a_deal_that_swaps_can_make_even_is_even() -> None:
    """The heavy items all in one group; beside it, a second deal of another kind of work that is even in some of these orders."""
    halves, turns = np.arange(8) // 4, np.arange(8) % 2
    heavy = Deal(halves, np.array([9, 9, 9, 9, 1, 1, 1, 1.0])[:, None])
    assert heavy.sums(dealt([heavy])).tolist() == [[20], [20]]
    other = Deal(turns, np.array([5, 0, 5, 0, 5, 0, 5, 0.0])[:, None])
    order = dealt([heavy, other])
    assert heavy.sums(order).tolist() == [[20], [20]] and other.sums(order).tolist() == [[10], [10]]
