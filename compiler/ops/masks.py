"""Import rules of operators that compare positions: OneHot and Trilu become Maps with a small constant."""

from __future__ import annotations

import numpy as np

from sparsec.compiler.dtypes import DType
from sparsec.compiler.errors import ModelError
from sparsec.compiler.onnx_rules import ImportContext, OnnxNode, onnx_rule
from sparsec.compiler.ops.map import emit_map
from sparsec.compiler.ops.reshape import Reshape
from sparsec.compiler.ops.slice import emit_slice, positive_axis
from sparsec.compiler.types import TensorType


@onnx_rule("OneHot", becomes="Map", constraints="depth constant")
def _import_one_hot(ctx: ImportContext, node: OnnxNode) -> str:
    """Compare the indices, negative ones counted from the end, with 0 .. depth - 1 along the new axis."""
    indices = ctx.type(node.inputs[0])
    depth = int(node.need_const(ctx, 1, "depth").reshape(()))
    axis = positive_axis(int(node.attr("axis", -1)), indices.rank + 1)
    if depth < 1 or indices.dtype is DType.BOOL:
        raise ModelError(f"cannot encode {indices} with depth {depth}")
    ctx.limits.check_constant(TensorType(indices.dtype, (depth,)))
    shape = (*indices.shape[:axis], 1, *indices.shape[axis:])
    wide = ctx.emit(Reshape(shape), node.inputs[0])
    positions = ctx.constant(np.arange(depth).astype(indices.dtype.numpy).reshape(-1, *[1] * (indices.rank - axis)))
    number = f"{float(depth)!r}" if indices.dtype.is_float else str(depth)
    hit = emit_map(ctx, f"lt(a0,0);add(a0,{number});where(t0,t1,a0);eq(t2,a1)", wide, positions)
    off, on = (ctx.emit(Reshape(()), emit_slice(ctx, node.inputs[2], 0, i, 1)) for i in (0, 1))
    return emit_map(ctx, "where(a0,a1,a2)", hit, on, off)


@onnx_rule("Trilu", becomes="Map", constraints="k constant")
def _import_trilu(ctx: ImportContext, node: OnnxNode) -> str:
    """Keep the part above (or below) diagonal k, zero the rest."""
    x = ctx.type(node.inputs[0])
    if x.rank < 2:
        raise ModelError(f"Trilu needs a matrix, not {x}")
    k = int(node.need_const(ctx, 1, "k").reshape(())) if node.has(1) else 0
    rows, columns = x.shape[-2:]
    ctx.limits.check_constant(TensorType(DType.BOOL, (rows, columns)))
    column, diagonal = np.arange(columns)[None, :], np.arange(rows)[:, None] + k
    kept = ctx.constant(column >= diagonal if node.attr("upper", 1) else column <= diagonal)
    zero = "0.0" if x.dtype.is_float else "0"
    return emit_map(ctx, f"where(a1,a0,{zero})", node.inputs[0], kept)
