"""Patterns: packing is exact, its bytes are what the form says, and weights that break a pattern are told where."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.compiler.sparsity import DENSE, NM, NMG, Block, HiNM, Sparsity, Unstructured
from sparsec.compiler.sparsity.base import Array, narrow, pack_bits, unpack_bits
from sparsec.compiler.sparsity.nmg import row_patterns
from sparsec.compiler.sparsity.text import Goal
from sparsec.passes.pruning.masks import choose

SHAPES = st.tuples(st.integers(1, 21), st.sampled_from([1, 1, 4, 9]), st.integers(1, 21))
PATTERNS: st.SearchStrategy[Sparsity] = st.one_of(
    st.just(Unstructured()),
    st.builds(Block, st.integers(1, 9), st.integers(1, 9), st.sampled_from(["shared", "each"])),
    st.builds(
        lambda br, bc, taps, n, more: Block(br, bc, taps, n_keep=n, m_group=n + more),
        *(st.integers(1, 5), st.integers(1, 4), st.sampled_from(["shared", "each"]), st.integers(1, 2), st.integers(1, 3)),
    ),
    st.builds(lambda n, more, rows: NM(n, n + more, rows), st.integers(1, 4), st.integers(1, 5), st.integers(1, 9)),
    st.builds(lambda n, more, g: NMG(n, n + more, g), st.integers(1, 2), st.integers(1, 3), st.integers(1, 3)),
    st.builds(lambda v, n, more: HiNM(v, n, n + more), st.integers(1, 9), st.integers(1, 2), st.integers(1, 3)),
)


def gaussian(shape: tuple[int, ...], seed: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def pruned(pattern: Sparsity, shape: tuple[int, int, int], seed: int, sparsity: float = 0.6) -> Array:
    """Gaussian weights pruned to the pattern."""
    w = gaussian(shape, seed)
    return np.where(choose(Goal(pattern, sparsity), np.abs(w)).mask, w, 0)


@settings(max_examples=150, deadline=None)
@given(PATTERNS, SHAPES, st.integers(0, 99), st.sampled_from([0.3, 0.6, 0.95]))
def test_pruned_weights_have_the_pattern_and_pack_exactly(
    pattern: Sparsity, shape: tuple[int, int, int], seed: int, sparsity: float
) -> None:
    w = pruned(pattern, shape, seed, sparsity)
    assert pattern.violation(w) == ""
    assert pattern.of(w).nnz == np.count_nonzero(w)
    packed = pattern.pack(w)
    again = pattern.unpack(packed)
    assert again.dtype == w.dtype and again.tobytes() == np.ascontiguousarray(w).tobytes()
    assert all(a.dtype.kind == "u" for a in packed.indices.values())


@settings(max_examples=150, deadline=None)
@given(PATTERNS, SHAPES, st.integers(0, 99), st.floats(0, 1))
def test_any_weights_pack_exactly_or_are_refused(
    pattern: Sparsity, shape: tuple[int, int, int], seed: int, density: float
) -> None:
    w = np.where(np.random.default_rng(seed).random(shape) < density, gaussian(shape, seed), 0).astype(np.float32)
    if why := pattern.violation(w):
        assert not pattern.holds(w)
        with pytest.raises(ValueError, match="the weights are not"):
            pattern.pack(w)
        assert why[0].islower() and "\n" not in why
    else:
        np.testing.assert_array_equal(pattern.unpack(pattern.pack(w)), w)


def test_negative_zeros_are_zeros_and_every_element_type_packs() -> None:
    w = pruned(NM(2, 4), (8, 1, 8), 0)
    w[w == 0] = -0.0
    assert NM(2, 4).holds(w)
    for dtype in (np.float16, np.float64):
        assert NM(2, 4).unpack(NM(2, 4).pack(w.astype(dtype))).dtype == dtype


@pytest.mark.parametrize(
    ("pattern", "sparsity", "most"),
    [
        (NM(2, 4), 0.5, 0.58),
        (NM(2, 4, 32), 0.5, 0.53),
        (NM(1, 4, 32), 0.75, 0.27),
        (Block(8, 8), 0.75, 0.27),
        (Block(8, 8, "each"), 0.75, 0.27),
        (Block(32, 1), 0.75, 0.27),
        (Block(8, 8, n_keep=1, m_group=4), 0.75, 0.27),
        (HiNM(32, 2, 4), 0.75, 0.29),
        (NMG(1, 4, 16), 0.75, 0.32),
        (Unstructured(), 0.9, 0.151),
    ],
    ids=str,
)
def test_packed_bytes_shrink_with_density(pattern: Sparsity, sparsity: float, most: float) -> None:
    w = pruned(pattern, (128, 9, 128), 1, sparsity)
    assert 1 - sparsity <= pattern.pack(w).nbytes / w.nbytes <= most


def test_dense_stores_everything_and_prints_nothing() -> None:
    w = gaussian((3, 4, 5), 0)
    np.testing.assert_array_equal(DENSE.unpack(DENSE.pack(w)), w)
    assert (str(DENSE), DENSE.of(w), DENSE.pack(w).nbytes) == ("", DENSE, w.nbytes)


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 300), st.lists(st.integers(0, 1 << 30), max_size=40))
def test_numbers_survive_as_bits(below: int, numbers: list[int]) -> None:
    values = np.array([n % below for n in numbers], np.int64)
    packed = pack_bits(values, below)
    assert packed.nbytes == -(-len(values) * (below - 1).bit_length() // 8)
    np.testing.assert_array_equal(unpack_bits(packed, below, values.shape), values)


def test_indices_are_as_narrow_as_they_can_be() -> None:
    widths = {255: np.uint8, 256: np.uint16, 65535: np.uint16, 65536: np.uint32}
    assert {top: narrow(np.array([0, top])).dtype.type for top in widths} == widths


def test_grouped_patterns_come_in_stens_order() -> None:
    assert row_patterns(2, 4) == ((0, 1), (0, 2), (1, 2), (1, 3), (0, 3), (2, 3))
    assert row_patterns(1, 4) == ((1,), (0,), (2,), (3,))
    for n, m in ((3, 6), (2, 8), (1, 10)):
        order = row_patterns(n, m)
        assert len(set(order)) == len(order)
        assert all(len(set(a) ^ set(b)) == 2 for a, b in pairwise(order)), (n, m)


def test_grouped_weights_with_missing_entries_still_find_their_columns() -> None:
    w = pruned(NMG(2, 4, 2), (8, 1, 24), 3)
    rng = np.random.default_rng(3)
    w[rng.random(w.shape) < 0.3] = 0  # as retraining may do
    assert NMG(2, 4, 2).holds(w)
    np.testing.assert_array_equal(NMG(2, 4, 2).unpack(NMG(2, 4, 2).pack(w)), w)


def test_hierarchical_lists_close_up_where_a_kept_channel_lost_all_its_weights() -> None:
    pattern, w = HiNM(2, 1, 2), np.zeros((2, 1, 8), np.float32)
    w[0, 0, [0, 2, 5]] = 1  # the partner of channel 0 in its group has nothing left
    w[1, 0, [3, 4]] = 1
    assert pattern.lists(w).shape == (1, 1, 6)
    np.testing.assert_array_equal(pattern.unpack(pattern.pack(w)), w)


def test_violations_say_where() -> None:
    w = np.ones((4, 2, 8), np.float32)
    assert NM(2, 4).violation(w) == "output 0 keeps 4 of the input channels 0 to 3 at tap 0"
    w[:, 0] = 0
    assert NM(2, 4, 2).violation(w) == "outputs 0 to 1 keep 4 of the input channels 0 to 3 at tap 1"
    assert Block(2, 2, n_keep=1, m_group=2).violation(w) == "row 0 of blocks keeps 2 of the block columns 0 to 1"
    each = Block(3, 1, "each", n_keep=3, m_group=4)
    assert each.violation(w) == "row 0 of blocks keeps 4 of the block columns 0 to 3 at tap 1"
    half = w.copy()
    half[0, 1, :4] = half[:3, 1, 6] = 0
    assert each.violation(half) == "row 0 of blocks keeps 4 of the block columns 0 to 3 at tap 1"
    half[:3, 1, 1] = half[3, 1, 7] = 0
    assert each.violation(half) == "row 1 of blocks keeps 4 of the block columns 0 to 3 at tap 1"
    half[3, 1, 0] = 0
    assert each.violation(half) == ""
    assert NMG(2, 4, 1).violation(w) == "column 8 keeps more than 2 of the outputs from 0 on"
    w[2:, 1] = 0
    why = "of the columns 6 to 11, more than 1 keep the same choice of the outputs from 0 on"
    assert NMG(2, 4, 1).violation(w) == why
    dense = np.ones((4, 1, 8), np.float32)
    why = "a tile of 4 outputs needs 4 groups of 4 channels of which each output keeps 2, and has 2"
    assert HiNM(4, 2, 4).violation(dense) == why


@pytest.mark.parametrize(
    "build",
    [
        lambda: NM(4, 4),
        lambda: NM(0, 4),
        lambda: NM(2, 4, 0),
        lambda: Block(0, 8),
        lambda: Block(8, 8, "some"),
        lambda: Block(8, 8, n_keep=4, m_group=4),
        lambda: Block(8, 8, n_keep=0, m_group=4),
        lambda: Block(8, 8, n_keep=2),
        lambda: NMG(2, 2, 1),
        lambda: NMG(2, 4, 0),
        lambda: NMG(1, 13, 1),
        lambda: HiNM(0, 2, 4),
        lambda: HiNM(32, 4, 4),
    ],
)
def test_patterns_that_cannot_be_are_refused(build: object) -> None:
    with pytest.raises(ValueError, match=r"need|are BRxBC|takes m up to 12"):
        build()  # type: ignore[operator]
