"""The generated Verilog under Icarus Verilog against the simulator: the same bytes, cycles and sums."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sparsec.backends.systolic import Dataflow, Gemm, Level, Machine, Mapping, lower, product, simulate
from sparsec.backends.systolic.cosimulate import cosimulate
from sparsec.backends.systolic.isa import Format, Number, Output, Windows
from sparsec.compiler.errors import ToolchainError
from tests.backends.systolic.cases import grouped, zeroed
from tests.machine import needs

pytestmark = needs("iverilog")
FLOWS = tuple(Dataflow)  # all nine


def mapping(dataflow: Dataflow, keep: int, group: int) -> Mapping:
    """Weights of sOS, sWS and sIS as a bitmap, which the decompression unit of the Verilog reads."""
    if dataflow.grouped:
        return Mapping(dataflow, None, keep, group)
    return Mapping(dataflow, Format.BITMAP if dataflow in (Dataflow.SOS, Dataflow.SWS, Dataflow.SIS) else None)


def same(machine: Machine, gemm: Gemm, how: Mapping, x: np.ndarray, folder: Path) -> np.ndarray:
    """The sums [M, N], equal from both, in as many cycles."""
    made = lower(machine, [(gemm, how)])
    expected = simulate(made.stream, made.weights, x, gemm.m * gemm.n, Level.PES)
    found = cosimulate(machine, made.stream, made.weights, x, gemm.m * gemm.n, folder)
    np.testing.assert_array_equal(found.output, expected.output)
    assert (found.cycles, found.tail) == (expected.total.cycles, expected.total.tail)
    return found.output


@pytest.mark.parametrize("dataflow", FLOWS, ids=lambda d: d.value)
@pytest.mark.parametrize("seed", range(6))
def test_products_with_tails(seed: int, dataflow: Dataflow, tmp_path: Path) -> None:
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
    sums = same(machine, product(w, x, zero=zero), mapping(dataflow, keep, group), x, tmp_path)
    np.testing.assert_array_equal(sums.reshape(m, n), w.astype(np.int64) @ (x.astype(np.int64) - zero))


@pytest.mark.parametrize("dataflow", FLOWS, ids=lambda d: d.value)
def test_windows_of_two_images(dataflow: Dataflow, tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    x = rng.integers(0, 256, (2, 3, 6, 5)).astype(np.uint8)
    w = zeroed(rng, (5, 3 * 2 * 3), 0.4, (1, 1)).astype(np.int8)
    w = grouped(w, 2, 4) if dataflow.grouped else w
    windows = Windows(0, 2, 3, 6, 5, 90, 30, 5, 1, 2, 3, 2, 1, 2, 1, 1, 2, 3, 6)  # 2x3 taps, 3 rows of 6 positions
    gemm = Gemm("windows", w, windows, Output(0, 18, 1, 18, 90), Number.U8, 7)
    same(Machine("flexisaga", 4, 3, 4), gemm, mapping(dataflow, 2, 4), x, tmp_path)


def test_what_the_array_lacks_stops_it(tmp_path: Path) -> None:
    machine, x = Machine("flexisaga", 2, 2, 2), np.ones((2, 2), np.int8)
    made = lower(machine, [(product(np.eye(2, dtype=np.int8), x), Mapping(Dataflow.SOS, Format.COLUMNS))])
    with pytest.raises(ToolchainError, match="did not run to its end"):
        cosimulate(machine, made.stream, made.weights, x, 4, tmp_path)
