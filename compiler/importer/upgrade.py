"""Rewrite nodes of old opsets into the form of the newest one, node by node, so that rules know one form.

Between opset 7 and today operators changed in four ways: attributes became inputs (a table below), defaults and meanings changed
(a function each below), attributes and types were added (no change), operators were renamed (Upsample). This works on nodes
with known input shapes, so weights are never copied and no whole-model converter is needed; the specification of each change is
ONNX's Changelog.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from sparsec.compiler.errors import ModelError
from sparsec.compiler.graph import ABSENT
from sparsec.compiler.onnx_rules import RULES, ImportContext, OnnxNode
from sparsec.compiler.ops.reshape import Reshape

# operator -> (opset since which these are inputs, first input, ((attribute, dtype or None for the data's), ...))
_MOVED: dict[str, tuple[int, int, tuple[tuple[str, Any], ...]]] = {
    "Clip": (11, 1, (("min", None), ("max", None))),
    "Dropout": (12, 1, (("ratio", np.float32),)),
    "Pad": (11, 1, (("pads", np.int64), ("value", None))),
    "Slice": (10, 1, (("starts", np.int64), ("ends", np.int64), ("axes", np.int64))),
    "Split": (13, 1, (("split", np.int64),)),
    "Squeeze": (13, 1, (("axes", np.int64),)),
    "TopK": (10, 1, (("k", np.int64),)),
    "Unsqueeze": (13, 1, (("axes", np.int64),)),
    "Upsample": (9, 1, (("scales", np.float32),)),
    "ReduceSum": (13, 1, (("axes", np.int64),)),
    **{
        f"Reduce{kind}": (18, 1, (("axes", np.int64),))
        for kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
    },
}


def translate_with_upgrade(ctx: ImportContext, node: OnnxNode, opset: int) -> str | tuple[str, ...]:
    """Apply the rule of `node`, which was written for `opset`, in the newest form. Its domain is the default one."""
    node = _move_attributes(ctx, node, opset)
    changed = _CHANGED.get(node.op_type)
    if changed is not None and opset < changed[0]:
        return changed[1](ctx, node, opset)
    return _apply(ctx, node)


def _apply(ctx: ImportContext, node: OnnxNode) -> str | tuple[str, ...]:
    return RULES[node.domain, node.op_type].rule(ctx, node)


def _move_attributes(ctx: ImportContext, node: OnnxNode, opset: int) -> OnnxNode:
    since, first, moved = _MOVED.get(node.op_type, (0, 0, ()))
    if opset >= since or not any(name in node.attributes for name, _ in moved):
        return node
    inputs = [*node.inputs, *[ABSENT] * (first + len(moved) - len(node.inputs))]
    for i, (name, dtype) in enumerate(moved):
        if name in node.attributes:
            array = np.asarray(node.attributes[name], dtype or ctx.type(node.inputs[0]).dtype.numpy)
            inputs[first + i] = ctx.constant(array.reshape(1) if node.op_type == "TopK" else array)
    while inputs and inputs[-1] == ABSENT:
        inputs.pop()
    attributes = {k: v for k, v in node.attributes.items() if k not in {name for name, _ in moved}}
    return replace(node, inputs=tuple(inputs), attributes=attributes)


def _with(node: OnnxNode, *, inputs: tuple[str, ...] | None = None, op_type: str | None = None, **attributes: Any) -> OnnxNode:
    return replace(
        node,
        op_type=op_type or node.op_type,
        inputs=node.inputs if inputs is None else inputs,
        attributes={**node.attributes, **attributes},
    )


def _softmax(ctx: ImportContext, node: OnnxNode, opset: int) -> str | tuple[str, ...]:
    """Before 13, Softmax and its kin saw a matrix: the dimensions before `axis`, and those from it on."""
    shape = ctx.type(node.inputs[0]).shape
    axis = int(node.attr("axis", 1))
    if not -len(shape) <= axis <= len(shape):
        raise ModelError(f"axis {axis} is out of range for rank {len(shape)}")
    axis += len(shape) if axis < 0 else 0
    if axis == len(shape) - 1 or (axis < len(shape) and all(d == 1 for d in shape[axis + 1 :])):
        return _apply(ctx, _with(node, axis=axis))
    rows = int(np.prod(shape[:axis], dtype=object))
    flat = ctx.emit(Reshape((rows, int(np.prod(shape[axis:], dtype=object)))), node.inputs[0])
    result = _apply(ctx, _with(node, inputs=(flat, *node.inputs[1:]), axis=1))
    return ctx.emit(Reshape(shape), result if isinstance(result, str) else result[0])


def _resize(ctx: ImportContext, node: OnnxNode, opset: int) -> str | tuple[str, ...]:
    """Resize 10 and Upsample have only scales, and map an output index i to i / scale, rounded down for `nearest`."""
    if len(node.inputs) < 2:
        raise ModelError(f"{node.op_type} has no scales")
    mode = node.attr("mode", "nearest")
    return _apply(
        ctx,
        _with(
            node,
            op_type="Resize",
            inputs=(node.inputs[0], ABSENT, node.inputs[1]),
            mode="linear" if mode == "bilinear" else mode,
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        ),
    )


def _batch_norm(ctx: ImportContext, node: OnnxNode, opset: int) -> str | tuple[str, ...]:
    """Before 9, spatial=0 asked for statistics of every element; before 14, training was told by the number of outputs."""
    if opset < 9 and int(node.attr("spatial", 1)) == 0:
        raise node.refuse("BatchNormalization with spatial=0 is not supported")
    return _apply(ctx, node)


def _group_norm(ctx: ImportContext, node: OnnxNode, opset: int) -> str | tuple[str, ...]:
    """GroupNormalization 18 to 20 scales each group; 21 each channel."""
    groups, channels = int(node.attr("num_groups", 1)), ctx.type(node.inputs[0]).shape[1]
    scales = [ctx.const(v) for v in node.inputs[1:3]]
    if any(s is None for s in scales):
        raise node.refuse("GroupNormalization before opset 21 needs constant scale and bias")
    wide = [ctx.constant(np.repeat(s, channels // groups)) for s in scales if s is not None]
    return _apply(ctx, _with(node, inputs=(node.inputs[0], *wide)))


# operator -> (opset since which it is as today, how to bring an older node there)
_CHANGED: dict[str, tuple[int, Callable[[ImportContext, OnnxNode, int], str | tuple[str, ...]]]] = {
    "BatchNormalization": (14, _batch_norm),
    "GroupNormalization": (21, _group_norm),
    "Hardmax": (13, _softmax),
    "LogSoftmax": (13, _softmax),
    "Resize": (11, _resize),
    "Softmax": (13, _softmax),
    "Upsample": (99, _resize),
}
