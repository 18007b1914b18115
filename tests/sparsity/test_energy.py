"""What patterns retain of |w| on Gaussian weights, against published and measured numbers."""

import numpy as np
import pytest

from sparsec.compiler.sparsity import NM, NMG, HiNM, Sparsity, Unstructured
from sparsec.compiler.sparsity.base import Array
from sparsec.compiler.sparsity.text import Goal
from sparsec.passes.pruning.masks import choose, nmg_mask

W = np.random.default_rng(7).standard_normal((256, 1, 480)).astype(np.float32)


def energy(mask: Array) -> float:
    return float(np.abs(W)[mask].sum() / np.abs(W).sum())


def retained(pattern: Sparsity, sparsity: float) -> float:
    return energy(choose(Goal(pattern, sparsity), np.abs(W)).mask)


# n, m, unstructured, n:m, n:m:g greedily with g of 1, 4, 16 (iid Gaussian weights)
TABLE = [
    (2, 4, 0.796, 0.744, (0.683, 0.726, 0.734)),
    (1, 4, 0.516, 0.459, (0.400, 0.428, 0.444)),
    (2, 8, 0.516, 0.484, (0.448, 0.469, 0.474)),
    (1, 10, 0.258, 0.235, (0.207, 0.227, 0.232)),
]


@pytest.mark.parametrize(("n", "m", "free", "grouped", "chunked"), TABLE)
def test_energies(n: int, m: int, free: float, grouped: float, chunked: tuple[float, ...]) -> None:
    own = retained(NM(n, m), 1 - n / m)
    assert retained(Unstructured(), 1 - n / m) == pytest.approx(free, abs=0.01)
    assert own == pytest.approx(grouped, abs=0.01)
    for g, expected in zip((1, 4, 16), chunked, strict=True):
        pattern = NMG(n, m, g)
        columns = 480 // pattern.chunk * pattern.chunk
        w = np.abs(W[:, :, :columns]) if columns else np.abs(np.resize(W, (256, 1, pattern.chunk)))
        found = float(w[nmg_mask(pattern, w, exact=False)].sum() / w.sum())
        assert found == pytest.approx(expected, abs=0.01), g
        along = np.sort(w.reshape(256 // m, m, -1) if 256 % m == 0 else w[: 256 // m * m].reshape(256 // m, m, -1), axis=1)
        most = along[:, m - n :].sum() / along.sum()  # n:m along the outputs, with no chunks
        assert n / m < found <= most + 1e-3


@pytest.mark.parametrize(("n", "m", "g"), [(2, 4, 1), (1, 4, 4), (2, 4, 4), (1, 4, 16)])
def test_the_best_assignment_beats_the_greedy_one_a_little(n: int, m: int, g: int) -> None:
    pattern = NMG(n, m, g)
    w = np.abs(W[:64, :, : 480 // pattern.chunk * pattern.chunk])
    greedy, best = (float(w[nmg_mask(pattern, w, exact)].sum() / w.sum()) for exact in (False, True))
    assert 0 < best - greedy < 0.03
    assert n / m < best <= retained(NM(n, m), 1 - n / m) + 0.01


def test_hierarchical_energy() -> None:
    w = np.abs(np.random.default_rng(0).standard_normal((256, 1, 512)).astype(np.float32))
    mask = choose(Goal(HiNM(32, 2, 4), 0.75), w).mask
    assert mask.mean() == 0.25
    assert w[mask].sum() / w.sum() == pytest.approx(0.407, abs=0.01)
