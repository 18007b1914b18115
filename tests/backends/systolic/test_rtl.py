"""The generated Verilog under Icarus Verilog and Verilator against the simulator: the same bytes, cycles and sums."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sparsec.backends.systolic import Dataflow, Gemm, Level, Machine, Mapping, lower, product, simulate
from sparsec.backends.systolic.cosimulate import Sizes, build, cosimulate
from sparsec.backends.systolic.isa import Format, Number, Output, Windows
from sparsec.compiler.errors import ToolchainError, UsageError
from tests.backends.systolic.cases import grouped, zeroed
from tests.machine import needs

FLOWS = tuple(Dataflow)  # all nine
STORED = (Dataflow.SOS, Dataflow.SWS, Dataflow.SIS)  # whose weights are a bitmap or compressed columns
FORMS = [(d, f) for d in FLOWS for f in ((Format.BITMAP, Format.COLUMNS) if d in STORED else (None,))]
each_form = pytest.mark.parametrize(
    ("dataflow", "form"), FORMS, ids=lambda v: v.value if isinstance(v, Dataflow) else v.name.lower() if v else ""
)


def mapping(dataflow: Dataflow, form: Format | None, keep: int, group: int) -> Mapping:
    return Mapping(dataflow, None, keep, group) if dataflow.grouped else Mapping(dataflow, form)


def same(machine: Machine, gemm: Gemm, how: Mapping, x: np.ndarray, folder: Path) -> np.ndarray:
    """The sums [M, N], equal from both, in as many cycles."""
    made = lower(machine, [(gemm, how)])
    expected = simulate(made.stream, made.weights, x, gemm.m * gemm.n, Level.PES)
    found = cosimulate(machine, made.stream, made.weights, x, gemm.m * gemm.n, folder)
    np.testing.assert_array_equal(found.output, expected.output)
    assert (found.cycles, found.tail) == (expected.total.cycles, expected.total.tail)
    return found.output


@needs("iverilog")
@each_form
@pytest.mark.parametrize("seed", range(5))
def test_products_with_tails(seed: int, dataflow: Dataflow, form: Format | None, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    rows, cols = (int(s) for s in rng.integers(1, 7, 2))
    m, k, n = (int(s) for s in rng.integers(1, 24, 3))
    w = zeroed(rng, (m, k), (0.1, 0.3, 0.6, 1.0)[seed % 4], (1, 1) if seed < 4 else (rows, 1)).astype(np.int8)
    x, zero = rng.integers(0, 256, (k, n)).astype(np.uint8), int(rng.integers(0, 256))
    if seed % 2:
        x, zero = x.view(np.int8), zero - 128
    keep, group = ((1, 2), (2, 4), (2, 8), (3, 5))[seed % 4]
    if dataflow.grouped:
        w = grouped(w, keep, group)
    machine = Machine("flexisaga", rows, cols, group)
    sums = same(machine, product(w, x, zero=zero), mapping(dataflow, form, keep, group), x, tmp_path)
    np.testing.assert_array_equal(sums.reshape(m, n), w.astype(np.int64) @ (x.astype(np.int64) - zero))


@needs("iverilog")
@each_form
def test_windows_of_two_images(dataflow: Dataflow, form: Format | None, tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    x = rng.integers(0, 256, (2, 3, 6, 5)).astype(np.uint8)
    w = zeroed(rng, (5, 3 * 2 * 3), 0.4, (1, 1)).astype(np.int8)
    w = grouped(w, 2, 4) if dataflow.grouped else w
    windows = Windows(0, 2, 3, 6, 5, 90, 30, 5, 1, 2, 3, 2, 1, 2, 1, 1, 2, 3, 6)  # 2x3 taps, 3 rows of 6 positions
    gemm = Gemm("windows", w, windows, Output(0, 18, 1, 18, 90), Number.U8, 7)
    same(Machine("flexisaga", 4, 3, 4), gemm, mapping(dataflow, form, 2, 4), x, tmp_path)


@needs("iverilog")
def test_columns_of_a_long_product(tmp_path: Path) -> None:
    """From 65,536 columns on an index has 32 bits."""
    rng = np.random.default_rng(3)
    w = np.zeros((5, 65_600), np.int8)
    w[rng.integers(0, 5, 40), rng.choice([*range(30), *range(65_560, 65_600)], 40, replace=False)] = 3
    x = rng.integers(-100, 100, (65_600, 1)).astype(np.int8)
    machine = Machine("flexisaga", 3, 2, 4)
    for how in (Mapping(Dataflow.SOS, Format.COLUMNS), Mapping(Dataflow.CSOS)):
        same(machine, product(w, x), how, x, tmp_path)


@needs("iverilog")
def test_what_the_array_lacks_stops_it(tmp_path: Path) -> None:
    x = np.ones((2, 2), np.int8)
    made = lower(Machine("flexisaga", 2, 2, 4), [(product(np.eye(2, dtype=np.int8), x), Mapping(Dataflow.CSOS))])
    with pytest.raises(ToolchainError, match="did not run to its end"):
        cosimulate(Machine("flexisaga", 2, 2, 2), made.stream, made.weights, x, 4, tmp_path)
    model = build(Machine("flexisaga", 2, 2, 4), Sizes(len(made.stream), len(made.weights), 4, 3), tmp_path)
    with pytest.raises(UsageError, match=r"sums=4\) does not fit: build it with larger memories"):
        model.run(made.stream, made.weights, x, 4)


@pytest.mark.slow
@needs("verilator", "g++", "make")
def test_under_verilator(tmp_path: Path) -> None:
    """Lint-clean, and one model for products of every dataflow and format."""
    machine, rng = Machine("flexisaga", 3, 2, 4), np.random.default_rng(8)
    model = build(machine, Sizes(4096, 4096, 1024, 1024), tmp_path, "verilator")
    for dataflow, form in FORMS:
        m, k, n = (int(s) for s in rng.integers(1, 20, 3))
        w = grouped(zeroed(rng, (m, k), 0.4, (1, 1)).astype(np.int8), 2, 4)
        x = rng.integers(0, 256, (k, n)).astype(np.uint8)
        made = lower(machine, [(product(w, x, zero=7), mapping(dataflow, form, 2, 4))])
        expected = simulate(made.stream, made.weights, x, m * n, Level.PES)
        found = model.run(made.stream, made.weights, x, m * n)
        np.testing.assert_array_equal(found.output, expected.output)
        assert (found.cycles, found.tail) == (expected.total.cycles, expected.total.tail)
