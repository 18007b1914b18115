"""Bring a model into the form that quantisation works on: inlined, of opset 13 or newer, not quantised yet."""

from __future__ import annotations

import math
from collections.abc import Mapping

import onnx
from google.protobuf.message import EncodeError
from onnx import inliner, version_converter

from sparsec.compiler.errors import LimitError, ModelError, UnsupportedError, UsageError

_LARGEST_BATCH, _MEMORY = 32, 1 << 28
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


def float_values(proto: onnx.ModelProto) -> dict[str, int]:
    """The values of the main graph that are known to be float32 tensors, with the elements of each; open extents count as 1.

    LimitError for a model that is too large for shape inference.
    """
    try:
        inferred = onnx.shape_inference.infer_shapes(proto)
    except (EncodeError, ValueError) as exc:
        raise LimitError(f"the model is too large to quantise (2 GiB with its external data): {exc}") from None
    except onnx.shape_inference.InferenceError as exc:
        raise ModelError(f"the shapes of the model do not fit together: {str(exc).strip().splitlines()[0]}") from exc
    known = [*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output]
    floats = [v for v in known if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT]
    return {v.name: math.prod(d.dim_value or 1 for d in v.type.tensor_type.shape.dim) for v in floats}


def batch_for(floats: Mapping[str, int]) -> int:
    """How many samples run at a time where the model leaves that open: as many as keep the values inside within 256 MiB."""
    return max(1, min(_LARGEST_BATCH, _MEMORY // (4 * max(sum(floats.values()), 1))))
