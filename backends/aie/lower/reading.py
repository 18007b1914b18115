"""Nodes read from the graph as layers of the array, or why they are none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from sparsec.backends.aie.lower.computed import computed_of
from sparsec.backends.aie.lower.floats import divided, floats_of
from sparsec.backends.aie.lower.geometry import BFLOAT16, BLOCK, BYTE, Window, heads_of, plane
from sparsec.backends.aie.lower.layer import ConvLayer
from sparsec.backends.aie.lower.scaling import scaled_bytes, scaled_of
from sparsec.backends.aie.lower.shifts import Shifts, bytewise, shifts_of
from sparsec.compiler.dtypes import DType
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.map import Map
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.ops.pool import Pool
from sparsec.compiler.ops.reduce import Reduce
from sparsec.passes.byte_means import refusal
from sparsec.passes.common.windows import mean_windows

Array = np.ndarray[Any, Any]
_BYTES = {DType.U8: (0, 255), DType.I8: (-128, 127)}
_LEAST = {dtype: low for dtype, (low, _) in _BYTES.items()} | {DType.BF16: 0xFF80}  # minus infinity
_MULTIPLIED = (*_BYTES, DType.BF16)


def layer_of(graph: Graph, node: Node) -> ConvLayer | str:
    """The node as a layer of the array; or why it is none, as a clause."""
    if isinstance(node.op, Conv):
        return conv_layer(graph, node)
    if isinstance(node.op, MatMul):
        return _product_layer(graph, node)
    if isinstance(node.op, Pool | Reduce) and node.op.kind in ("avg", "mean"):
        windows = mean_windows(node, graph.types[node.inputs[0]].shape)
        floats = f"it {windows}" if isinstance(windows, str) else "it takes a mean of floats, and the array of bytes and bfloat16"
        return refusal(graph, node) or floats
    if isinstance(node.op, Pool):
        return _maximum_layer(graph, node)
    if isinstance(node.op, Map):
        return _bytewise_layer(graph, node)
    return f"{node.op.name} is not computed on the array"


def conv_layer(graph: Graph, node: Node) -> ConvLayer | str:
    """A convolution as a layer of the array; or why it is none, as a clause."""
    op = node.op
    assert isinstance(op, Conv)
    x, w = graph.types[node.inputs[0]], graph.types[node.inputs[1]]
    if x.dtype not in _MULTIPLIED or node.inputs[1] not in graph.constants:
        return "it does not multiply bytes or bfloat16 by constant weights"
    if x.rank != 4 or x.shape[0] != 1:
        return f"its data {list(x.shape)} are not one image"
    if op.strides[0] != op.strides[1] or any(d != 1 for d in op.dilations):
        return f"strides {list(op.strides)} or dilations {list(op.dilations)} differ from one stride without dilation"
    depthwise = op.groups == x.shape[1] == w.shape[0] and op.groups > 1
    shifts = (floats_of if x.dtype is DType.BF16 else shifts_of)(graph, node)
    if isinstance(shifts, str) and depthwise and x.dtype in _BYTES:
        scaled = scaled_of(graph, node)
        shifts = scaled if isinstance(scaled, Shifts) or (graph.constants[node.inputs[1]] == 1).all() else shifts
    if isinstance(shifts, str):
        return shifts
    window = Window((w.shape[2], w.shape[3]), op.strides[0], (op.pads[0], op.pads[1]))
    values = graph.constants[node.inputs[1]]
    weights = _blocked(values if depthwise else _ungrouped(values, op.groups), depthwise)
    if shifts.divisor != 1:
        weights = divided(weights, shifts.divisor)
    made = _layer(graph, node, window, (x.shape[1], w.shape[0]), shifts, weights, op.zero if any(op.pads) else None)
    return made if depthwise else replace(made, groups=op.groups, terms=op.terms)


def _product_layer(graph: Graph, node: Node) -> ConvLayer | str:
    """A product [M, K] x [K, N] as a convolution of M positions and K channels."""
    op = node.op
    assert isinstance(op, MatMul)
    x = graph.types[node.inputs[0]]
    if node.inputs[1] not in graph.constants:
        return _computed_layer(graph, node)
    if x.dtype not in _MULTIPLIED:
        return "it does not multiply bytes or bfloat16 by constant weights"
    w = graph.constants[node.inputs[1]]
    if w.ndim != 2 or op.trans_a or x.rank == 4 or plane(x) is None or heads_of(x) > 1:
        return f"it multiplies {list(x.shape)}{' transposed' if op.trans_a else ''} by {list(w.shape)}, not rows by a matrix"
    shifts = (floats_of if x.dtype is DType.BF16 else shifts_of)(graph, node)
    if isinstance(shifts, str):
        return shifts
    oihw = (w if op.trans_b else w.T)[:, :, None, None]
    return _layer(graph, node, Window(), (oihw.shape[1], oihw.shape[0]), shifts, _blocked(oihw, depthwise=False), None)


def _computed_layer(graph: Graph, node: Node) -> ConvLayer | str:
    """A product of two computed tensors: a convolution of one group for each pair of matrices."""
    found = computed_of(graph, node)
    shifts = found if isinstance(found, str) else floats_of(graph, node)
    if isinstance(found, str) or isinstance(shifts, str):
        return found if isinstance(found, str) else str(shifts)
    bias = np.zeros((found.heads, BLOCK * found.outer), shifts.bias.dtype)
    bias[:, : shifts.bias.size] = shifts.bias
    x, y = plane(graph.types[node.inputs[0]]), plane(graph.types[node.output])
    assert x is not None and y is not None
    weights = found.pattern(DType.BF16.numpy)
    channels = found.heads * found.inner * BLOCK, found.heads * found.outer * BLOCK
    if found.heads == 1:
        channels, bias = (x[0], y[0]), bias[:, : y[0]]
    made = _layer(graph, node, Window(), channels, replace(shifts, bias=bias.reshape(-1)), weights, None)
    return replace(made, computed=found)


def _maximum_layer(graph: Graph, node: Node) -> ConvLayer | str:
    """The greatest elements of windows. Padding is the least one, which wins nowhere."""
    op, x = node.op, graph.types[node.inputs[0]]
    assert isinstance(op, Pool)
    if op.kind != "max" or x.dtype not in _LEAST:
        told = "maximum" if op.kind == "max" else "norm"
        return f"it takes the {told} of {x.dtype.value}, and the array the maximum of bytes or bfloat16"
    if x.rank != 4 or x.shape[0] != 1:
        return f"its data {list(x.shape)} are not one image"
    if op.strides[0] != op.strides[1] or any(d != 1 for d in op.dilations):
        return f"strides {list(op.strides)} or dilations {list(op.dilations)} differ from one stride without dilation"
    least = _LEAST[x.dtype]
    channels, out = x.shape[1], graph.types[node.output].shape[2:]
    reach = [(o - 1) * op.strides[0] + k - p for o, k, p in zip(out, op.kernel, op.pads, strict=False)]
    outside = any(op.pads) or any(r > size for r, size in zip(reach, x.shape[2:], strict=True))
    word = least * 0x00010001 if x.dtype is DType.BF16 else least % 256 * 0x01010101
    start = np.full(-(-channels // BLOCK) * BLOCK, word, np.uint32).view(np.int32)  # as a bias: in all lanes
    window = Window((op.kernel[0], op.kernel[1]), op.strides[0], (op.pads[0], op.pads[1]))
    weights = _blocked(np.ones((channels, 1, *op.kernel), np.int8 if x.dtype in _BYTES else x.dtype.numpy), depthwise=True)
    made = _layer(graph, node, window, (channels, channels), Shifts(start, 0), weights, least if outside else None)
    return replace(made, maximum=True)


def _bytewise_layer(graph: Graph, node: Node) -> ConvLayer | str:
    """Bytes scaled, or two of them added: a depthwise product by a power of two, and a residual."""
    found = bytewise(graph, node)
    if isinstance(found, str):
        scaled = scaled_bytes(graph, node)
        found = found if isinstance(scaled, str) else (0, 1, scaled)
    if isinstance(found, str):
        return found
    x, factor, shifts = found
    channels = graph.types[node.output].shape[1]
    if graph.types[node.output].shape[0] != 1:
        return f"its data {list(graph.types[node.output].shape)} are not one image"
    weights = _blocked(np.full((channels, 1, 1, 1), factor, np.int8), depthwise=True)
    made = _layer(graph, node, Window(), (channels, channels), shifts, weights, None)
    signed = (graph.types[node.inputs[x]].dtype is DType.I8, *made.signed[1:])
    return replace(made, x=node.inputs[x], signed=signed)


def _layer(
    graph: Graph, node: Node, window: Window, channels: tuple[int, int], shifts: Shifts, weights: Array, outside: int | None
) -> ConvLayer:
    residual = node.inputs[shifts.residual] if shifts.residual is not None else None
    signed = [v is not None and graph.types[v].dtype is DType.I8 for v in (node.inputs[0], residual, node.output)]
    return ConvLayer(
        node.name,
        node.inputs[0],
        node.output,
        residual,
        window,
        channels,
        weights.shape[3] == 1,
        (signed[0], signed[1], signed[2]),
        outside,
        weights,
        shifts,
        wide=graph.types[node.output].dtype is DType.I32,
        element=BFLOAT16 if graph.types[node.inputs[0]].dtype is DType.BF16 else BYTE,
    )


def _ungrouped(w: Array, groups: int) -> Array:
    """Weights [OC, IC / groups, ...] as those of one group [OC, IC, ...]: blocks between groups are zeros, which cost nothing."""
    oc, ic, *kernel = w.shape
    whole = np.zeros((groups, oc // groups, groups, ic, *kernel), w.dtype)
    for g in range(groups):
        whole[g, :, g] = w[g * (oc // groups) : (g + 1) * (oc // groups)]
    return whole.reshape(oc, groups * ic, *kernel)


def _blocked(w: Array, depthwise: bool) -> Array:
    oc, ic, kh, kw = w.shape
    inner = 1 if depthwise else BLOCK
    padded = np.zeros((-(-oc // BLOCK) * BLOCK, -(-ic // inner) * inner, kh, kw), w.dtype)
    padded[:oc, :ic] = w
    return padded.reshape(-1, BLOCK, padded.shape[1] // inner, inner, kh, kw)
