"""ONNX's own backend node tests, imported and interpreted: every case of every operator that has an import rule.

What is refused is listed with the reason, so that coverage cannot drop unseen. On the way every node's axis map is checked.
"""

from __future__ import annotations

import re
import warnings
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from sparsec.compiler.errors import SparsecError, UnsupportedError
from sparsec.compiler.graph import ABSENT, Graph
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.onnx_rules import RULES
from sparsec.compiler.ops.registry import load_all
from tests.compiler.ops.permutation import check_permutations

load_all()

Array = np.ndarray[Any, Any]

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
WITHOUT_CASES = {"GlobalLpPool", "SimplifiedLayerNormalization"}
# operators whose further outputs (statistics for training) are refused: their cases are run without
FIRST_OUTPUT_ONLY = {"LayerNormalization"}


@cache
def _cases() -> dict[str, list[Any]]:
    """Operator -> its cases; those in which functions are expanded are under "expanded"."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        found: dict[str, list[Any]] = {}
        for case in collect_testcases(None):
            arrays = [a for part in case.data_sets[0] for a in part]
            if all(isinstance(a, np.ndarray | np.generic | onnx.TensorProto) for a in arrays):
                key = "expanded" if "expanded" in case.name else case.model.graph.node[0].op_type
                found.setdefault(key, []).append(case)
    return found


def _import(case: Any, feeds: dict[str, Array]) -> Graph:
    """Import, making constants of the inputs that must be."""
    constants: set[str] = set()
    while True:
        model = onnx.ModelProto()
        model.CopyFrom(case.model)
        model.graph.initializer.extend(numpy_helper.from_array(feeds[name], name) for name in sorted(constants))
        dynamic = {v.name for v in model.graph.input if any(not d.HasField("dim_value") for d in v.type.tensor_type.shape.dim)}
        try:
            return import_model(model, input_shapes={name: feeds[name].shape for name in sorted(dynamic - constants)})
        except UnsupportedError as exc:
            named = {exc.tensor} & set(feeds)
            shapes = {name for name, a in feeds.items() if a.ndim <= 1 and a.dtype.kind == "i"}  # where a computed value is named
            if "constant" not in str(exc) or not (named or shapes) - constants:
                raise
            constants |= named or shapes


def _run(graph: Graph, feeds: dict[str, Array]) -> dict[str, Array]:
    """Evaluate node by node, checking each axis map with the node's real operands."""
    rng = np.random.default_rng(0)
    values: dict[str, Array] = {**{k: feeds[k] for k in graph.inputs}, **graph.constants}
    for node in graph.nodes:
        operands = [values[v] if v != ABSENT else None for v in node.inputs]
        check_permutations(node.op, operands, rng, tolerance=1e-2)
        values.update(zip(node.outputs, node.op.evaluate(operands), strict=True))
    return {p.name: values[p.value] for p in graph.outputs}


def _array(a: Any) -> Array:
    return numpy_helper.to_array(a) if isinstance(a, onnx.TensorProto) else np.asarray(a)


def _check(case: Any) -> None:
    inputs, outputs = case.data_sets[0]
    feeds = {v.name: _array(a) for v, a in zip(case.model.graph.input, inputs, strict=True)}
    if case.model.graph.node[0].op_type in FIRST_OUTPUT_ONLY:
        del case.model.graph.output[1:]
        outputs = outputs[:1]  # a new list: the expanded case shares the old one
    reason = next((why for pattern, why in REFUSED.items() if re.fullmatch(pattern, case.name)), None)
    if reason is not None:
        with pytest.raises(SparsecError, match=reason):
            _import(case, feeds)
        return
    results = _run(_import(case, feeds), feeds)
    if case.name in DIFFERENT:
        return
    for (name, got), want in zip(results.items(), map(_array, outputs), strict=True):
        assert (got.dtype, got.shape) == (want.dtype, want.shape), (case.name, name)
        if want.dtype.kind in "iub":
            np.testing.assert_array_equal(got, want, err_msg=case.name)
        else:
            atol = 1e-5 if want.dtype.itemsize > 2 else 1e-2
            np.testing.assert_allclose(got.astype(float), want.astype(float), rtol=1e-3, atol=atol, err_msg=case.name)


@pytest.mark.parametrize("op_type", sorted(op for domain, op in RULES if domain == ""))
def test_operator(op_type: str) -> None:
    cases = _cases().get(op_type, [])
    assert bool(cases) != (op_type in WITHOUT_CASES), f"{len(cases)} cases of {op_type}: correct WITHOUT_CASES"
    for case in cases:
        _check(case)


def test_expanded_functions() -> None:
    """ONNX's definitions of composite operators, where we have a rule for every operator in them."""
    ran = 0
    for case in _cases()["expanded"]:
        ops = {(n.domain.replace("ai.onnx", ""), n.op_type) for n in case.model.graph.node}
        if ops <= set(RULES):
            _check(case)
            ran += 1
    assert ran > 60


def test_listed_cases_exist() -> None:
    names = {case.name for op_type, cases in _cases().items() if ("", op_type) in RULES for case in cases}
    assert set(DIFFERENT) <= names
    assert [p for p in REFUSED if not any(re.fullmatch(p, name) for name in names)] == []
