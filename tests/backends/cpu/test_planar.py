"""Planar kernels against numpy: lists, tails, taps, chunks, groups of panels, both storage orders, epilogues, every ISA."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.backends.cpu.isa import Isa, host_isa, isa_named, runs_here
from sparsec.backends.cpu.kernel import struct_declaration, struct_initializer
from sparsec.backends.cpu.kernels.panel_plan import split
from sparsec.backends.cpu.kernels.planar import PlanarGeometry, PlanarKernel, legal
from sparsec.backends.cpu.kernels.planar_pack import pack, row_order, subsets
from sparsec.backends.cpu.kernels.planar_plan import Lists, PlanarProblem, choose, cycles, listings, tilings
from sparsec.backends.cpu.prelude import prelude
from sparsec.compiler.scalar import Program
from tests.backends.cpu.native import CFLAGS, SANITIZE, Call, run_calls, runnable_isas
from tests.machine import needs

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float32]]
RESIDUAL = Program.parse("add(a0,a1);add(t0,a2);relu(t1)")
HEAVY = Program.parse("add(a0,a1);add(t0,a2);sigmoid(t1)")  # and not zero where its operands are
EXTRAS = ("channel", "full")
ALL_OF_4 = tuple(range(1, 16))


@dataclass(frozen=True)
class Case:
    """`taps` shift the positions by one each; `groups`: parts that the panels are dealt out in."""

    oc: int
    ic: int
    positions: int
    ow: int
    r: int
    s: int
    masks: tuple[int, ...]
    k_run: int = 1
    x_blocked: bool = False
    y_blocked: bool = False
    chunk_rows: int = 1 << 15
    groups: int = 1
    epilogue: Program = RESIDUAL
    taps: int = 1
    n: int = 1
    density: float = 0.3
    threads: int = 1


def stored(array: Floats, blocked: bool, lanes: int) -> Floats:
    """[n, channels, positions] as it is, or as [channels / lanes][n][positions][lanes]."""
    if blocked:
        n, channels, positions = array.shape
        full = np.zeros((-(-channels // lanes) * lanes, n, positions), np.float32)
        full[:channels] = array.transpose(1, 0, 2)
        array = full.reshape(-1, lanes, n, positions).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(array)


def call_of(case: Case, isa: Isa, seed: int) -> tuple[PlanarKernel, Call, Floats]:
    """(kernel, its call, whose last buffer is the output, what numpy computes [n, oc, positions])."""
    c, lanes, rng = case, isa.lanes, np.random.default_rng(seed)
    w = rng.normal(size=(c.oc, c.taps, c.ic)).astype(np.float32) * (rng.random((c.oc, c.taps, c.ic)) < c.density)
    x = rng.normal(size=(c.n, c.ic, c.positions + c.taps - 1)).astype(np.float32)
    y = sum(np.einsum("oc,ncp->nop", w[:, t], x[:, :, t : t + c.positions]) for t in range(c.taps))
    bias, residual = rng.normal(size=(c.oc, 1)).astype(np.float32), rng.normal(size=y.shape).astype(np.float32)
    want = c.epilogue.evaluate([y, bias[None], residual])
    rows = row_order(w, lanes if c.x_blocked else 1)
    step = max(c.k_run, lanes if c.x_blocked else 1)
    chunk = min(-(-c.chunk_rows // step) * step, -(-rows.shape[1] // step) * step)
    panels = -(-c.oc // c.r)
    each = min(panels, -(-panels // c.groups * c.r // lanes) * max(1, lanes // c.r)) if c.groups > 1 else panels
    lists = pack(rows, c.r, c.masks, c.k_run, chunk, each)
    s, full, s_tail, tails = split(-(-c.positions // lanes), c.s)
    chunked = rows.shape[1] > chunk
    masked = c.oc % lanes if c.y_blocked and c.epilogue is HEAVY else 0
    narrow = lists.entries.dtype == np.uint8
    kernel = PlanarKernel(
        c.r,
        s,
        s_tail,
        c.masks,
        c.k_run,
        narrow,
        chunked,
        c.epilogue,
        EXTRAS,
        masked,
        x_blocked=c.x_blocked,
        y_blocked=c.y_blocked,
    )
    size, out_size = x.shape[2] * (lanes if c.x_blocked else 1), c.positions * (lanes if c.y_blocked else 1)
    x_batch, x_block = (size, c.n * size) if c.x_blocked else (c.ic * size, size)
    y_batch, y_block = (out_size, c.n * out_size) if c.y_blocked else (c.oc * out_size, out_size)
    y_row = c.ow * lanes if c.y_blocked else 0
    geometry = PlanarGeometry(
        c.n, c.positions, c.ow, full, tails, c.oc, panels, each,
        rows.shape[1], -(-rows.shape[1] // chunk), chunk, c.taps, x_batch, x_block, c.ow * lanes, lanes,
        y_batch, y_block, y_row, (y_batch, 0), (y_block, 0), (y_row, 0),
    )  # fmt: skip
    blocks = -(-c.oc // lanes)
    vector = np.zeros(blocks * lanes, np.float32)
    vector[: c.oc] = bias.ravel()
    got = np.full(blocks * lanes * c.n * c.positions if c.y_blocked else want.size, 7, np.float32)
    taps = [(np.arange(c.taps) * lanes).astype(np.int32)] if c.x_blocked else []
    arrays = (lists.w, lists.entries, lists.counts, lists.begin)
    buffers = [stored(x, c.x_blocked, lanes), *arrays, *taps, vector, stored(residual, c.y_blocked, lanes), got]
    buffers.insert(-1, np.zeros(kernel.scratch_bytes(geometry, isa), np.uint8))
    operands = [f"b[{i}]" for i in range(len(buffers) - 2)] + [f"b[{len(buffers) - 1}]"]
    arguments = f"&g, {', '.join(operands)}, b[{len(buffers) - 2}], t, {c.threads}"
    text = f"static const struct spc_planar g = {struct_initializer(geometry)};\n"
    text += f"for (int t = 0; t < {c.threads}; t++) {kernel.symbol(isa)}({arguments});"
    return kernel, Call(text, tuple(buffers)), want


def check(cases: Sequence[Case], isa: Isa, seed: int = 0, flags: Sequence[str] = CFLAGS) -> None:
    made = [call_of(case, isa, seed) for case in cases]
    kernels = dict.fromkeys(kernel for kernel, *_ in made)
    text = "\n".join([prelude(isa), struct_declaration("planar", PlanarGeometry), *(k.source(isa) for k in kernels)])
    results = run_calls(isa, text, [call for _, call, _ in made], flags)
    for c, (_, _, want), buffers in zip(cases, made, results, strict=True):
        got = buffers[-1]
        if c.y_blocked:
            got = got.reshape(-1, c.n, c.positions, isa.lanes).transpose(1, 0, 3, 2).reshape(c.n, -1, c.positions)
            assert not got[:, c.oc :].any(), "padded lanes are not zero"
            got = got[:, : c.oc]
        assert np.abs(got.reshape(want.shape) - want).max() <= 2e-5 * np.abs(want).max(), c


def fitting(case: Case, isa: Isa) -> Case:
    """The case with as many vectors of positions as the registers hold."""
    s = max(v for v in range(1, case.s + 1) if v == 1 or legal(case.r, v, len(case.masks), isa))
    return replace(case, s=s)


CASES = [
    Case(40, 37, 117, 9, 8, 3, (255,), k_run=8),
    Case(40, 37, 117, 9, 8, 2, (255,), x_blocked=True, y_blocked=True, epilogue=HEAVY),
    Case(64, 64, 200, 14, 4, 6, (15,), k_run=4, chunk_rows=32, n=2, groups=2, threads=3, y_blocked=True),
    Case(64, 64, 200, 14, 4, 4, ALL_OF_4, chunk_rows=32, n=2, x_blocked=True),
    Case(33, 48, 50, 7, 2, 8, (3, 1, 2), taps=3, x_blocked=True, y_blocked=True, chunk_rows=64),
    Case(33, 48, 50, 7, 1, 8, (1,), taps=3, x_blocked=True, epilogue=HEAVY),
    Case(48, 300, 49, 7, 1, 4, (1,), groups=3, threads=2, chunk_rows=96),
    Case(1, 1, 1, 1, 1, 1, (1,), density=1.0),
    Case(16, 8, 20, 5, 4, 2, (15,), density=0.0, y_blocked=True),
]


@pytest.mark.parametrize("isa", runnable_isas())
def test_kernels_agree_with_numpy(isa: Isa) -> None:
    check([fitting(case, isa) for case in CASES], isa)


@needs("gcc")
def test_no_access_out_of_bounds() -> None:
    isa = isa_named("x86_64+avx2+fma") if runs_here(isa_named("x86_64+avx2+fma")) else isa_named("generic")
    check([fitting(case, isa) for case in CASES], isa, flags=(*CFLAGS, *SANITIZE))


@settings(max_examples=12)
@given(
    st.builds(
        Case,
        oc=st.integers(1, 40),
        ic=st.integers(1, 40),
        positions=st.integers(1, 90),
        ow=st.integers(1, 12),
        r=st.just(4),
        s=st.integers(1, 3),
        masks=st.sampled_from([(15,), ALL_OF_4]),
        x_blocked=st.booleans(),
        y_blocked=st.booleans(),
        chunk_rows=st.sampled_from([16, 1 << 15]),
        epilogue=st.sampled_from([RESIDUAL, HEAVY]),
        n=st.integers(1, 2),
        density=st.sampled_from([0.05, 0.5]),
    ),
    st.integers(0, 2**32 - 1),
)
def test_random_layers(case: Case, seed: int) -> None:
    check([fitting(case, host_isa())], host_isa(), seed)


@given(st.integers(1, 20), st.integers(1, 70), st.sampled_from([1, 2, 4, 8]), st.integers(0, 2**32 - 1))
def test_every_weight_is_listed_once(oc: int, rows: int, r: int, seed: int) -> None:
    """The lists hold every nonzero weight, and lists of subsets nothing else."""
    rng = np.random.default_rng(seed)
    w = (rng.normal(size=(oc, rows)) * (rng.random((oc, rows)) < 0.3)).astype(np.float32)
    for way in listings(w):
        lists = pack(w, way.r, way.masks, way.k_run, 32, 2)
        back = np.zeros((-(-oc // way.r) * way.r, -(-rows // 8) * 8), np.float32)
        entry = at = 0
        counts = lists.counts.reshape(-(-rows // 32), -1, len(way.masks))
        for chunk, panel, which in np.ndindex(*counts.shape):
            outputs = [i for i in range(way.r) if way.masks[which] >> i & 1]
            for _ in range(counts[chunk, panel, which]):
                for j in range(way.k_run):
                    row = chunk * 32 + int(lists.entries[entry]) * way.k_run + j
                    back[[panel * way.r + i for i in outputs], row] += lists.w[at : at + len(outputs)]
                    at += len(outputs)
                entry += 1
        assert (entry, at) == (lists.entries.size, lists.w.size)
        np.testing.assert_array_equal(back[:oc, :rows], w)
        assert not back[oc:].any() and not back[:, rows:].any()
        assert way.weights >= np.count_nonzero(w)
        if way.masks != ((1 << way.r) - 1,):
            assert lists.w.size == np.count_nonzero(w)


def test_a_subset_without_a_list_is_refused() -> None:
    w = np.array([[1, 0], [1, 1]], np.float32)
    with pytest.raises(ValueError, match="subset of outputs without a list"):
        pack(w, 2, (3, 1), 1, 2, 1)
    with pytest.raises(ValueError, match="entries of one row"):
        pack(w, 2, (3, 1, 2), 2, 2, 1)


def test_patterns_lead_to_their_lists() -> None:
    """Shared patterns need no fill-in; single rows are listed exactly."""
    rng = np.random.default_rng(3)
    blocks = np.kron(rng.random((4, 8)) < 0.5, np.ones((8, 8))).astype(np.float32)
    (eight,) = [way for way in listings(blocks) if way.r == 8]
    assert (eight.k_run, eight.weights) == (8, np.count_nonzero(blocks))
    single = (rng.random((8, 640)) < 0.5).astype(np.float32)
    assert {len(way.masks) for way in listings(single) if way.r == 4} == {1, 15}
    grouped = np.array([[1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 0, 1], [0, 1, 1, 0]], np.float32)  # 2:4:1 along the outputs
    assert {way.masks for way in listings(grouped) if way.r == 4} == {(15,), (5, 6, 9, 10)}
    assert np.array_equal(subsets(grouped, 4), [[5, 9, 10, 6]])


def test_plans_cover_the_positions_and_fit() -> None:
    isa = isa_named("x86_64+avx512f")
    problem = PlanarProblem(1, 49, 64, 128, 128, True, True)
    for way in (Lists(8, (255,), 8, ((8, 128),), 8), Lists(4, ALL_OF_4, 1, ((1, 300), (2, 100)), 16)):
        found = list(tilings(problem, isa, way))
        assert found
        for s, full, s_tail, tails, chunk in found:
            assert full * s + tails * s_tail == 4
            assert chunk % 16 == 0 and legal(way.r, s, len(way.masks), isa)
        best = choose(problem, isa, [way])
        assert best.cycles == min(
            full * cycles(problem, isa, way, s, chunk)
            + tails * (cycles(problem, isa, way, s_tail, chunk) if tails else 0)
            + cycles(problem, isa, way, s, chunk, cold=True)
            - cycles(problem, isa, way, s, chunk)
            for s, full, s_tail, tails, chunk in found
        )
