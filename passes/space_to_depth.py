"""Convolutions with a stride and few input channels: a position's neighbours become its channels, and the stride goes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from sparsec.compiler.dtypes import DType
from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.map import Map
from sparsec.compiler.ops.pad import Pad
from sparsec.compiler.ops.reshape import Reshape
from sparsec.compiler.ops.transpose import Transpose
from sparsec.compiler.passing.base import Notes, Pass, Rejected, register_pass
from sparsec.compiler.passing.rules import Rule, apply_rules

Array = np.ndarray[Any, Any]
_MULTIPLIED = (DType.U8, DType.I8, DType.BF16)
_BLOCK = 8  # channels that arrays multiply at once


class _Join(Rule[Array]):
    """Conv(x, w) with stride s -> Conv(x' , w') with stride 1, whose channels are (row % s, column % s, channel) of x."""

    ops = (Conv,)

    def match(self, editor: GraphEditor, node: Node) -> Array | Rejected | None:
        op, x, w = node.op, editor.types[node.inputs[0]], editor.constant_of(node.inputs[1])
        assert isinstance(op, Conv)
        one_stride = len(op.strides) == 2 and op.strides[0] == op.strides[1]
        if not one_stride or op.strides[0] == 1 or x.dtype not in _MULTIPLIED or w is None:
            return None
        if x.shape[0] != 1 or op.groups != 1 or any(d != 1 for d in op.dilations):  # 1
            return Rejected("it is no convolution of one image in one group without dilation")
        if any(p >= k for p, k in zip(op.pads[:2], w.shape[2:], strict=True)):  # 1
            return Rejected("whole windows lie in its padding")
        maker = _maker(editor, node.inputs[0])
        if maker is not None and not _makes_bytes_of_floats(editor, maker):  # 2
            return Rejected(f"its data come from {maker.name!r}, which the host may not compute")
        if editor.only_user(node.inputs[0]) is None:  # 3
            return Rejected(f"others read its data {node.inputs[0]!r} as well, in their own order")
        joined = _joined(w, op.strides[0])
        before, after = _blocks(w), _blocks(joined)
        if after >= before:  # 4
            return Rejected(f"its {before} blocks of {_BLOCK} x {_BLOCK} weights would be {after}")
        return joined

    def apply(self, editor: GraphEditor, node: Node, match: Array) -> None:
        op, (x, weights, *extras) = node.op, node.inputs
        assert isinstance(op, Conv)
        stride, kernel = op.strides[0], match.shape[2:]
        rows, columns = (o - 1 + k for o, k in zip(editor.types[node.output].shape[2:], kernel, strict=True))
        value, pad = _padded(editor, node, (stride * rows, stride * columns))
        channels = editor.types[x].shape[1]
        steps = [
            pad,
            Reshape((1, channels, rows, stride, columns, stride)),
            Transpose((0, 3, 5, 1, 2, 4)),
            Reshape((1, stride * stride * channels, rows, columns)),
        ]
        for step in steps if any(pad.pads) else steps[1:]:
            value = editor.add(step, [value], hint=f"{x}.joined", origin=node.origin).output
        terms = op.terms or prod(editor.types[weights].shape[1:])
        whole = replace(op, strides=(1, 1), pads=(0, 0, 0, 0), terms=terms)
        editor.replace(node, whole, [value, editor.add_constant(match, f"{weights}.joined"), *extras])


def _padded(editor: GraphEditor, node: Node, size: tuple[int, int]) -> tuple[str, Pad]:
    """What to pad and how, so that `size` rows and columns begin where the convolution's first window does."""
    op, x = node.op, node.inputs[0]
    assert isinstance(op, Conv)
    before, fill, below = op.pads[:2], float(op.zero), editor.producer(x)
    if below is not None and isinstance(below.op, Pad) and _continued(below.op, fill if any(op.pads) else below.op.fill):
        both = tuple(b + p for b, p in zip(before, below.op.pads[2:4], strict=True))
        if all(b <= n for b, n in zip(both, size, strict=True)):  # it holds some of the data
            x, fill, before = below.inputs[0], below.op.fill, both
    after = (n - b - data for n, b, data in zip(size, before, editor.types[x].shape[2:], strict=True))
    return x, Pad((0, 0, *before, 0, 0, *after), fill=fill)


def _maker(editor: GraphEditor, value: str) -> Node | None:
    """The node that computes a value, which others may have padded or transposed; None for an input or a constant."""
    node = editor.producer(value)
    while node is not None and isinstance(node.op, Pad | Transpose):
        node = editor.producer(node.inputs[0])
    return node


def _continued(pad: Pad, fill: float) -> bool:
    """Whether more padding by `fill` behind rows and columns that `pad` has padded makes one Pad of both."""
    return pad.mode == "constant" and pad.fill == fill and min(pad.pads) >= 0 and not any((*pad.pads[:2], *pad.pads[4:6]))


def _makes_bytes_of_floats(editor: GraphEditor, node: Node) -> bool:
    return isinstance(node.op, Map) and all(editor.types[v].dtype is DType.F32 for v in node.inputs)


def _joined(w: Array, stride: int) -> Array:
    """Weights [OC, IC, rows, columns] as [OC, s * s * IC, rows / s, columns / s] for stride s, rounded up: zeros behind."""
    oc, ic, *kernel = w.shape
    rows, columns = (-(-k // stride) for k in kernel)
    whole = np.zeros((oc, ic, rows * stride, columns * stride), w.dtype)
    whole[:, :, : kernel[0], : kernel[1]] = w
    parts = whole.reshape(oc, ic, rows, stride, columns, stride).transpose(0, 3, 5, 1, 2, 4)
    return np.ascontiguousarray(parts).reshape(oc, -1, rows, columns)


def _blocks(w: Array) -> int:
    """Blocks of output and input channels, at all positions of the kernel, that are not zero."""
    oc, ic, *kernel = w.shape
    padded = np.zeros((-(-oc // _BLOCK) * _BLOCK, -(-ic // _BLOCK) * _BLOCK, *kernel), np.bool_)
    padded[:oc, :ic] = w != 0
    return int(padded.reshape(-1, _BLOCK, padded.shape[1] // _BLOCK, _BLOCK, *kernel).any(axis=(1, 3)).sum())


@register_pass
@dataclass(frozen=True)
class SpaceToDepth(Pass):
    """A convolution of bytes or bfloat16 with stride s becomes one of stride 1 over s x s times as many channels: for machines
    that multiply 8 channels at once, of which an image has 3. Sums are of the same products, and of zeros.

    1. It reads one image in one group, without dilation, and each window some of the image.
    2. Its data are an input, or made of floats: such machines do not arrange them anew, the host does.
    3. Nothing else reads them.
    4. Blocks of 8 x 8 weights that are not zero become fewer.
    """

    name = "space_to_depth"
    summary = "convolutions with strides and few channels as ones without strides over more channels"

    def rewrite(self, graph: Graph, notes: Notes) -> Graph:
        return apply_rules(graph, [_Join()], notes)
