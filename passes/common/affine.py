"""Per-channel scaling and shifting of what a convolution or a matrix product with constant weights gives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.graph import Node
from sparsec.compiler.ops.base import Array
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.conv_transpose import ConvTranspose
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.passing.base import Rejected
from sparsec.compiler.scalar import Arg, Program

BIAS = Program().then("add", Arg(0), Arg(1))


def channel_axis(node: Node, rank: int) -> int:
    """The output dimension that the weights' output channels run along."""
    return rank - 1 if isinstance(node.op, MatMul) else 1


def channel_bias(editor: GraphEditor, node: Node) -> Array | Rejected:
    """The constant that the epilogue adds a channel, zeros when it is empty; Rejected when the epilogue does more."""
    op = node.op
    assert isinstance(op, Conv | ConvTranspose | MatMul)
    out = editor.types[node.output]
    axis = channel_axis(node, out.rank)
    channels = out.shape[axis]
    if not op.epilogue.steps:
        return np.zeros(channels, dtype=out.dtype.numpy)
    if op.epilogue != BIAS:
        return Rejected(f"the epilogue of {node.name!r} is more than a bias: {op.epilogue}")
    bias = editor.constant_of(node.inputs[2])
    if bias is None:
        return Rejected(f"the epilogue of {node.name!r} adds {node.inputs[2]!r}, which is not constant")
    found = along_channels(bias, axis, out.rank, channels)
    return found if found is not None else Rejected(f"the constant that {node.name!r} adds differs within a channel")


def along_channels(array: Array, axis: int, rank: int, channels: int) -> Array | None:
    """A constant that broadcasts to `rank` dimensions, as [channels]; None when it varies along another dimension than `axis`."""
    if array.ndim > rank:
        return None
    full = array.reshape((1,) * (rank - array.ndim) + array.shape)
    if any(n != 1 for i, n in enumerate(full.shape) if i != axis):
        return None
    return np.broadcast_to(full.reshape(-1), (channels,))


def foldable(editor: GraphEditor, node: Node | None, value: str) -> Node | Rejected:
    """The producer of `value` when its weights can take over what follows; else why not."""
    if node is None or not isinstance(node.op, Conv | ConvTranspose | MatMul):
        by = "an input or constant" if node is None else node.op.name
        return Rejected(f"its operand is made by {by}, not by a convolution or matrix product")
    if editor.only_user(value) is None:
        return Rejected(f"the result of {node.name!r} is used elsewhere, too")
    weights = editor.constant_of(node.inputs[1])
    if weights is None:
        return Rejected(f"the weights of {node.name!r} are not constant")
    if isinstance(node.op, MatMul) and weights.ndim != 2:
        return Rejected(f"the constant operand of {node.name!r} is a batch of matrices")
    bias = channel_bias(editor, node)
    return bias if isinstance(bias, Rejected) else node


def scale_outputs(editor: GraphEditor, node: Node, scale: Array, shift: Array, *, result: Node) -> None:
    """Make `node` compute `scale * node + shift` (both [channels], float64) under the name of the output of `result`.

    `node` is `foldable`; `result` reads only it and is removed. Arithmetic is in float64, rounded once.
    """
    op = node.op
    assert isinstance(op, Conv | ConvTranspose | MatMul)
    out = editor.types[node.output]
    weights, bias = editor.constants[node.inputs[1]], channel_bias(editor, node)
    assert not isinstance(bias, Rejected)
    name = node.inputs[1]
    if np.any(scale != 1):
        scaled = (weights * _per_output(op, weights, scale)).astype(weights.dtype)
        name = editor.add_constant(scaled, f"{name}.scaled", editor.types[name].sparsity)
    shifted = (bias.astype(np.float64) * scale + shift).astype(weights.dtype)
    inputs = [node.inputs[0], name]
    epilogue = Program()
    if shifted.any():
        column = (-1,) + (1,) * (out.rank - 1 - channel_axis(node, out.rank))
        inputs.append(editor.add_constant(shifted.reshape(column), f"{node.name}.bias"))
        epilogue = BIAS
    editor.remove(result)
    editor.replace(node, replace(op, epilogue=epilogue), inputs, outputs=result.outputs, origin=result.origin)


def _per_output(op: Conv | ConvTranspose | MatMul, weights: Array, scale: Array) -> Array:
    """`scale` in a shape that multiplies the weights' output channels."""
    if isinstance(op, Conv):
        return scale.reshape(-1, *[1] * (weights.ndim - 1))
    if isinstance(op, MatMul):
        return scale.reshape(-1, 1) if op.trans_b else scale
    groups, per_group = op.groups, weights.shape[1]  # [IC, OC / groups, *kernel]: the group of a row is its input channel's
    rows = np.repeat(scale.reshape(groups, per_group), weights.shape[0] // groups, axis=0)
    return rows.reshape(*weights.shape[:2], *[1] * (weights.ndim - 2))
