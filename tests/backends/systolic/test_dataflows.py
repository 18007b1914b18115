"""Every dataflow computes the product, in the cycles of the closed forms, at both levels of the simulator."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from sparsec.backends.systolic import SEVEN, Dataflow, Level, Mapping, dense_cycles, grouped_cycles, sparse_cycles
from sparsec.backends.systolic.isa import Format
from tests.backends.systolic.cases import Case, cases


def closed_form(case: Case, dataflow: Dataflow) -> int:
    (m, k), n, (rows, cols) = case.w.shape, case.x.shape[1], (case.machine.rows, case.machine.cols)
    if dataflow.grouped:
        return grouped_cycles(dataflow, rows, cols, m, k, n, case.keep, case.group)
    if dataflow.sparse:
        return sparse_cycles(dataflow, rows, cols, case.w != 0, n, case.machine.lanes)
    return dense_cycles(dataflow, rows, cols, m, k, n)


def both_levels(case: Case, dataflow: Dataflow, form: Format | None = None) -> None:
    mapping = case.mapping(dataflow, form)
    pes, folds, timing = (case.run(mapping, level) for level in (Level.PES, Level.FOLDS, Level.TIMING))
    assert pes.total == folds.total == timing.total
    np.testing.assert_array_equal(pes.output.reshape(case.expected.shape), case.expected)
    np.testing.assert_array_equal(folds.output.reshape(case.expected.shape), case.expected)
    assert folds.total.cycles == closed_form(case, dataflow)
    assert folds.total.macs == np.count_nonzero(case.w) * case.x.shape[1]
    assert folds.total.cycles >= folds.roofline


@pytest.mark.parametrize("dataflow", SEVEN, ids=lambda d: d.value)
@given(case=cases())
@settings(max_examples=40, deadline=None)
def test_of_seven(dataflow: Dataflow, case: Case) -> None:
    both_levels(case, dataflow)


@pytest.mark.parametrize("dataflow", [Dataflow.NMOS, Dataflow.NMWS], ids=lambda d: d.value)
@given(case=cases(n_m=True))
@settings(max_examples=40, deadline=None)
def test_n_of_m(dataflow: Dataflow, case: Case) -> None:
    both_levels(case, dataflow)


@pytest.mark.parametrize("form", [Format.BITMAP, Format.COLUMNS], ids=lambda f: f.name)
@pytest.mark.parametrize("dataflow", [Dataflow.SOS, Dataflow.SWS, Dataflow.SIS], ids=lambda d: d.value)
@given(case=cases())
@settings(max_examples=15, deadline=None)
def test_of_either_format(dataflow: Dataflow, form: Format, case: Case) -> None:
    both_levels(case, dataflow, form)


@pytest.mark.parametrize("form", [Format.BITMAP, Format.COLUMNS], ids=lambda f: f.name)
@given(case=cases())
@settings(max_examples=30, deadline=None)
def test_what_the_decompression_unit_reads(form: Format, case: Case) -> None:
    """Of sOS, in every fold: the stored values, the encoding around them, and no read for a zero that is injected."""
    counts, rows = case.run(Mapping(Dataflow.SOS, form), Level.PES).total, case.machine.rows
    folds = -(-case.x.shape[1] // case.machine.cols)
    stored = injected = encoding = 0
    for first in range(0, len(case.w), rows):
        strip = case.w[first : first + rows]
        steps = strip[:, strip.any(axis=0)]
        if not steps.size:
            continue
        nonzero = int(np.count_nonzero(steps))
        stored, injected = stored + nonzero, injected + steps.size - nonzero
        bitmap = -(-strip.shape[1] // 8) + -(-steps.size // 8)
        encoding += bitmap if form is Format.BITMAP else 4 * steps.shape[1] + nonzero
    found = (counts.weight_values, counts.injected_weights, counts.index_bytes)
    assert found == (folds * stored, folds * injected, folds * encoding)
