"""ONNX's own backend node tests, imported and interpreted: every case of every operator that has an import rule.

What is refused is listed with the reason, so that coverage cannot drop unseen. On the way every node's
axis map is checked, and that the text form of every graph reads back.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from sparsec.compiler.errors import SparsecError
from sparsec.compiler.graph import ABSENT, Graph
from sparsec.compiler.onnx_rules import RULES
from sparsec.compiler.ops.registry import load_all
from sparsec.compiler.text.diff import same_graph
from sparsec.compiler.text.parser import parse_graph
from sparsec.compiler.text.printer import print_graph
from sparsec.compiler.text.store import ConstantStore
from tests.compiler.ops.permutation import check_permutations
from tests.onnx_corpus import Array, cases, feeds_of, import_case, outputs_of

load_all()

STORE = ConstantStore()  # in memory

# pattern of whole case names -> part of the message they are refused with
REFUSED = {
    r"test_batchnorm_\w*training_mode|test_training_dropout(?!_zero_ratio)\w*": "training_mode",
    r"test_maxpool_with_argmax\w*": "Indices",
    r"test_resize_\w*antialias": "antialias",
    r"test_not_[234]d": "opset 1",
    r"\w*(FLOAT8|FLOAT4|U?INT4|U?INT2|E8M0|STRING|string)\w*": "element type",
    r"test_attention_(?!.*qk_matmul)\w*(softcap|nonpad|padded_kv)\w*(?<!_expanded)": "not supported",
    r"test_attention_\w*qk_matmul\w*(?<!_expanded)": "not supported",
    r"test_attention_\w*window(?!_default)\w*(?<!_expanded)": "not supported",
    r"test_(de)?quantizelinear_(e4m3fn|e5m2|u?int[24]|float4e2m1)\w*": "element type",
    r"test_(de)?quantizelinear_blocked\w*": "block_size",
    r"test_einsum_batch_diagonal": "diagonal",
}
# case -> why the result differs from ONNX's; it is checked against onnxruntime elsewhere
DIFFERENT = {
    "test_resize_downsample_scales_linear_align_corners": "ONNX takes the output extent before rounding, onnxruntime after",
    "test_attention_causal_boolmask_nan_robustness": "a line that is masked throughout gives NaN, as softmax does, not 0",
    "test_attention_23_boolmask_fullymasked_row_nan_robustness": "a line that is masked throughout gives NaN, not 0",
    "test_resize_downsample_scales_cubic_align_corners": "ONNX takes the output extent before rounding, onnxruntime after",
}
# operators with a rule for which ONNX has no case of tensors alone
# (those of sequences have sequences at the graph's boundary; tests/importer/test_sequences.py compares them with onnxruntime)
SEQUENCES = {"ConcatFromSequence", "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceInsert", "SplitToSequence"}
WITHOUT_CASES = {"GlobalLpPool", "SimplifiedLayerNormalization", *SEQUENCES}
# operators whose further outputs (statistics for training) are refused: their cases are run without
FIRST_OUTPUT_ONLY = {"LayerNormalization"}


def _run(graph: Graph, feeds: dict[str, Array]) -> dict[str, Array]:
    """Evaluate node by node, checking each axis map with the node's real operands."""
    rng = np.random.default_rng(0)
    values: dict[str, Array] = {**{k: feeds[k] for k in graph.inputs}, **graph.constants}
    for node in graph.nodes:
        operands = [values[v] if v != ABSENT else None for v in node.inputs]
        check_permutations(node.op, operands, rng, tolerance=1e-2)
        values.update(zip(node.outputs, node.op.evaluate(operands), strict=True))
    return {p.name: values[p.value] for p in graph.outputs}


def _check(case: Any) -> None:
    feeds, outputs = feeds_of(case), outputs_of(case)
    if case.model.graph.node[0].op_type in FIRST_OUTPUT_ONLY:
        del case.model.graph.output[1:]
        del outputs[1:]
    reason = next((why for pattern, why in REFUSED.items() if re.fullmatch(pattern, case.name)), None)
    if reason is not None:
        with pytest.raises(SparsecError, match=reason):
            import_case(case)
        return
    graph = import_case(case)
    assert same_graph(parse_graph(print_graph(graph, STORE), STORE), graph), case.name
    results = _run(graph, feeds)
    if case.name in DIFFERENT:
        return
    for (name, got), want in zip(results.items(), outputs, strict=True):
        assert (got.dtype, got.shape) == (want.dtype, want.shape), (case.name, name)
        if want.dtype.kind in "iub":
            np.testing.assert_array_equal(got, want, err_msg=case.name)
        else:
            atol = 1e-5 if want.dtype.itemsize > 2 else 1e-2
            np.testing.assert_allclose(got.astype(float), want.astype(float), rtol=1e-3, atol=atol, err_msg=case.name)


@pytest.mark.parametrize("op_type", sorted(op for domain, op in RULES if domain == ""))
def test_operator(op_type: str) -> None:
    found = cases().get(op_type, [])
    assert bool(found) != (op_type in WITHOUT_CASES), f"{len(found)} cases of {op_type}: correct WITHOUT_CASES"
    for case in found:
        _check(case)


def test_expanded_functions() -> None:
    """ONNX's definitions of composite operators, where we have a rule for every operator in them."""
    ran = 0
    for case in cases()["expanded"]:
        ops = {(n.domain.replace("ai.onnx", ""), n.op_type) for n in case.model.graph.node}
        if ops <= set(RULES):
            _check(case)
            ran += 1
    assert ran > 60


def test_listed_cases_exist() -> None:
    names = {case.name for op_type, found in cases().items() if ("", op_type) in RULES for case in found}
    assert set(DIFFERENT) <= names
    assert [p for p in REFUSED if not any(re.fullmatch(p, name) for name in names)] == []
