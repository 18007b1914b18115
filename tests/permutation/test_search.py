"""Searches over one class of channels: never worse, repeatable, in time, and good."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, permutations
from time import perf_counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.compiler.errors import UsageError
from sparsec.compiler.sparsity import Block
from sparsec.compiler.sparsity.text import Goal, parse_goal
from sparsec.passes.permutation.search.api import Method, search
from sparsec.passes.permutation.search.arrangement import Arrangement
from sparsec.passes.permutation.search.pairs import pair_gains
from sparsec.passes.permutation.search.part import INPUTS, OUTPUTS, Part, retained
from sparsec.passes.pruning.masks import choose

Array = np.ndarray[Any, Any]
SEARCHES = (Method.gyro, Method.swap, Method.stripe)
PATTERNS = (
    "2:4", "1:2", "3:4", "2:4/rows=4", "1:4/rows=3", "block:4x2@50%", "block:2x4/taps=each@75%", "block:8x8@50%",
    "block:2x2/2:4", "block:3x1/1:3/taps=each", "nmg:1:4:1", "hinm:4:2:4@75%", "hinm:8:1:2@50%", "unstructured@50%",
)  # fmt: skip
EXACT = (  # the value is a sum over groups, or made anew of all
    "2:4", "1:2", "3:4", "2:4/rows=4", "1:4/rows=3", "block:2x2/2:4", "block:3x1/1:3/taps=each",
)  # fmt: skip


def saliency(shape: tuple[int, int, int], seed: int) -> Array:
    rng = np.random.default_rng(seed)
    scales = np.exp(rng.standard_normal((shape[0], 1, 1)) + rng.standard_normal((1, 1, shape[2])))
    return np.abs(rng.standard_normal(shape) * scales).astype(np.float32)


def whole(w: Array, text: str, axis: str, *, own_lists: bool = False) -> Part:
    return Part(w, parse_goal(text), axis, np.arange(w.shape[0 if axis == OUTPUTS else 2])[:, None], own_lists)


@st.composite
def classes(draw: st.DrawFn) -> list[Part]:
    """Parts of one class: any patterns and axes, offsets into wider axes, two repeats that lie apart or together."""
    items = draw(st.integers(1, 20))
    parts = []
    for number in range(draw(st.integers(1, 3))):
        repeats, before, behind = draw(st.integers(1, 2)), draw(st.integers(0, 5)), draw(st.integers(0, 5))
        extent, other = before + items * repeats + behind, draw(st.integers(1, 18))
        apart = draw(st.booleans())
        index = before + np.arange(items * repeats)
        index = index.reshape(repeats, items).T if apart else index.reshape(items, repeats)
        axis, taps = draw(st.sampled_from([OUTPUTS, INPUTS])), draw(st.sampled_from([1, 3]))
        shape = (extent, taps, other) if axis == OUTPUTS else (other, taps, extent)
        w = saliency(shape, draw(st.integers(0, 1000)) + number)
        parts.append(Part(w, parse_goal(draw(st.sampled_from(PATTERNS))), axis, index, draw(st.booleans())))
    return parts


@settings(max_examples=40)
@given(classes(), st.sampled_from(SEARCHES))
def test_no_search_keeps_less_or_loses_a_channel(parts: list[Part], method: Method) -> None:
    items = parts[0].items
    found = search(parts, method, time_limit_s=0.05)
    assert sorted(found.order) == list(range(items))
    assert found.before == retained(parts, np.arange(items))
    assert found.after == retained(parts, found.order) >= found.before


@pytest.mark.parametrize("text", PATTERNS)
@pytest.mark.parametrize("axis", [OUTPUTS, INPUTS])
def test_the_objective_is_what_the_mask_keeps_of_the_reordered_weights(text: str, axis: str) -> None:
    w = saliency((16, 3, 16), 0)
    index = np.array([[1, 9], [2, 10], [5, 0], [7, 15]])
    order = np.array([2, 0, 3, 1])
    moved = w.copy()
    along = (slice(None),) * (0 if axis == OUTPUTS else 2)
    for place, item in enumerate(order):
        for to, source in zip(index[place], index[item], strict=True):
            moved[(*along, to)] = w[(*along, source)]
    goal = parse_goal(text)
    expected = moved[choose(goal, moved).mask].sum(dtype=np.float64)
    assert retained([Part(w, goal, axis, index)], order) == pytest.approx(expected, rel=1e-9)


@settings(max_examples=60)
@given(classes(), st.integers(0, 99))
def test_moves_are_valued_as_the_objective_does(parts: list[Part], seed: int) -> None:
    """Where every part's value is a sum over groups, the value that searches follow changes as the exact objective does."""
    exact = [p for p in parts if str(p.goal) in EXACT and p.index.shape[1] == 1]
    if not exact:
        return
    state, rng = Arrangement(exact), np.random.default_rng(seed)
    before, value = retained(exact, state.order), state.value
    state.put(rng.permutation(state.items))
    assert state.value - value == pytest.approx(retained(exact, state.order) - before, rel=1e-4, abs=1e-3 * before + 1e-6)


@settings(max_examples=60)
@given(classes(), st.integers(0, 99))
def test_a_table_says_what_each_channel_would_be_worth_in_each_place(parts: list[Part], seed: int) -> None:
    state, rng = Arrangement(parts), np.random.default_rng(seed)
    state.put(rng.permutation(state.items))
    for gain in state.gains:
        slots, items = rng.permutation(state.items)[:5], rng.permutation(state.items)[:5]
        table = gain.table(state.order, slots, items)
        for i, slot in enumerate(slots):
            for j, item in enumerate(items):
                order = state.order.copy()
                order[slot] = item  # twice in the class: only the group of the slot matters
                want = float(gain.values(order, gain.groups.of[[slot]])[0])
                assert table[i, j] == pytest.approx(want, rel=1e-4, abs=1e-4)


@settings(max_examples=30)
@given(
    st.integers(0, 999),
    st.sampled_from(["block:4x2@50%", "block:2x4@75%", "block:2x2/taps=each@90%", "block:4x2/2:4", "block:2x2/1:2/taps=each"]),
    st.sampled_from([4, 8, 12]),
)
def test_no_swap_of_blocks_gains_more_than_its_bound(seed: int, text: str, items: int) -> None:
    """Which lets searches leave out pairs whose bound is no gain."""
    parts = [whole(saliency((items, 3, 8), seed), text, OUTPUTS), whole(saliency((6, 3, items), seed + 1), text, INPUTS)]
    state, every = Arrangement(parts), np.arange(items)
    slack, value = sum(g.slack for g in state.gains), state.value
    bound = pair_gains(state, every, [g.table(state.order, every, state.order) for g in state.gains]) + slack
    assert slack >= -1e-5 * value and value == pytest.approx(retained(parts, state.order), rel=1e-5)
    for i, j in combinations(range(items), 2):
        swapped = every.copy()
        swapped[[i, j]] = j, i
        assert retained(parts, swapped) - value <= bound[i, j] + 1e-4 * value


@pytest.mark.parametrize("method", SEARCHES)
@pytest.mark.parametrize("text", ["2:4", "block:4x4@50%", "block:2x3/2:4"])
def test_the_same_seed_finds_the_same_order(method: Method, text: str) -> None:
    part = whole(saliency((16, 1, 24), 3), text, INPUTS)
    first, second = (search([part], method, seed=5, escapes=20) for _ in range(2))
    assert first.finished and np.array_equal(first.order, second.order)


@pytest.mark.parametrize("method", SEARCHES)
@pytest.mark.parametrize("text", ["2:4", "block:8x8@50%", "hinm:32:2:4@75%"])
def test_a_search_ends_in_time(method: Method, text: str) -> None:
    part = whole(saliency((512, 1, 512), 0), text, INPUTS if text == "2:4" else OUTPUTS)
    start = perf_counter()
    found = search([part], method, time_limit_s=0.2)
    assert not found.finished
    assert perf_counter() - start < 10  # one step of the slowest on a busy machine
    assert found.after >= found.before


def test_no_time_is_the_order_as_it_is() -> None:
    part = whole(saliency((16, 1, 16), 0), "2:4", INPUTS)
    found = search([part], time_limit_s=0.0)
    assert np.array_equal(found.order, np.arange(16)) and not found.finished


def test_none_is_the_order_as_it_is() -> None:
    part = whole(saliency((16, 1, 16), 0), "2:4", INPUTS)
    found = search([part], Method.none)
    assert np.array_equal(found.order, np.arange(16)) and found.before == found.after == part.retained() and found.finished


def test_progress_names_the_steps() -> None:
    said: list[str] = []
    search([whole(saliency((32, 1, 32), 0), "block:8x8@50%", OUTPUTS)], progress=said.append)
    assert said[0] == "gyro: clusters of 8 channels in groups of 8"
    assert "gyro: single channels" in said


@pytest.mark.parametrize("method", SEARCHES)
@pytest.mark.parametrize(
    ("text", "axis"),
    [
        ("block:4x4@75%", OUTPUTS),
        ("block:4x4@75%", INPUTS),
        ("block:4x4/1:4", OUTPUTS),
        ("block:4x4/1:4", INPUTS),
        ("2:4/rows=4", OUTPUTS),
        ("hinm:4:2:4@75%", OUTPUTS),
        ("2:4", INPUTS),
    ],
)
def test_a_planted_order_is_found_again(method: Method, text: str, axis: str) -> None:
    rng, goal = np.random.default_rng(0), parse_goal(text)
    w = np.abs(rng.standard_normal((32, 1, 32))).astype(np.float32) + 0.5
    tiled = np.repeat(w[::4], 4, axis=0) if axis == OUTPUTS or text.startswith("block") else w
    tiled = np.repeat(tiled[:, :, ::4], 4, axis=2) if text.startswith("block") else tiled
    planted = np.where(choose(goal, tiled).mask, w, 0.05 * w).astype(np.float32)
    share = planted[choose(goal, planted).mask].sum()
    shuffled = whole(planted, text, axis).ordered(rng.permutation(32))
    found = search([shuffled], method, escapes=60)
    assert found.before < 0.95 * share < found.after


@pytest.mark.parametrize("method", SEARCHES)
@pytest.mark.parametrize(
    ("text", "axis"),
    [("2:4", INPUTS), ("1:4", INPUTS), ("2:4/rows=4", OUTPUTS), ("hinm:4:1:2@75%", OUTPUTS)],
)
def test_small_classes_are_solved_exactly(method: Method, text: str, axis: str) -> None:
    """All 35 ways to share 8 channels out to two groups (not of blocks: what fills empty columns up may keep more than asked)."""
    for seed in range(2):
        w = saliency((8, 1, 8), seed)
        part = whole(w, text, axis, own_lists=True)
        ways = [np.array([*a, *(i for i in range(8) if i not in a)]) for a in permutations(range(8), 4) if list(a) == sorted(a)]
        best = max(retained([part], way) for way in ways)
        assert search([part], method).after == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize("method", SEARCHES)
@pytest.mark.parametrize("shape", [(8, 1, 8), (8, 9, 8), (8, 1, 12)])
def test_small_classes_of_blocks_are_solved_as_the_mask_is_chosen(method: Method, shape: tuple[int, int, int]) -> None:
    """Two rows of blocks, of which none may be empty, nor any column: what stays are two or three blocks in a few ways."""
    for seed in range(3):
        part = whole(saliency(shape, seed), "block:4x4@50%", OUTPUTS)
        ways = [np.array([*a, *(i for i in range(8) if i not in a)]) for a in combinations(range(8), 4)]
        best = max(retained([part], way) for way in ways)
        assert search([part], method).after == pytest.approx(best, rel=1e-6)


def ways_to_part(items: tuple[int, ...], width: int) -> Iterator[tuple[int, ...]]:
    """Every way to put items into groups one behind the other."""
    if not items:
        yield ()
    for first in combinations(items, width):
        for rest in ways_to_part(tuple(i for i in items if i not in first), width):
            yield (*first, *rest)


@pytest.mark.parametrize("method", SEARCHES)
@pytest.mark.parametrize(
    ("text", "axis", "shape"),
    [
        ("block:4x2/1:2", INPUTS, (12, 1, 8)),  # two times two columns
        ("block:4x2/2:4", INPUTS, (12, 1, 8)),  # four columns that compete in every row
        ("block:4x2/1:2/taps=each", INPUTS, (8, 3, 8)),
        ("block:4x2/2:4", OUTPUTS, (8, 1, 16)),
        ("block:4x4/1:2", OUTPUTS, (8, 1, 8)),  # two rows, each of which needs the column that the other leaves
    ],
)
def test_small_classes_of_n_of_m_blocks_are_solved_as_the_mask_is_chosen(
    method: Method, text: str, axis: str, shape: tuple[int, int, int]
) -> None:
    pattern = parse_goal(text).pattern
    assert isinstance(pattern, Block)
    width = pattern.br if axis == OUTPUTS else pattern.bc
    for seed in range(2):
        part = whole(saliency(shape, seed), text, axis)
        best = max(retained([part], np.array(way)) for way in ways_to_part(tuple(range(8)), width))
        assert search([part], method).after == pytest.approx(best, rel=1e-6)


def test_rows_that_read_the_same_inputs_come_together_where_every_row_of_blocks_keeps_one() -> None:
    """Without that rule, strong rows in both rows of blocks would keep as much: the first half of the inputs for all."""
    rng = np.random.default_rng(0)
    w, strong = rng.uniform(0.1, 0.2, (16, 1, 16)).astype(np.float32), rng.permutation(np.arange(16) < 8)
    w[strong, :, :8] += 1
    found = search([whole(w, "block:8x8@50%", OUTPUTS)])
    together = float(w[strong, :, :8].sum() + w[~strong, :, 8:].sum())
    assert found.before < 0.9 * together
    assert found.after == pytest.approx(together, rel=1e-6)


@pytest.mark.parametrize("method", SEARCHES)
def test_parts_that_disagree_are_balanced(method: Method) -> None:
    """Two layers that read the same channels, each best with another order: together they keep more than by either."""
    first, second = whole(saliency((8, 1, 32), 1), "2:4", INPUTS), whole(saliency((8, 1, 32), 2), "2:4", INPUTS)
    alone = [search([p], method, escapes=30).order for p in (first, second)]
    both = [first, second]
    found = search(both, method, escapes=30)
    assert found.after > max(retained(both, order) for order in alone)
    assert first.ordered(found.order).retained() > first.retained()
    assert second.ordered(found.order).retained() > second.retained()


def test_a_part_of_other_granularity_counts() -> None:
    """Tiles of 16 outputs of one layer and 2:4 along the inputs of the next."""
    producer, consumer = whole(saliency((64, 1, 32), 1), "2:4/rows=16", OUTPUTS), whole(saliency((32, 1, 64), 2), "2:4", INPUTS)
    found = search([producer, consumer])
    alone = search([producer])
    assert found.after > retained([producer, consumer], alone.order)
    assert consumer.ordered(found.order).retained() > consumer.retained()


def test_what_the_class_does_not_own_counts_but_stays() -> None:
    """Channels 2 to 9 of 12 under 2:4: the first and last groups have channels of others."""
    w = saliency((16, 1, 12), 4)
    part = Part(w, parse_goal("2:4"), INPUTS, np.arange(2, 10)[:, None])
    found = search([part])
    moved = part.ordered(found.order).saliency
    assert np.array_equal(moved[..., [0, 1, 10, 11]], w[..., [0, 1, 10, 11]])
    state = Arrangement([part])
    assert state.value == pytest.approx(part.retained(), rel=1e-6)


def test_published_efficacies_are_reached() -> None:
    """2:4, 128 x 64 uniform weights: the stripe search of Pool and Yu (NeurIPS 2021) gains 36.6 % of what the bound would."""
    w = np.random.RandomState(1).rand(128, 64).astype(np.float32)[:, None]
    bound = float(np.sort(w[:, 0], axis=1)[:, 32:].sum(dtype=np.float64))
    found = search([whole(w, "2:4", INPUTS)])
    assert (found.after - found.before) / (bound - found.before) >= 0.366


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"axis": "rows"}, "the axis is 'rows': expected 'outputs' or 'inputs'"),
        ({"saliency": np.zeros((4, 4), np.float32)}, r"the saliency is float32\[4, 4\]: expected floats \[OC, taps, IC\]"),
        ({"saliency": np.full((4, 1, 4), -1.0)}, "negative or not finite"),
        ({"saliency": np.full((4, 1, 4), np.nan)}, "negative or not finite"),
        ({"index": np.arange(3)[:, None]}, r"the index has shape \[3, 1\]: expected \[4, repeats\] as of the first part"),
        ({"index": np.arange(1, 5)[:, None]}, "the index reaches from 1 to 4: the axis has 4 entries"),
        ({"index": np.array([[0], [1], [1], [2]])}, "the index has an entry twice"),
    ],
)
def test_parts_that_do_not_fit_are_rejected(change: dict[str, Any], message: str) -> None:
    given = {"saliency": np.ones((4, 1, 4)), "goal": Goal(parse_goal("2:4").pattern, 0.5), "axis": INPUTS}
    good = Part(**given, index=np.arange(4)[:, None])
    bad = Part(**({"index": np.arange(4)[:, None]} | given | change))
    with pytest.raises(UsageError, match=r"part 1 of the search \(2:4 along its .*" + message):
        search([good, bad])


def test_an_unknown_method_is_rejected() -> None:
    with pytest.raises(UsageError, match="search method 'best' is not known: expected one of none, gyro, swap, stripe"):
        search([whole(saliency((4, 1, 4), 0), "2:4", INPUTS)], "best")


def test_a_search_needs_a_part() -> None:
    with pytest.raises(UsageError, match="needs at least one part"):
        search([])
