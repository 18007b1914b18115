"""Import rule of EyeLike: the shape is static, so the matrix is a constant."""

from __future__ import annotations

import numpy as np

from sparsec.compiler.dtypes import DType
from sparsec.compiler.onnx_rules import ImportContext, OnnxNode, onnx_rule
from sparsec.compiler.types import TensorType


@onnx_rule("EyeLike", becomes="(constant)")
def _import_eye_like(ctx: ImportContext, node: OnnxNode) -> str:
    t = ctx.type(node.inputs[0])
    if t.rank != 2:
        raise node.refuse(f"it needs a matrix, not {t}")
    code = node.attr("dtype")
    dtype = t.dtype if code is None else DType.from_onnx(int(code))
    ctx.limits.check_constant(TensorType(dtype, t.shape))
    return ctx.constant(np.eye(t.shape[0], t.shape[1], k=int(node.attr("k", 0)), dtype=dtype.numpy))
