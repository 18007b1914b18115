"""The generated Verilog under Icarus Verilog against the simulator: the same bytes, cycles and sums."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sparsec.backends.systolic import Dataflow, Gemm, Level, Machine, Mapping, lower, product, simulate
from sparsec.backends.systolic.cosimulate import cosimulate
from sparsec.backends.systolic.isa import Format, Number, Output, Windows
from sparsec.compiler.errors import ToolchainError
from tests.backends.systolic.cases import zeroed
from tests.machine import needs

pytestmark = needs("iverilog")
FLOWS = (Dataflow.DOS, Dataflow.SOS, Dataflow.DWS, Dataflow.SWS, Dataflow.DIS, Dataflow.SIS)


def same(machine: Machine, gemm: Gemm, dataflow: Dataflow, x: np.ndarray, folder: Path) -> np.ndarray:
    """The sums [M, N], equal from both, in as many cycles."""
    made = lower(machine, [(gemm, Mapping(dataflow, Format.BITMAP if dataflow.sparse else None))])
    expected = simulate(made.stream, made.weights, x, gemm.m * gemm.n, Level.PES)
    found = cosimulate(machine, made.stream, made.weights, x, gemm.m * gemm.n, folder)
    np.testing.assert_array_equal(found.output, expected.output)
    assert (found.cycles, found.tail) == (expected.total.cycles, expected.total.tail)
    return found.output


@pytest.mark.parametrize("dataflow", FLOWS, ids=lambda d: d.value)
@pytest.mark.parametrize("seed", range(8))
def test_products_with_tails(seed: int, dataflow: Dataflow, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    rows, cols = (int(s) for s in rng.integers(1, 7, 2))
    m, k, n = (int(s) for s in rng.integers(1, 24, 3))
    w = zeroed(rng, (m, k), (0.1, 0.3, 0.6, 1.0)[seed % 4], (1, 1) if seed < 4 else (rows, 1)).astype(np.int8)
    x, zero = rng.integers(0, 256, (k, n)).astype(np.uint8), int(rng.integers(0, 256))
    if seed % 2:
        x, zero = x.view(np.int8), zero - 128
    machine = Machine("flexisaga", rows, cols, 1)
    sums = same(machine, product(w, x, zero=zero), dataflow, x, tmp_path)
    np.testing.assert_array_equal(sums.reshape(m, n), w.astype(np.int64) @ (x.astype(np.int64) - zero))


@pytest.mark.parametrize("dataflow", FLOWS, ids=lambda d: d.value)
def test_windows_of_two_images(dataflow: Dataflow, tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    x = rng.integers(0, 256, (2, 3, 6, 5)).astype(np.uint8)
    w = zeroed(rng, (5, 3 * 2 * 3), 0.4, (1, 1)).astype(np.int8)
    windows = Windows(0, 2, 3, 6, 5, 90, 30, 5, 1, 2, 3, 2, 1, 2, 1, 1, 2, 3, 6)  # 2x3 taps, 3 rows of 6 positions
    gemm = Gemm("windows", w, windows, Output(0, 18, 1, 18, 90), Number.U8, 7)
    same(Machine("flexisaga", 4, 3, 1), gemm, dataflow, x, tmp_path)


def test_what_the_array_lacks_stops_it(tmp_path: Path) -> None:
    machine, x = Machine("flexisaga", 2, 2, 2), np.ones((2, 2), np.int8)
    made = lower(machine, [(product(np.eye(2, dtype=np.int8), x), Mapping(Dataflow.CSOS))])
    with pytest.raises(ToolchainError, match="did not run to its end"):
        cosimulate(machine, made.stream, made.weights, x, 4, tmp_path)
