"""Pruning for an array: the pattern of each dataflow, its cycles, and that channels are ordered for it."""

from __future__ import annotations

import numpy as np
import pytest

import models
from sparsec.backends.systolic import Dataflow, parse_machine
from sparsec.backends.systolic.dataflow import DENSE
from sparsec.backends.systolic.pattern import matched_goal
from sparsec.compiler.errors import UsageError
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.sparsity.text import parse_goal
from sparsec.passes.pruning.model import prune
from sparsec.passes.pruning.recipe import make_recipe
from tests.backends.systolic.networks import plan_network

FORMS = {
    Dataflow.SOS: "block:4x1/taps=each@75%",
    Dataflow.CSOS: "block:4x1/taps=each@75%",
    Dataflow.SWS: "block:8x1/taps=each@75%",
    Dataflow.SIS: "block:1x4/taps=each@75%",
    Dataflow.NMOS: "2:8",
    Dataflow.NMWS: "2:8",
}


@pytest.mark.parametrize("dataflow", FORMS, ids=lambda d: d.value)
def test_pruned_for_a_dataflow_it_takes_fewer_cycles_than_dense(dataflow: Dataflow) -> None:
    family = "sat" if dataflow.grouped else "flexisaga"
    machine = parse_machine(f"{family}:4x8")
    goal = matched_goal(machine, dataflow, 0.75)
    assert str(goal) == FORMS[dataflow]
    model = models.build("tiny_transformer")
    sparse = prune(model, make_recipe({"pattern": str(goal), "spare": []}))
    network = plan_network(sparse.graph, machine)
    dense = plan_network(import_model(model), machine, tuple(d for d in DENSE if family == "flexisaga" or d is not Dataflow.DIS))
    taken = {c.layer.node.name: c.table[dataflow] for c in network.choices if dataflow in c.table}
    plain = Dataflow("d" + dataflow.value[-2:])
    before = {c.layer.node.name: c.table[plain] for c in dense.choices}
    constant = [c.layer.node.name for c in network.choices if c.layer.constant]
    assert sum(taken[n] for n in constant) < 0.7 * sum(before[n] for n in constant)


def test_channels_are_ordered_for_it() -> None:
    model, machine = models.build("tiny_cnn"), parse_machine("flexisaga:4x4")
    pattern = str(matched_goal(machine, Dataflow.SOS, 0.75))
    kept = []
    for method in ("none", "gyro"):
        done = prune(model, make_recipe({"pattern": pattern, "permute": method, "permute_seconds": 5}))
        layers = [r for r in done.report.layers if r.status == "pruned"]
        kept.append((sum(r.kept_l1 for r in layers), plan_network(done.graph, machine, (Dataflow.SOS,)).cycles))
    assert kept[1][0] > kept[0][0] and kept[1][1] == pytest.approx(kept[0][1], rel=0.05)


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("flexisaga:16x8:sOS@75%", "block:16x1@75%/taps=each"),
        ("flexisaga:16x8:csOS@75%", "block:16x1@75%/taps=each"),
        ("flexisaga:16x8:sWS@75%", "block:8x1@75%/taps=each"),
        ("flexisaga:16x8:sIS@75%", "block:1x16@75%/taps=each"),
    ],
)
def test_arrays_name_patterns(text: str, pattern: str) -> None:
    assert parse_goal(text) == parse_goal(pattern)


@pytest.mark.parametrize("text", ["flexisaga:16x8:dOS@75%", "flexisaga:16x8:csWS@75%", "flexisaga:16:sOS@75%"])
def test_arrays_that_name_none(text: str) -> None:
    with pytest.raises(UsageError, match="is not known"):
        parse_goal(text)


@pytest.mark.parametrize("sparsity", [0.7, 0.0, 1.0])
def test_shares_that_n_of_8_cannot_have(sparsity: float) -> None:
    with pytest.raises(UsageError, match="nmWS keeps n of 8 weights"):
        matched_goal(parse_machine("sat:8x8"), Dataflow.NMWS, sparsity)
    assert np.isclose(matched_goal(parse_machine("sat:8x8"), Dataflow.NMWS, 0.5).sparsity, 0.5)
