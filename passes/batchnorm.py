"""Folding of batch normalisation into the weights before or after it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.ops.base import Array
from sparsec.compiler.ops.batch_norm import BatchNorm
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.map import Map
from sparsec.compiler.passing.base import Notes, Pass, Rejected, register_pass
from sparsec.compiler.passing.rules import Rule, apply_rules
from sparsec.compiler.scalar import Program
from sparsec.passes.common.affine import BIAS, channel_axis, channel_bias, foldable, scale_outputs

_AFFINE = Program.parse("mul(a0,a1);add(t0,a2)")


def coefficients(editor: GraphEditor, node: Node) -> tuple[Array, Array] | None:
    """(scale, shift), each [C] in float64, such that the node computes scale * x + shift; None when they are not constant."""
    assert isinstance(node.op, BatchNorm)
    found = [editor.constant_of(v) for v in node.inputs[1:]]
    arrays = [a.astype(np.float64) for a in found if a is not None]
    if len(arrays) != 4:
        return None
    gamma, beta, mean, var = arrays
    scale = gamma / np.sqrt(var + node.op.epsilon)
    return scale, beta - mean * scale


class _IntoProducer(Rule[tuple[Node, Array, Array]]):
    """Conv or MatMul, then BatchNorm."""

    ops = (BatchNorm,)

    def match(self, editor: GraphEditor, node: Node) -> tuple[Node, Array, Array] | Rejected | None:
        affine = coefficients(editor, node)
        if affine is None:  # 1
            return Rejected("its statistics or parameters are not constant")
        producer = foldable(editor, editor.producer(node.inputs[0]), node.inputs[0])  # 2
        if isinstance(producer, Rejected):
            return producer
        rank = editor.types[node.output].rank
        if channel_axis(producer, rank) != 1:  # 3
            return Rejected(f"its channels are not the columns of {producer.name!r}")
        return producer, *affine

    def apply(self, editor: GraphEditor, node: Node, match: tuple[Node, Array, Array]) -> None:
        scale_outputs(editor, match[0], match[1], match[2], result=node)


class _IntoConsumer(Rule[tuple[Node, Array, Array]]):
    """BatchNorm, then Conv."""

    ops = (BatchNorm,)

    def match(self, editor: GraphEditor, node: Node) -> tuple[Node, Array, Array] | Rejected | None:
        affine, user = coefficients(editor, node), editor.only_user(node.output)
        if affine is None or user is None or not isinstance(user.op, Conv):  # 1, 4
            return None
        if user.inputs[0] != node.output or user.inputs.count(node.output) > 1 or editor.constant_of(user.inputs[1]) is None:
            return Rejected(f"the weights of its reader {user.name!r} are not constant")  # 4
        if any(user.op.pads) and affine[1].any():  # 5
            return Rejected(f"its reader {user.name!r} pads with zeros, which the shift would have to reach")
        bias = channel_bias(editor, user)
        return bias if isinstance(bias, Rejected) else (user, *affine)  # 6

    def apply(self, editor: GraphEditor, node: Node, match: tuple[Node, Array, Array]) -> None:
        user, scale, shift = match
        assert isinstance(user.op, Conv)
        weights, bias, groups = editor.constants[user.inputs[1]], channel_bias(editor, user), user.op.groups
        assert not isinstance(bias, Rejected)
        out, per_group, *kernel = weights.shape
        split = weights.astype(np.float64).reshape(groups, out // groups, per_group, -1)
        column = (groups, 1, per_group, 1)
        moved = bias + (split * shift.reshape(column)).sum(axis=(2, 3)).reshape(-1)
        scaled = (split * scale.reshape(column)).reshape(out, per_group, *kernel)
        sparsity = editor.types[user.inputs[1]].sparsity
        w = editor.add_constant(scaled.astype(weights.dtype), f"{user.inputs[1]}.scaled", sparsity)
        b = editor.add_constant(moved.astype(weights.dtype).reshape(-1, *[1] * len(kernel)), f"{user.name}.bias")
        op = Conv(user.op.strides, user.op.dilations, user.op.pads, groups, BIAS)
        editor.replace(user, op, [node.inputs[0], w, b], origin=node.origin)


class _ToMap(Rule[tuple[Array, Array]]):
    """What neither side takes becomes one multiplication and one addition an element."""

    ops = (BatchNorm,)

    def match(self, editor: GraphEditor, node: Node) -> tuple[Array, Array] | None:
        return coefficients(editor, node)

    def apply(self, editor: GraphEditor, node: Node, match: tuple[Array, Array]) -> None:
        t = editor.types[node.output]
        column = (-1, *[1] * (t.rank - 2))
        names = [
            editor.add_constant(a.astype(t.dtype.numpy).reshape(column), f"{node.name}.{what}")
            for a, what in zip(match, ("scale", "shift"), strict=True)
        ]
        editor.replace(node, Map(_AFFINE), [node.inputs[0], *names])


@register_pass
@dataclass(frozen=True)
class FoldBatchNorm(Pass):
    """Fold BatchNorm into weights: into the producer's, else into the consumer's, else into a Map with constants a channel.

    1. Scale, bias, mean and variance are constant.
    2. Producer: a Conv, ConvTranspose or MatMul with constant weights, at most a constant bias a channel, and no other reader.
    3. The normalised dimension is the one that its output channels run along.
    4. Consumer: the only reader is a Conv with constant weights.
    5. That Conv does not pad, or the shift is zero: padding is inserted after the normalisation.
    6. That Conv's epilogue is at most a constant bias a channel.

    Weights are computed in float64 and rounded once.
    """

    name = "batchnorm"
    summary = "fold batch normalisation into the weights before or after it"

    def rewrite(self, graph: Graph, notes: Notes) -> Graph:
        graph = apply_rules(graph, [_IntoProducer(), _IntoConsumer()], notes)
        return apply_rules(graph, [_ToMap()], notes)
