"""Orders in which cores wait little for one another: what they wait for, and that a search finds no order that is worse."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.passes.permutation.sharing import Array, Share, shared, waited


def _waited(counts: Array) -> float:
    """Core by core: each block of outputs takes as long as the cores of a chain that has most, an even number."""
    outputs, inputs = counts.shape
    found = []
    for chain, turns in ((1, (4, 8, 16)), (2, (2, 4, 8)), (4, (1, 2, 4))):
        for n in turns:
            if inputs % chain or inputs < 2 * chain or outputs <= n:
                continue
            each = inputs // chain
            cores = [0.0] * n
            for o in range(outputs):
                parts = [sum(counts[o, i * each : (i + 1) * each]) for i in range(chain)]
                cores[o % n] += max(2 * np.ceil(p / 2) for p in parts)
            found.append(chain * n * max(cores))
    return float(np.mean(found)) if found else 0.0


@st.composite
def _layers(draw: st.DrawFn) -> tuple[int, list[Share]]:
    """Layers with the same items as outputs or inputs, of which there may be others, and of an item several blocks."""
    items, rng = draw(st.sampled_from([1, 2, 4, 8, 16])), np.random.default_rng(draw(st.integers(0, 999)))
    found = []
    for _ in range(draw(st.integers(1, 3))):
        each, more = draw(st.integers(1, 2)), draw(st.sampled_from([0, items]))
        own = items * each + more
        others, outputs = draw(st.sampled_from([1, 2, 4, 8, 16, 5])), draw(st.booleans())
        counts = rng.integers(0, 10, (own, others) if outputs else (others, own)).astype(float)
        at = np.sort(rng.permutation(own)[: items * each].reshape(items, each), axis=1)
        found.append(Share(counts, at, outputs))
    return items, found


@settings(max_examples=100)
@given(_layers(), st.integers(0, 99))
def test_cores_wait_for_the_one_that_has_most(layers: tuple[int, list[Share]], seed: int) -> None:
    items, shares = layers
    order = np.random.default_rng(seed).permutation(items)
    for share in shares:
        made = share.ordered(order)
        lines, before = (made, share.counts) if share.outputs else (made.T, share.counts.T)
        for place, item in enumerate(order):
            assert np.array_equal(lines[share.at[place]], before[share.at[item]])
        assert np.isclose(waited(made), _waited(made))
        assert np.isclose(share.waited(order), _waited(made))


@settings(max_examples=40)
@given(_layers())
def test_no_order_that_is_found_is_worse(layers: tuple[int, list[Share]]) -> None:
    items, shares = layers
    order = shared(items, shares, np.random.default_rng(0))
    assert sorted(order) == list(range(items))
    then, now = (sum(s.waited(o) for s in shares) for o in (np.arange(items), order))
    assert now <= then + 1e-9


def test_an_order_in_which_nobody_waits_is_found_and_kept() -> None:
    """Inputs with blocks in the first half of the outputs, then inputs with those of the other half."""
    counts = np.kron(np.eye(2), np.full((8, 8), 2.0))
    order = shared(16, [Share(counts, np.arange(16)[:, None], False)], np.random.default_rng(0))
    made = counts[:, order]
    assert waited(counts) > 1.3 * counts.sum()
    assert waited(made) == counts.sum()
    again = shared(16, [Share(made, np.arange(16)[:, None], False)], np.random.default_rng(0))
    assert np.array_equal(again, np.arange(16))
