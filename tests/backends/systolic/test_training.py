"""SAT: the units beside the array, and the schedule of a training step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.backends.systolic import Dataflow, dense_cycles, grouped_cycles, parse_machine
from sparsec.backends.systolic.training import Trained, training_schedule
from sparsec.backends.systolic.training_engine import NumpyEngine, Optimiser
from sparsec.backends.systolic.units import sore
from sparsec.compiler.errors import UsageError
from sparsec.compiler.sparsity import NM
from sparsec.compiler.sparsity.text import goal
from sparsec.passes.pruning.masks import choose

PATTERNS = st.sampled_from([(2, 4), (2, 8), (2, 16), (1, 4), (3, 8)])


@given(st.integers(1, 9), st.integers(1, 40), PATTERNS, st.integers(0, 2**32 - 1), st.integers(1, 8))
def test_sore_keeps_what_pruning_keeps(rows: int, extent: int, pattern: tuple[int, int], seed: int, width: int) -> None:
    w = np.random.default_rng(seed).integers(-6, 7, (rows, extent)).astype(np.float32)  # with equals
    keep, group = pattern
    found = sore(w, keep, group, width)
    mask = choose(goal(NM(keep, group), None, "n:m"), np.abs(w)[:, None, :]).mask[:, 0]
    np.testing.assert_array_equal(found.dense(extent, group), np.where(mask, w, 0))
    np.testing.assert_array_equal(NumpyEngine(pattern, Optimiser()).kept(w), np.where(mask, w, 0))
    groups = rows * -(-extent // group)
    assert found.cycles == -(-groups // width) * group + keep


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
