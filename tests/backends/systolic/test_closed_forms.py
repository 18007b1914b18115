"""The closed forms against SCALE-Sim 3.0.0, whose totals are one less than the cycles."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsec.backends.systolic import Dataflow, dense_cycles, grouped_cycles, roofline, sparse_cycles

GOLDENS = Path(__file__).parents[2] / "golden" / "systolic" / "scalesim.csv"
SIDES = st.integers(1, 40)
EXTENTS = st.integers(1, 300)


@pytest.mark.parametrize("row", list(csv.DictReader(GOLDENS.open())), ids=lambda r: f"{r['m']}x{r['k']}x{r['n']}@{r['rows']}")
def test_of_dense_dataflows_are_those_of_scale_sim(row: dict[str, str]) -> None:
    """SCALE-Sim's m are positions and its n output channels, so that its output-stationary array is ours turned over."""
    n, k, m, rows, cols = (int(row[c]) for c in ("m", "k", "n", "rows", "cols"))
    assert dense_cycles(Dataflow.DOS, cols, rows, m, k, n) == int(row["os_cycles"]) + 1
    assert dense_cycles(Dataflow.DWS, rows, cols, m, k, n) == int(row["ws_cycles"]) + 1
    assert dense_cycles(Dataflow.DIS, rows, cols, m, k, n) == int(row["is_cycles"]) + 1


@given(SIDES, SIDES, EXTENTS, EXTENTS, EXTENTS)
def test_cycles_are_never_below_the_roofline(rows: int, cols: int, m: int, k: int, n: int) -> None:
    for dataflow in (Dataflow.DOS, Dataflow.DWS, Dataflow.DIS):
        assert dense_cycles(dataflow, rows, cols, m, k, n) >= roofline(rows, cols, m * k * n)


@given(SIDES, SIDES, st.integers(1, 60), st.integers(1, 60), EXTENTS, st.integers(0, 2**32 - 1))
def test_leaving_zeros_out_costs_nothing(rows: int, cols: int, m: int, k: int, n: int, seed: int) -> None:
    """Without zeros a sparse dataflow takes what its dense one does, and with zeros never more."""
    mask = np.random.default_rng(seed).random((m, k)) < 0.2
    pairs = {Dataflow.SOS: Dataflow.DOS, Dataflow.CSOS: Dataflow.DOS, Dataflow.SWS: Dataflow.DWS, Dataflow.SIS: Dataflow.DIS}
    for sparse, dense in pairs.items():
        whole = dense_cycles(dense, rows, cols, m, k, n)
        assert sparse_cycles(sparse, rows, cols, np.ones((m, k), bool), n, 4) == whole
        assert sparse_cycles(sparse, rows, cols, mask, n, 4) <= whole


def test_n_of_m_counts_k_as_the_elements_kept() -> None:
    assert grouped_cycles(Dataflow.NMWS, 16, 16, 256, 1024, 196, 2, 8) == dense_cycles(Dataflow.DWS, 16, 16, 256, 256, 196)
    assert grouped_cycles(Dataflow.NMOS, 16, 16, 256, 1024, 196, 2, 8) == dense_cycles(Dataflow.DOS, 16, 16, 256, 256, 196)
