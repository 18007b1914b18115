"""What is known of weights in a graph, whoever multiplies by them, and the dense form of a model."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

import models
from sparsec.compiler.importer.claims import METADATA_KEY
from sparsec.compiler.sparsity.facts import WeightFacts, weight_facts
from sparsec.passes.pruning.dense_form import fill_zeros
from sparsec.passes.pruning.model import prune
from sparsec.passes.sparsity import DetectSparsity
from tests.passes.helpers import graph_of

BODY = """
%y = MatMul(%x, %w) -> f32[4,16] as "product"
%v = Transpose(%u) {perm=(1, 0)} -> f32[16,16] as "turn"
%z = MatMul(%y, %v) -> f32[4,16] as "late"
%a = MatMul(%z, %z) {trans_b=true} -> f32[4,4] as "activations"
output "a" = %a
"""


def test_constants_and_what_is_computed_from_them() -> None:
    graph = graph_of("input %x: f32[4,16]\n" + BODY, constants="w: f32[16,16]\nu: f32[16,16]")
    constants = dict(graph.constants)
    for name in ("w", "u"):
        constants[name] = np.where(np.arange(16)[:, None] % 4 < 2, constants[name], 0)
    found = weight_facts(DetectSparsity().run(replace(graph, constants=constants)))
    assert found["product"] == WeightFacts("2:4/rows=16", 0.5)
    assert found["late"].density == 0.5
    assert found["late"].unused == "'turn' computes its weights at run time: the pass `fold` makes them a constant"
    assert "activations" not in found and "turn" not in found


def test_the_dense_form_has_no_zeros_and_hardly_other_numbers(tmp_path: Path) -> None:
    pruned = prune(models.build("tiny_cnn"), "block:8x8@50%")
    pruned.save(tmp_path / "pruned.onnx")
    given = (tmp_path / "pruned.onnx").read_bytes()
    filled = fill_zeros(tmp_path / "pruned.onnx")
    filled.save(tmp_path / "dense.onnx")
    assert (tmp_path / "pruned.onnx").read_bytes() == given
    before, after = (
        {t.name: numpy_helper.to_array(t) for t in onnx.load(tmp_path / f"{name}.onnx").graph.initializer}
        for name in ("pruned", "dense")
    )
    changed = [name for name in before if not np.array_equal(before[name], after[name])]
    assert len(changed) == len(pruned.report.changed)
    for name in changed:
        kept = before[name] != 0
        assert np.array_equal(before[name][kept], after[name][kept])
        assert (after[name] != 0).all() and np.abs(after[name][~kept]).max() < 0.02 * np.abs(before[name]).max()
    assert all(p.key != METADATA_KEY for p in filled.proto.metadata_props)
    again = fill_zeros(tmp_path / "pruned.onnx").proto.SerializeToString(deterministic=True)
    assert again == filled.proto.SerializeToString(deterministic=True)
