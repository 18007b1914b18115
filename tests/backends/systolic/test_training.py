"""SAT: the units beside the array, a step of training against numpy, and its schedule."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.backends.systolic import Dataflow, Level, dense_cycles, grouped_cycles, parse_machine
from sparsec.backends.systolic.training import Trained, training_schedule
from sparsec.backends.systolic.training_step import LayerState, Optimiser, train_step
from sparsec.backends.systolic.units import sore
from sparsec.backends.systolic.windows import Geometry
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


def convolve(x: Array, w: Array, geometry: Geometry) -> Array:
    """[B, IC, H, W] and [OC, taps, IC], window by window."""
    pad, k, step = geometry.pad, geometry.kernel, geometry.stride
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    out = np.zeros((len(x), len(w), *geometry.out))
    for i, j in np.ndindex(*geometry.out):
        window = padded[:, :, i * step : i * step + k, j * step : j * step + k].reshape(len(x), x.shape[1], k * k)
        out[:, :, i, j] = np.einsum("bct,otc->bo", window, w)
    return out


def loss_of(layers: list[LayerState], x: Array, target: Array) -> float:
    """Half the squared error, averaged over the batch."""
    x = x.astype(np.float64)
    for i, layer in enumerate(layers):
        w = layer.w.astype(np.float64)
        if layer.geometry is None:
            x = x.reshape(len(x), -1) @ w.T
        else:
            x = convolve(x, w.reshape(len(w), -1, layer.geometry.channels), layer.geometry)
        x = np.maximum(x, 0) if i < len(layers) - 1 else x
    return 0.5 * float(np.square(x - target, dtype=np.float64).sum()) / len(x)


def state(rng: np.random.Generator, m: int, k: int, geometry: Geometry | None = None) -> LayerState:
    w, momentum = (rng.standard_normal((m, k)).astype(np.float32) / k**0.5 for _ in range(2))
    return LayerState(w, momentum, geometry)


def small_network(rng: np.random.Generator) -> list[LayerState]:
    """Two convolutions, the second with a stride, and two full connections."""
    first, second = Geometry(2, 6, 5, 3, 1, 1), Geometry(8, 6, 5, 3, 2, 1)
    return [state(rng, 8, 18, first), state(rng, 8, 72, second), state(rng, 16, 8 * 9), state(rng, 5, 16)]


@pytest.mark.parametrize("level", [Level.FOLDS, Level.PES], ids=lambda v: v.value)
def test_a_dense_step_follows_the_gradient_of_the_loss(level: Level) -> None:
    """Gradients against differences of the loss, which numpy computes window by window."""
    rng = np.random.default_rng(5)
    layers, x, target = small_network(rng), rng.standard_normal((3, 2, 6, 5)).astype(np.float32), rng.standard_normal((3, 5))
    step = train_step(parse_machine("sat:8x4"), layers, x, target.astype(np.float32), (0, 0), Optimiser(0.05, 0.8), level)
    assert step.loss == pytest.approx(loss_of(layers, x, target), rel=1e-5)
    for i, (before, after) in enumerate(zip(layers, step.layers, strict=True)):
        np.testing.assert_allclose(after.w, before.w - 0.05 * after.momentum, rtol=1e-5, atol=1e-6)
        gradient = after.momentum - 0.8 * before.momentum
        for row, column in [(0, 0), (3, 7), (4, before.w.shape[1] - 1)]:
            losses = []
            for change in (1e-5, -1e-5):
                w = before.w.astype(np.float64)
                w[row, column] += change
                losses.append(loss_of([*layers[:i], LayerState(w, w, before.geometry), *layers[i + 1 :]], x, target))
            assert gradient[row, column] == pytest.approx((losses[0] - losses[1]) / 2e-5, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("pattern", [(2, 8), (1, 4)], ids=["2:8", "1:4"])
def test_a_pruned_step_is_that_of_numpy(pattern: tuple[int, int]) -> None:
    """BDWP: forwards with masks along inputs, backwards with masks along outputs, dense gradients of the weights."""
    rng = np.random.default_rng(1)
    sizes, batch = (12, 24, 16, 20, 5), 7
    layers = [state(rng, m, k) for k, m in pairwise(sizes)]
    x, target = (rng.standard_normal((batch, n)).astype(np.float32) for n in (sizes[0], sizes[-1]))
    machine = parse_machine("sat:8x4")
    step = train_step(machine, layers, x, target, pattern, Optimiser(0.05, 0.8))
    inner = [s.w if i in (0, 3) else kept(s.w, *pattern) for i, s in enumerate(layers)]
    turned = [s.w.T if i in (0, 3) else kept(s.w.T, *pattern) for i, s in enumerate(layers)]
    values = [x.T]
    for i, w in enumerate(inner):
        values.append(np.maximum(w @ values[-1], 0) if i < 3 else w @ values[-1])
    error = (values[-1] - target.T) / batch
    assert step.loss == pytest.approx(0.5 * float(np.square(values[-1] - target.T).sum()) / batch, rel=1e-5)
    for i in (3, 2, 1, 0):
        momentum = 0.8 * layers[i].momentum + error @ values[i].T
        np.testing.assert_allclose(step.layers[i].momentum, momentum, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(step.layers[i].w, layers[i].w - 0.05 * momentum, rtol=1e-4, atol=1e-5)
        error = (turned[i] @ error) * (values[i] > 0)
    shapes = [Trained(str(i), *s.w.shape, batch, pruned=i in (1, 2), first=i == 0) for i, s in enumerate(layers)]
    schedule = training_schedule(machine, shapes, *pattern)
    assert step.cycles == {name: sum(s.cycles for s in schedule.stages if s.name == name) for name in ("FF", "WU", "BP")}
    assert any(s.dataflow.grouped for s in schedule.stages) and step.units > 0


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
