"""Bring a model into the form that quantisation works on: inlined, of opset 13 or newer, not quantised yet."""

from __future__ import annotations

import onnx
from onnx import inliner, version_converter

from sparsec.compiler.errors import ModelError, UnsupportedError, UsageError

OLDEST = 13  # DequantizeLinear takes a scale for each channel
_QUANTISED = (
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger",
    "QGemm", "QAttention", "MatMulNBits", "DynamicQuantizeMatMul", "MatMulIntegerToFloat",
)  # fmt: skip


def prepare(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model (its data embedded) ready to be quantised, itself where nothing is to be done.

    UsageError for one that is quantised already, ModelError for one that is of an old opset and cannot be converted.
    """
    if proto.functions:
        proto = inliner.inline_local_functions(proto)
    for node in proto.graph.node:
        if node.op_type in _QUANTISED:
            raise UsageError(
                f"the model is quantised already ({node.op_type} node {node.name or node.output[0]!r}): "
                f"compile it as it is, or give the float model",
                node=node.name,
            )
    opset = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 0)
    if not opset:
        raise UnsupportedError("the model imports no opset of ONNX: there is nothing to quantise")
    if opset >= OLDEST:
        return proto
    try:
        return version_converter.convert_version(proto, OLDEST)
    except Exception as exc:  # its exceptions share no base class
        first = (str(exc).strip().splitlines() or [type(exc).__name__])[0]
        raise ModelError(
            f"the model is of opset {opset}, scales for channels need {OLDEST}, and onnx cannot convert it: {first}; "
            f"export it with opset {OLDEST} or newer"
        ) from exc


def float_values(proto: onnx.ModelProto) -> set[str]:
    """The values of the main graph that are known to be float32 tensors."""
    inferred = onnx.shape_inference.infer_shapes(proto)
    known = [*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output]
    return {v.name for v in known if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
