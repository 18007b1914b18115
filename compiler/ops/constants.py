"""Import rules of operators whose result is known at compile time: Constant, Shape, Size, Range, NonZero."""

from __future__ import annotations

from fractions import Fraction
from math import ceil

import numpy as np

from sparsec.compiler.dtypes import DType
from sparsec.compiler.errors import ModelError
from sparsec.compiler.onnx_rules import ImportContext, OnnxNode, onnx_rule
from sparsec.compiler.types import TensorType

_FORMS = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}


@onnx_rule("Constant", becomes="(constant)", constraints="no strings, no sparse tensors")
def _import_constant(ctx: ImportContext, node: OnnxNode) -> str:
    given = [name for name in node.attributes if name.startswith(("value", "sparse_value"))]
    if len(given) != 1:
        raise ModelError(f"expected one of value, {', '.join(_FORMS)}, found {given or 'none'}")
    if given[0] == "value":
        return ctx.constant(np.asarray(node.attr("value")))
    if given[0] not in _FORMS:
        raise node.refuse(f"a constant given as {given[0]} is not supported")
    return ctx.constant(np.asarray(node.attr(given[0]), _FORMS[given[0]]))


@onnx_rule("Shape", becomes="(constant)")
def _import_shape(ctx: ImportContext, node: OnnxNode) -> str:
    shape = ctx.type(node.inputs[0]).shape
    return ctx.constant(np.asarray(shape[slice(node.attr("start", 0), node.attr("end"))], np.int64))


@onnx_rule("Size", becomes="(constant)")
def _import_size(ctx: ImportContext, node: OnnxNode) -> str:
    return ctx.constant(np.asarray(ctx.type(node.inputs[0]).elements, np.int64))


@onnx_rule("Range", becomes="(constant)", constraints="start, limit and delta constant")
def _import_range(ctx: ImportContext, node: OnnxNode) -> str:
    """Element i is start + i * delta; the count is exact, so that a huge range is refused before it is made."""
    start, limit, delta = (node.need_const(ctx, i, what).reshape(()) for i, what in enumerate(("start", "limit", "delta")))
    exact = [v.item() for v in (start, limit, delta)]
    if exact[2] == 0 or not all(np.isfinite(v) for v in exact):
        raise ModelError(f"a range from {exact[0]} to {exact[1]} by {exact[2]} is not finite")
    if isinstance(exact[0], int):
        count = max(0, ceil(Fraction(exact[1] - exact[0], exact[2])))
    else:  # the specification's formula, in floating point
        count = max(0, ceil(min((exact[1] - exact[0]) / exact[2], 2.0**62)))
    ctx.limits.check_constant(TensorType(DType.from_numpy(start.dtype), (count,)))
    return ctx.constant((start + np.arange(count).astype(start.dtype) * delta).astype(start.dtype))


@onnx_rule("NonZero", becomes="(constant)", constraints="input constant")
def _import_nonzero(ctx: ImportContext, node: OnnxNode) -> str:
    x = node.need_const(ctx, 0, "data")
    ctx.limits.check_constant(TensorType(DType.I64, (x.ndim, int(np.count_nonzero(x)))))
    return ctx.constant(np.stack(np.nonzero(np.atleast_1d(x))).astype(np.int64))
