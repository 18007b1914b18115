"""Import rules of sequences whose lengths are known: exporters split a tensor and pick parts by constant positions.

A sequence exists at import only. Its parts are ordinary values, so that no graph ever holds a sequence.
"""

from __future__ import annotations

from sparsec.compiler.errors import ModelError
from sparsec.compiler.onnx_rules import ImportContext, OnnxNode, onnx_rule
from sparsec.compiler.ops.concat import Concat
from sparsec.compiler.ops.reshape import Reshape
from sparsec.compiler.ops.slice import emit_slice, positive_axis

_PARTS = "(parts of a sequence)"
_LONGEST = 4096  # parts; splits into single elements of long axes are loops in disguise


@onnx_rule("SplitToSequence", becomes=f"Slice, Reshape {_PARTS}", constraints="sizes constant; at most 4096 parts")
def _import_split(ctx: ImportContext, node: OnnxNode) -> str:
    """Parts of given sizes, of one size (the last may be smaller), or, without sizes, of extent 1 with or without the axis."""
    shape = ctx.type(node.inputs[0]).shape
    axis = positive_axis(int(node.attr("axis", 0)), len(shape))
    n, given = shape[axis], node.need_const(ctx, 1, "sizes of the parts") if node.has(1) else None
    if given is not None and given.ndim:
        sizes, count = [int(s) for s in given.reshape(-1)], given.size
    else:
        each = int(given) if given is not None else 1
        if each < 1:
            raise ModelError(f"extent {n} cannot be split into parts of size {each}")
        sizes, count = [min(each, n - start) for start in range(0, n, each)], -(-n // each)
    if count > _LONGEST:
        raise node.refuse(f"a sequence of {count} parts is not supported: at most {_LONGEST} are")
    if sum(sizes) != n or any(s < 0 for s in sizes):
        raise ModelError(f"extent {n} cannot be split into parts of sizes {sizes}")
    parts = [emit_slice(ctx, node.inputs[0], axis, sum(sizes[:i]), size) for i, size in enumerate(sizes)]
    if given is None and not node.attr("keepdims", 1):
        parts = [ctx.emit(Reshape((*shape[:axis], *shape[axis + 1 :])), p) for p in parts]
    return ctx.sequence(parts)


@onnx_rule("SequenceConstruct", "SequenceEmpty", becomes=_PARTS)
def _import_construct(ctx: ImportContext, node: OnnxNode) -> str:
    return ctx.sequence(node.inputs)


@onnx_rule("SequenceAt", becomes=_PARTS, constraints="position constant")
def _import_at(ctx: ImportContext, node: OnnxNode) -> str:
    parts = ctx.parts(node.inputs[0])
    at = int(node.need_const(ctx, 1, "position").reshape(()))
    if not -len(parts) <= at < len(parts):
        raise ModelError(f"position {at} is outside of a sequence of {len(parts)} tensors")
    return parts[at]


@onnx_rule("SequenceInsert", becomes=_PARTS, constraints="position constant")
def _import_insert(ctx: ImportContext, node: OnnxNode) -> str:
    parts = list(ctx.parts(node.inputs[0]))
    at = int(node.need_const(ctx, 2, "position").reshape(())) if node.has(2) else len(parts)
    if not -len(parts) <= at <= len(parts):
        raise ModelError(f"position {at} is outside of a sequence of {len(parts)} tensors")
    parts.insert(at, node.inputs[1])
    return ctx.sequence(parts)


@onnx_rule("ConcatFromSequence", becomes="Concat, Reshape")
def _import_concat(ctx: ImportContext, node: OnnxNode) -> str:
    """The parts joined along an axis that they have or, with `new_axis`, along one of their own."""
    parts, new = list(ctx.parts(node.inputs[0])), bool(node.attr("new_axis", 0))
    if not parts:
        raise ModelError("an empty sequence has no concatenation")
    axis = positive_axis(int(node.attr("axis", 0)), ctx.type(parts[0]).rank + new)
    if new:
        shapes = [ctx.type(p).shape for p in parts]
        parts = [ctx.emit(Reshape((*s[:axis], 1, *s[axis:])), p) for p, s in zip(parts, shapes, strict=True)]
    return parts[0] if len(parts) == 1 else ctx.emit(Concat(axis), *parts)
