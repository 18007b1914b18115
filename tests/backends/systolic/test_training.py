"""SAT: the units beside the array, a step of training against numpy, and its schedule."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.backends.systolic import Dataflow, Level, dense_cycles, grouped_cycles, parse_machine
from sparsec.backends.systolic.training import Trained, training_schedule
from sparsec.backends.systolic.training_step import Optimiser, train_step
from sparsec.backends.systolic.units import sore
from sparsec.compiler.errors import UsageError
from sparsec.compiler.sparsity import NM
from sparsec.compiler.sparsity.text import goal
from sparsec.passes.pruning.masks import choose

PATTERNS = st.sampled_from([(2, 4), (2, 8), (2, 16), (1, 4), (3, 8)])
Array = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


@given(st.integers(1, 9), st.integers(1, 40), PATTERNS, st.integers(0, 2**32 - 1), st.integers(1, 8))
def test_sore_keeps_what_pruning_keeps(rows: int, extent: int, pattern: tuple[int, int], seed: int, width: int) -> None:
    w = np.random.default_rng(seed).integers(-6, 7, (rows, extent)).astype(np.float32)  # with equals
    keep, group = pattern
    found = sore(w, keep, group, width)
    mask = choose(goal(NM(keep, group), None, "n:m"), np.abs(w)[:, None, :]).mask[:, 0]
    np.testing.assert_array_equal(found.dense(extent, group), np.where(mask, w, 0))
    groups = rows * -(-extent // group)
    assert found.cycles == -(-groups // width) * group + keep


def kept(w: Array, keep: int, group: int) -> Array:
    mask = choose(goal(NM(keep, group), None, "n:m"), np.abs(w)[:, None, :]).mask[:, 0]
    return np.where(mask, w, 0).astype(np.float32)


@pytest.mark.parametrize("pattern", [None, (2, 8), (1, 4)], ids=["dense", "2:8", "1:4"])
@pytest.mark.parametrize("level", [Level.FOLDS, Level.PES], ids=lambda v: v.value)
def test_a_step_is_that_of_numpy(pattern: tuple[int, int] | None, level: Level) -> None:
    rng = np.random.default_rng(1)
    sizes, batch = (12, 24, 16, 20, 5), 7
    weights = [rng.standard_normal((m, k)).astype(np.float32) / 4 for k, m in pairwise(sizes)]
    momenta = [rng.standard_normal(w.shape).astype(np.float32) / 8 for w in weights]
    x, target = (rng.standard_normal((n, batch)).astype(np.float32) for n in (sizes[0], sizes[-1]))
    step = train_step(parse_machine("sat:8x4"), weights, momenta, x, target, pattern, Optimiser(0.05, 0.8), level)

    inner = [w if pattern is None or i in (0, 3) else kept(w, *pattern) for i, w in enumerate(weights)]
    turned = [w.T if pattern is None or i in (0, 3) else kept(w.T, *pattern) for i, w in enumerate(weights)]
    values = [x]
    for i, w in enumerate(inner):
        values.append(np.maximum(w @ values[-1], 0) if i < 3 else w @ values[-1])
    error = (values[-1] - target) / batch
    assert step.loss == pytest.approx(0.5 * float(np.square(values[-1] - target).sum()) / batch, rel=1e-5)
    for i in (3, 2, 1, 0):
        momentum = 0.8 * momenta[i] + error @ values[i].T
        np.testing.assert_allclose(step.momenta[i], momentum, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(step.weights[i], weights[i] - 0.05 * momentum, rtol=1e-4, atol=1e-5)
        error = (turned[i] @ error) * (values[i] > 0)
    shapes = [Trained(str(i), w.shape[0], w.shape[1], batch, pruned=i in (1, 2), first=i == 0) for i, w in enumerate(weights)]
    schedule = training_schedule(parse_machine("sat:8x4"), shapes, *(pattern or ()))
    assert step.cycles == {name: sum(s.cycles for s in schedule.stages if s.name == name) for name in ("FF", "WU", "BP")}


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 2000), PATTERNS)
@settings(max_examples=50)
def test_stages_take_the_better_dataflow(m: int, k: int, positions: int, pattern: tuple[int, int]) -> None:
    machine = parse_machine("sat:16x8")
    schedule = training_schedule(machine, [Trained("a", m, k, positions)], *pattern)
    ff, wu, bp = schedule.stages
    sparse = [grouped_cycles(d, 16, 8, m, k, positions, *pattern) for d in (Dataflow.NMOS, Dataflow.NMWS)]
    dense = [dense_cycles(d, 16, 8, m, k, positions) for d in (Dataflow.DOS, Dataflow.DWS)]
    assert (ff.name, ff.cycles) == ("FF", min(sparse + dense))
    backwards = [grouped_cycles(d, 16, 8, k, m, positions, *pattern) for d in (Dataflow.NMOS, Dataflow.NMWS)]
    assert (bp.name, bp.cycles) == (
        "BP",
        min(backwards + [dense_cycles(d, 16, 8, k, m, positions) for d in (Dataflow.DOS, Dataflow.DWS)]),
    )
    assert wu.name == "WU" and wu.cycles + wu.waiting >= 2 * -(-m * k // 8)


def test_groups_that_links_cannot_carry() -> None:
    with pytest.raises(UsageError, match="2:16 does not fit sat:8x8/lanes=8"):
        training_schedule(parse_machine("sat:8x8/lanes=8"), [Trained("a", 8, 8, 8)], 2, 16)
