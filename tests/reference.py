"""Compare the importer and the interpreter with onnxruntime, from small hand-made graphs to whole models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

from sparsec.compiler.dtypes import DType
from sparsec.compiler.graph import Graph
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.interpreter import interpret

Array = np.ndarray[Any, Any]


def make_model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Array | tuple[int, Sequence[Any]]],
    outputs: Sequence[str],
    weights: Mapping[str, Array] | None = None,
    *,
    opset: int = 21,
    functions: Sequence[onnx.FunctionProto] = (),
    domains: Mapping[str, int] | None = None,
    ir_version: int = 10,
) -> onnx.ModelProto:
    """A model of `nodes`. An input is an example array or (ONNX element type, dims)."""
    infos = []
    for name, spec in inputs.items():
        kind, dims = spec if isinstance(spec, tuple) else (DType.from_numpy(spec.dtype).onnx, spec.shape)
        infos.append(helper.make_tensor_value_info(name, kind, list(dims)))
    graph = helper.make_graph(
        list(nodes),
        "test",
        infos,
        [onnx.ValueInfoProto(name=o) for o in outputs],
        [numpy_helper.from_array(a, n) for n, a in (weights or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, v) for d, v in (domains or {}).items())]
    return helper.make_model(graph, opset_imports=opsets, functions=list(functions), ir_version=ir_version)


def run_ort(model: onnx.ModelProto, feeds: Mapping[str, Array], *, optimise: bool = True) -> dict[str, Array]:
    """Output name -> array, as onnxruntime computes it."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 2
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def assert_close(ours: Mapping[str, Array], theirs: Mapping[str, Array], tolerance: float = 1e-5) -> None:
    """Same names, dtypes and shapes; integers equal; floats within `tolerance` of the largest reference value."""
    assert set(ours) == set(theirs)
    for name, reference in theirs.items():
        got = ours[name]
        assert (got.dtype, got.shape) == (reference.dtype, reference.shape), name
        if reference.dtype.kind != "f":
            np.testing.assert_array_equal(got, reference, err_msg=name)
            continue
        bound = tolerance * max(float(np.abs(reference[np.isfinite(reference)]).max(initial=0.0)), 1e-6)
        np.testing.assert_allclose(got, reference, rtol=0, atol=bound, err_msg=name)


def check_model(
    model: onnx.ModelProto, feeds: Mapping[str, Array], *, tolerance: float = 1e-5, optimise: bool = True, **bind: Any
) -> Graph:
    """Import, interpret, and compare with onnxruntime; the imported graph."""
    graph = import_model(model, **bind)
    assert_close(interpret(graph, feeds), run_ort(model, feeds, optimise=optimise), tolerance)
    return graph


def check_node(
    op_type: str,
    feeds: Mapping[str, Array],
    weights: Mapping[str, Array] | None = None,
    *,
    inputs: Sequence[str] | None = None,
    outputs: int | Sequence[str] = 1,
    opset: int = 21,
    domain: str = "",
    tolerance: float = 1e-5,
    **attributes: Any,
) -> Graph:
    """One node against onnxruntime. `inputs` orders feeds and weights (default: feeds, then weights)."""
    names = [f"y{i}" for i in range(outputs)] if isinstance(outputs, int) else list(outputs)
    order = list(inputs) if inputs is not None else [*feeds, *(weights or {})]
    node = helper.make_node(op_type, order, names, name="node", domain=domain, **attributes)
    model = make_model([node], feeds, [n for n in names if n], weights, opset=opset, domains={domain: 1} if domain else None)
    return check_model(model, feeds, tolerance=tolerance)
