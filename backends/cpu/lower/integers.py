"""Products of bytes: what the lowerings of Conv and MatMul ask of nodes whose data are uint8 and whose weights are int8."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from sparsec.backends.cpu.kernels.saturation import Range, is_bounded, split_saturation
from sparsec.compiler.dtypes import DType
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.scalar import Arg, Program, Step, Tmp

Array = np.ndarray[Any, Any]
_BYTE = 255
_PAIR = 128  # what two weights sum to at most where 16 bits hold the sum of their products
_SIGN = 128  # taken from data where instructions multiply signed bytes


def is_integer(graph: Graph, node: Node) -> bool:
    """Whether the node sums products of uint8 data and constant int8 weights."""
    return graph.types[node.inputs[0]].dtype is DType.U8 and node.inputs[1] in graph.constants


def without_bias(graph: Graph, node: Node) -> Node:
    """The node without an int32 bias that its epilogue adds first: kernels begin their sums with it. Others as they are."""
    found = _bias(graph, node)
    if found is None:
        return node
    op = node.op
    assert isinstance(op, Conv | MatMul)
    steps = [Step(s.fn, tuple(_without(a, found) for a in s.args), s.dtype) for s in op.epilogue.steps[1:]]
    inputs = tuple(v for i, v in enumerate(node.inputs) if i != found + 1)
    return replace(node, op=replace(op, epilogue=Program(tuple(steps))), inputs=inputs)


def _without(a: Any, bias: int) -> Any:
    if isinstance(a, Tmp):
        return Arg(0) if a.index == 0 else Tmp(a.index - 1)
    return Arg(a.index - 1) if isinstance(a, Arg) and a.index > bias else a


def _bias(graph: Graph, node: Node) -> int | None:
    """The epilogue's argument that is a constant int32 bias a channel, added first and read nowhere else."""
    op = node.op
    assert isinstance(op, Conv | MatMul)
    steps = op.epilogue.steps
    if not steps or steps[0].fn != "add" or not all(isinstance(a, Arg) for a in steps[0].args):
        return None
    indices = sorted(a.index for a in steps[0].args if isinstance(a, Arg))
    if indices[0] != 0 or indices[1] == 0:
        return None
    value, y = node.inputs[indices[1] + 1], graph.types[node.output]
    bias = graph.constants.get(value)
    channels = y.shape[1] if isinstance(op, Conv) else y.shape[-1]
    others = [a for s in steps[1:] for a in s.args if isinstance(a, Arg)]
    if bias is None or bias.dtype != np.int32 or bias.size not in (1, channels) or Arg(0) in others or Arg(indices[1]) in others:
        return None
    axis = 1 if isinstance(op, Conv) else y.rank - 1
    lead = y.rank - bias.ndim
    along = [i + lead for i, n in enumerate(bias.shape) if n != 1]
    return indices[1] if along in ([], [axis]) else None


def first_sums(graph: Graph, node: Node, lanes: int, *, signed: bool) -> Array:
    """What the sums of each output begin with, int32 [OC] padded to whole vectors: bias, and what zero points add.

    `signed`: the kernel multiplies data less 128.
    """
    op, w = node.op, per_output(graph, node)
    assert isinstance(op, Conv | MatMul)
    sums = w.astype(np.int64).sum(axis=1)
    start = sums * ((_SIGN if signed else 0) - op.zero)
    found = _bias(graph, node)
    if found is not None:
        start = start + graph.constants[node.inputs[found + 1]].astype(np.int64).reshape(-1)
    padded = np.zeros(-(-len(start) // lanes) * lanes, np.int32)
    padded[: len(start)] = start.astype(np.int32)
    return padded


def sums_in_float(graph: Graph, node: Node) -> bool:
    """Whether float32 holds all sums of the node exactly."""
    start = np.abs(first_sums(graph, node, 1, signed=False).astype(np.int64))
    most = start + _BYTE * np.abs(per_output(graph, node).astype(np.int64)).sum(axis=1)
    return bool(most.max(initial=0) < 2**24)


def per_output(graph: Graph, node: Node) -> Array:
    """The weights as [OC, products]."""
    w = graph.constants[node.inputs[1]]
    if isinstance(node.op, MatMul):
        flat = w.reshape(w.shape[-2:])
        return flat if node.op.trans_b else flat.T
    return w.reshape(w.shape[0], -1)


def has_reduced_range(graph: Graph, node: Node) -> bool:
    """Whether |w0| + |w1| <= 128 for every two weights that lie side by side in a four of input channels.

    Then 255 |w0| + 255 |w1| < 2^15, and instructions that sum two products in 16 bits do not saturate.
    """
    w = graph.constants[node.inputs[1]]
    if isinstance(node.op, MatMul):
        w = w.reshape(w.shape[-2:])
    size = np.abs(np.moveaxis(w, _input_axis(node.op), 0).astype(np.int16))
    return int((size[:-1:2] + size[1::2]).max(initial=0)) <= _PAIR


def _input_axis(op: Any) -> int:
    """The dimension of a node's weights that holds input channels; of a matrix for a product."""
    return 0 if isinstance(op, MatMul) and not op.trans_b else 1


def is_bounded_result(graph: Graph, node: Node) -> bool:
    """Whether a node `without_bias` rounds its result to bytes, from numbers between -2^31 and 2^31."""
    op = node.op
    assert isinstance(op, Conv | MatMul)
    split = split_saturation(op.epilogue) if graph.types[node.output].dtype is DType.U8 else None
    return split is not None and is_bounded(split[0], _ranges(graph, node))


def _ranges(graph: Graph, node: Node) -> list[Range]:
    """Limits of the sums, which are any int32 with whatever bias, and of the epilogue's operands."""
    ranges: list[Range] = [(-(2.0**31), 2.0**31)]
    for value in node.inputs[2:]:
        array, t = graph.constants.get(value), graph.types[value].dtype
        if array is not None and array.size:
            ranges.append((float(array.min()), float(array.max())))
        else:
            ranges.append({DType.U8: (0.0, 255.0), DType.I8: (-128.0, 127.0)}.get(t, (-np.inf, np.inf)))
    return ranges
