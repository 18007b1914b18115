"""Least squares on a support, and masks by elimination, against brute force."""

from dataclasses import replace
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.compiler.sparsity import NM, NMG, Block, HiNM, TileOrder, Unstructured
from sparsec.compiler.sparsity.text import parse_goal
from sparsec.passes.pruning.calibrated import block_obs, obs, solve
from sparsec.passes.pruning.calibrated import importance as importance_module
from sparsec.passes.pruning.calibrated.block_obs import Blocks, Exchange, block_costs, elimination_order
from sparsec.passes.pruning.calibrated.importance import Importance, mask_by_importance
from sparsec.passes.pruning.calibrated.solve import on_support, regularised

Array = np.ndarray[Any, Any]
SEEDS = st.integers(0, 2**32)


def quadratic_error(covariance: Array, cross: Array, w: Array) -> Array:
    """Mean squared error of each row of w [rows, K], up to what does not depend on w: w H w' - 2 c w'."""
    return np.asarray(((w @ covariance - 2 * cross) * w).sum(axis=1))


def problem(seed: int, rows: int, columns: int) -> tuple[Array, Array, Array]:
    """Weights [rows, K], the covariance of correlated inputs of different sizes, and its product with the weights."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((4 * columns, columns)) + rng.standard_normal((4 * columns, 1))
    x *= rng.lognormal(sigma=0.5, size=columns)
    h, w = x.T @ x / len(x), rng.standard_normal((rows, columns))
    return w, h, w @ h


@given(SEEDS, st.integers(1, 6), st.integers(1, 12), st.floats(0, 1), st.floats(1e-6, 1))
@settings(max_examples=60, deadline=None)
def test_least_squares_never_raises_the_error(seed: int, rows: int, columns: int, density: float, ridge: float) -> None:
    """Never above that of the old weights on the same support, and it solves the normal equations there."""
    w, h, _ = problem(seed, rows, columns)
    rng = np.random.default_rng(seed)
    mask = rng.random(w.shape) < density
    cross = (w + 0.3 * rng.standard_normal(w.shape)) @ h
    a, b = regularised(h, cross, w, ridge)
    found = on_support(a, b, mask, w)
    assert not found[~mask].any()
    assert (quadratic_error(h, cross, found) <= quadratic_error(h, cross, np.where(mask, w, 0)) + 1e-9).all()
    np.testing.assert_allclose(np.where(mask, found @ a - b, 0), 0, atol=1e-8)


def test_without_a_mask_and_with_own_targets_weights_stay() -> None:
    w, h, cross = problem(1, 5, 9)
    np.testing.assert_allclose(on_support(*regularised(h, cross, w, 0.01), np.ones(w.shape, bool), w), w, atol=1e-10)


def test_conjugate_gradients_find_what_factorisation_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    w, h, cross = problem(2, 20, 40)
    mask = np.random.default_rng(2).random(w.shape) < 0.5
    a, b = regularised(h, cross, w, 0.01)
    direct = on_support(a, b, mask, w)
    monkeypatch.setattr(solve, "_DIRECT", 0)
    np.testing.assert_allclose(on_support(a, b, mask, w), direct, atol=1e-3)


def test_inputs_that_never_vary_keep_their_weights() -> None:
    w = np.ones((2, 3))
    assert np.array_equal(on_support(*regularised(np.zeros((3, 3)), np.zeros((2, 3)), w, 0.01), w > 0, w), w)


@given(SEEDS, st.integers(2, 7), st.data())
@settings(max_examples=40, deadline=None)
def test_dropping_costs_and_moves_what_a_refit_gives(seed: int, columns: int, data: st.DataObject) -> None:
    """OBS's formulas are those of the constrained minimum of (v - w) h (v - w)'."""
    w, h, cross = problem(seed, 3, columns)
    gone = data.draw(st.lists(st.integers(0, columns - 1), min_size=1, max_size=columns - 1, unique=True))
    mask = np.ones(w.shape, bool)
    mask[:, gone] = False
    best = on_support(h, cross, mask, w)
    error = (((best - w) @ h) * (best - w)).sum()
    moved, inv = w.copy(), obs.inverse(h)
    assert block_costs(w, inv, np.array([gone]))[0] == pytest.approx(error, rel=1e-6)
    obs.drop(moved, inv, np.array(gone))
    np.testing.assert_allclose(moved, best, atol=1e-6)
    kept = [i for i in range(columns) if i not in gone]
    np.testing.assert_allclose(inv[np.ix_(kept, kept)], obs.inverse(h[np.ix_(kept, kept)]), atol=1e-6)


@given(SEEDS, st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_one_group_of_n_of_m_is_decided_by_the_exact_cost(seed: int, rows: int) -> None:
    """n - 1 of n: the column that goes is the one whose removal, refitted, costs least over the rows that share it."""
    w, h, _ = problem(seed, rows, 4)
    keep = np.broadcast_to(~np.eye(4, dtype=bool)[:, None], (4, rows, 4))
    best = keep[int(np.argmin([error_of(mask, w, h) for mask in keep]))]
    np.testing.assert_array_equal(obs.n_of_m(w, h, 4, NM(3, 4, rows)), best)


def test_groups_with_many_choices_are_decided_by_single_costs() -> None:
    w, h, _ = problem(3, 6, 16)
    mask = obs.n_of_m(w, h, 16, NM(8, 16, 2))
    assert (mask.sum(axis=1) == 8).all()
    np.testing.assert_array_equal(mask[::2], mask[1::2])
    first = np.square(w[:2]) / np.square(np.diagonal(np.linalg.cholesky(obs.inverse(h))))
    assert set(np.flatnonzero(mask[0])) == set(np.argsort(-first.sum(axis=0))[:8])


def error_of(mask: Array, w: Array, h: Array) -> float:
    best = on_support(h, w @ h, mask, w)
    return float((((best - w) @ h) * (best - w)).sum())


@pytest.mark.parametrize("text", ["2:4", "1:4", "2:4/rows=2", "1:4/rows=4"])
def test_elimination_is_near_the_best_mask_of_all(text: str) -> None:
    """Two groups, every mask tried: on average within a third of the best, and better than magnitude."""
    pattern = parse_goal(text).pattern
    assert isinstance(pattern, NM)
    ours = magnitude = best = 0.0
    single = list(combinations(range(4), pattern.n_keep))
    for seed in range(12):
        w, h, _ = problem(seed, pattern.rows, 8)
        masks = []
        for first in single:
            for second in single:
                kept = np.zeros(8, bool)
                kept[[*first, *(4 + i for i in second)]] = True
                masks.append(np.repeat(kept[None], len(w), axis=0))
        best += min(error_of(m, w, h) for m in masks)
        ours += error_of(obs.n_of_m(w, h, 8, pattern), w, h)
        score = np.repeat(np.square(w).sum(axis=0)[None], len(w), axis=0).reshape(len(w), 2, 4)
        top = np.argsort(-score, axis=2)[..., : pattern.n_keep]
        by_size = np.zeros(score.shape, bool)
        np.put_along_axis(by_size, top, True, axis=2)
        magnitude += error_of(by_size.reshape(w.shape), w, h)
    assert best <= ours <= magnitude
    assert ours <= best * 4 / 3


def test_blocks_go_in_the_order_of_brute_force() -> None:
    """The block of each row of blocks that goes first is the cheapest of all to refit without."""
    w, h, _ = problem(5, 4, 12)
    pattern = Block(2, 3, "each")
    ranks = elimination_order(Blocks.of(w, h, 2, pattern))
    assert ranks.shape == (2, 4)
    assert sorted(ranks.reshape(-1)) == list(range(8))
    for row in range(2):
        part = w[2 * row : 2 * row + 2]
        errors = []
        for block in range(4):
            mask = np.ones(part.shape, bool)
            mask[:, 3 * block : 3 * block + 3] = False
            errors.append(error_of(mask, part, h))
        assert ranks[row].argmin() == int(np.argmin(errors))


def test_exchanges_lower_the_error() -> None:
    """From any start, never worse, as many blocks, and much better where the start is bad."""
    improved = 0
    for seed in range(6):
        w, h, _ = problem(seed, 4, 12)
        pattern = Block(2, 2, "each")
        kept = np.zeros((2, 6), bool)
        kept[[0, 0, 0, 1, 1, 1], [0, 1, 2, 3, 4, 5]] = True
        column_of = np.tile(np.arange(3), 2)

        def error(kept: Array, w: Array = w, h: Array = h) -> float:
            return error_of(np.repeat(np.repeat(kept, 2, axis=0), 2, axis=1), w, h)

        found = Exchange(Blocks.of(w, h, 2, pattern), kept, column_of).run(100)
        assert found.sum() == kept.sum()
        assert found.any(axis=1).all()
        assert set(column_of[found.any(axis=0)]) == {0, 1, 2}
        assert error(found) <= error(kept) + 1e-9
        improved += error(found) < 0.9 * error(kept)
    assert improved >= 3


def test_groups_of_blocks_lose_no_more_than_they_may() -> None:
    w, h, _ = problem(5, 4, 16)
    group_of = np.arange(8) // 4
    ranks = elimination_order(Blocks.of(w, h, 2, Block(2, 2, "each")), group_of, 1)
    for row in ranks:
        last = np.argsort(row)[-2:]  # one of each group, however dear the others are
        assert sorted(group_of[last]) == [0, 1]


def test_exchanges_stay_in_a_group_of_a_row() -> None:
    """From the worst start that leaves no column empty, each group keeps as many, and the error falls."""
    improved = 0
    for seed in range(6):
        w, h, _ = problem(seed, 4, 16)
        kept = np.array([[1, 1, 0, 0, 0, 0, 1, 1], [0, 0, 1, 1, 1, 1, 0, 0]], bool)  # two taps of four columns
        column_of, group_of = np.tile(np.arange(4), 2), np.arange(8) // 4

        def error(kept: Array, w: Array = w, h: Array = h) -> float:
            return error_of(np.repeat(np.repeat(kept, 2, axis=0), 2, axis=1), w, h)

        found = Exchange(Blocks.of(w, h, 2, Block(2, 2, "each")), kept, column_of, group_of).run(100)
        assert (found.reshape(2, 2, 4).sum(axis=2) == 2).all()
        assert found.reshape(2, 2, 4).any(axis=(0, 1)).all()
        assert error(found) <= error(kept) + 1e-9
        improved += error(found) < 0.9 * error(kept)
        for row, come, go in product(range(2), range(8), range(8)):  # what is left cannot be bettered by one exchange
            if not found[row, come] and found[row, go] and group_of[come] == group_of[go]:
                other = found.copy()
                other[row, [come, go]] = True, False
                empty = not other.reshape(2, 2, 4).any(axis=(0, 1)).all()
                assert empty or error(other) >= error(found) * (1 - 1e-3)
    assert improved >= 3


GOALS = ["2:4", "1:4/rows=4", "2:4/rows=3", "block:4x4@50%", "block:4x4@75%/taps=each", "block:3x5@50%/taps=each",
         "block:4x2/2:4", "block:2x2/1:4/taps=each", "block:3x1/3:8/taps=each", "hinm:4:2:4@75%", "hinm:8:1:4@75%", "nmg:2:4:1",
         "unstructured@80%"]  # fmt: skip


@pytest.mark.parametrize("importance", [Importance.activation, Importance.second_order, Importance.obs])
@pytest.mark.parametrize("text", GOALS)
def test_every_mask_has_its_pattern(text: str, importance: Importance) -> None:
    goal = parse_goal(text)
    shape = (12, 2, 10)
    w, h, _ = problem(7, 12, 20)
    mask = mask_by_importance(importance, goal, w[None], h[None], np.diagonal(h)[None], shape).mask
    assert mask.shape == shape
    assert goal.pattern.holds(np.where(mask, w.reshape(shape), 0))
    assert isinstance(goal.pattern, NM | NMG | Block | HiNM | Unstructured)
    again = mask_by_importance(importance, goal, w[None], h[None], np.diagonal(h)[None], shape).mask
    np.testing.assert_array_equal(mask, again)
    assert 0 < mask.mean() <= 1 - goal.sparsity + 0.16  # tails, and blocks that keep a row or column alive


def test_wide_layers_are_compared_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    w, h, _ = problem(8, 8, 16)
    for goal in map(parse_goal, ("block:4x4@50%/taps=each", "block:4x4/2:4/taps=each", "hinm:4:2:4@75%")):
        whole = mask_by_importance(Importance.obs, goal, w[None], h[None], np.diagonal(h)[None], (8, 1, 16)).mask
        with monkeypatch.context() as patch:
            for module in (obs, block_obs, importance_module):
                patch.setattr(module, "LARGEST", 8)
            quick = mask_by_importance(Importance.obs, goal, w[None], h[None], np.diagonal(h)[None], (8, 1, 16)).mask
        assert goal.pattern.holds(np.where(quick, w[:, None], 0))
        assert quick.sum() == whole.sum()


@pytest.mark.parametrize("importance", [Importance.activation, Importance.second_order, Importance.obs])
@pytest.mark.parametrize("text", ["hinm:4:2:4@75%", "hinm:8:1:4@75%", "hinm:5:2:4@50%"])
def test_tiles_may_take_their_inputs_in_another_order(text: str, importance: Importance) -> None:
    goal, shape = parse_goal(text), (12, 2, 17)
    assert isinstance(goal.pattern, HiNM)
    w, h, _ = problem(7, 12, 34)
    chosen = mask_by_importance(importance, goal, w[None], h[None], np.diagonal(h)[None], shape, order_seed=0)
    plain = mask_by_importance(importance, goal, w[None], h[None], np.diagonal(h)[None], shape)
    assert chosen.lists is not None and chosen.mask.sum() == plain.mask.sum()
    assert (plain.lists is None) == (importance is not Importance.obs)
    kept = np.where(chosen.mask, w.reshape(shape), 0)
    assert replace(goal.pattern, order=TileOrder.of(chosen.lists)).violation(kept) == ""
    assert not np.array_equal(chosen.mask, plain.mask)


def test_an_order_of_inputs_lowers_the_error_of_a_tile() -> None:
    """Over some problems, of the same columns: n:m in the order found is worth more than in ascending order."""
    pattern, errors = HiNM(4, 2, 4), np.zeros(2)
    for seed in range(8):
        w, h, _ = problem(seed, 4, 24)
        for i, order_seed in enumerate((None, 0)):
            mask, _ = obs.hierarchical(w, h, 24, pattern, 16, order_seed)
            errors[i] += error_of(mask, w, h)
    assert errors[1] < errors[0]


def test_padding_of_blocks_is_never_read() -> None:
    w, h, _ = problem(9, 5, 10)
    goal = parse_goal("block:4x4@50%/taps=each")
    mask = mask_by_importance(Importance.obs, goal, w[None], h[None], np.diagonal(h)[None], (5, 2, 5)).mask
    assert goal.pattern.holds(np.where(mask, w.reshape(5, 2, 5), 0))
    assert 0 < mask.sum() < mask.size
