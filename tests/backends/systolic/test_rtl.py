"""The generated Verilog under Icarus Verilog against the simulator: the same bytes, cycles and sums."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sparsec.backends.systolic import Dataflow, Level, Lowered, Machine, Mapping, lower, product, simulate
from sparsec.backends.systolic.cosimulate import cosimulate
from sparsec.backends.systolic.isa import Format
from sparsec.compiler.errors import ToolchainError
from tests.backends.systolic.cases import zeroed
from tests.machine import needs

pytestmark = needs("iverilog")
FLOWS = (Dataflow.DOS, Dataflow.SOS, Dataflow.DWS, Dataflow.SWS)


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
    made = lower(machine, [(product(w, x, zero=zero), Mapping(dataflow, Format.BITMAP if dataflow.sparse else None))])
    expected = simulate(made.stream, made.weights, x, m * n, Level.PES)
    found = cosimulate(machine, made.stream, made.weights, x, m * n, tmp_path)
    np.testing.assert_array_equal(found.output, expected.output)
    np.testing.assert_array_equal(found.output.reshape(m, n), w.astype(np.int64) @ (x.astype(np.int64) - zero))
    assert (found.cycles, found.tail) == (expected.total.cycles, expected.total.tail)


def test_what_the_array_lacks_stops_it(tmp_path: Path) -> None:
    machine, x = Machine("flexisaga", 2, 2, 1), np.ones((2, 2), np.int8)
    made: Lowered = lower(machine, [(product(np.eye(2, dtype=np.int8), x), Mapping(Dataflow.DIS))])
    with pytest.raises(ToolchainError, match="did not run to its end"):
        cosimulate(machine, made.stream, made.weights, x, 4, tmp_path)
