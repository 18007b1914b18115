"""Folding of channel shuffles (reshape, transposition, reshape) into the weights of a convolution near by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np

from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.ops.base import Array
from sparsec.compiler.ops.batch_norm import BatchNorm
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.map import Map
from sparsec.compiler.ops.pool import Pool
from sparsec.compiler.ops.reshape import Reshape
from sparsec.compiler.passing.base import Notes, Pass, Rejected, register_pass
from sparsec.compiler.passing.rules import Rule, apply_rules
from sparsec.passes.common.views import sources

_LONGEST = 8


@dataclass(frozen=True)
class _Match:
    source: str  # y[:, c] = source[:, order[c]]
    order: tuple[int, ...]
    before: bool  # whether the convolution is before the shuffle
    path: tuple[Node, ...]  # the channelwise operators between, then the convolution


def channel_order(editor: GraphEditor, value: str) -> tuple[str, tuple[int, ...]] | None:
    """(x, order) where value[:, c] = x[:, order[c]] and is no mere copy; found through Reshapes and Transposes."""
    shape = editor.types[value].shape
    for source, view in sources(editor, value):
        if source == value or len(shape) < 3 or editor.types[source].shape != shape:
            continue
        channels = _orders(editor, source, value)
        if view is None and channels is not None:
            return source, channels
    return None


def _orders(editor: GraphEditor, source: str, value: str) -> tuple[int, ...] | None:
    """Follow channel numbers through the operators between `source` and `value`."""
    shape = editor.types[source].shape
    chain: list[Node] = []
    while value != source:
        node = editor.producer(value)
        assert node is not None
        chain.insert(0, node)
        value = node.inputs[0]
    places = np.arange(prod(shape)).reshape(shape)
    moved = places
    for node in chain:
        (moved,) = node.op.evaluate([moved])
    order = moved[0].reshape(shape[1], -1)[:, 0] // prod(shape[2:])
    return tuple(int(c) for c in order) if np.array_equal(moved, places[:, order]) else None


def _is_channelwise(editor: GraphEditor, node: Node) -> bool:
    """Whether every channel of the result depends on that channel of operand 0 and on constants only."""
    if any(editor.constant_of(v) is None for v in node.inputs[1:]):
        return False
    out = editor.types[node.output].shape
    if isinstance(node.op, Conv):
        return node.op.groups == out[1] == editor.types[node.inputs[0]].shape[1]
    if isinstance(node.op, Map):
        return editor.constant_of(node.inputs[0]) is None and editor.types[node.inputs[0]].shape == out
    return isinstance(node.op, Pool | BatchNorm)


def _permuted(editor: GraphEditor, node: Node, order: Array) -> list[str]:
    """Operands of a channelwise operator (or a convolution's result side) with its channels taken in `order`."""
    inputs, rank = [node.inputs[0]], len(editor.types[node.output].shape)
    for i, v in enumerate(node.inputs[1:], start=1):
        array = editor.constants[v]
        own = isinstance(node.op, BatchNorm) or (isinstance(node.op, Conv) and i == 1)
        axis = 0 if own else 1 - (rank - array.ndim)  # parameters lead with the channels, operands broadcast to the result
        varies = axis >= 0 and array.shape[axis] != 1
        inputs.append(editor.add_constant(np.take(array, order, axis=axis), v) if varies else v)
    return inputs


class _Fold(Rule[_Match]):
    ops = (Reshape,)

    def match(self, editor: GraphEditor, node: Node) -> _Match | Rejected | None:
        found = channel_order(editor, node.output)
        if found is None:  # 1
            return None
        source, order = found
        stopped: list[Node] = []
        for before in (True, False):
            path: list[Node] = []
            for step in self._walk(editor, source if before else node.output, before):
                path.append(step)
                if isinstance(step.op, Conv) and step.op.groups == 1:  # 3
                    if all(editor.constant_of(v) is not None for v in step.inputs[1:]):
                        return _Match(source, order, before, tuple(path))
                    break
                if not _is_channelwise(editor, step):  # 2
                    break
            stopped += path[-1:]
        names = " and ".join(f"{n.name!r}" for n in stopped)
        if not names:
            return Rejected("it has several readers")
        return Rejected(f"neither side leads to a convolution without groups: stopped at {names}")

    def _walk(self, editor: GraphEditor, value: str, before: bool) -> Iterator[Node]:
        """The nodes that alone precede (or follow) a value."""
        for _ in range(_LONGEST):
            node = editor.producer(value) if before else editor.only_user(value)
            alone = editor.only_user(value) is not None
            if node is None or not alone or (not before and node.inputs[0] != value):
                return
            yield node
            value = node.inputs[0] if before else node.output

    def apply(self, editor: GraphEditor, node: Node, match: _Match) -> None:
        order = np.asarray(match.order) if match.before else np.argsort(match.order)
        *between, conv = match.path
        for step in between:
            editor.replace(step, step.op, _permuted(editor, step, order))
        conv = editor.node(conv.name) or conv
        if match.before:
            editor.replace(conv, conv.op, _permuted(editor, conv, order), origin=node.origin)
        else:
            weights = editor.add_constant(np.take(editor.constants[conv.inputs[1]], order, axis=1), f"{conv.inputs[1]}.shuffled")
            editor.replace(conv, conv.op, [conv.inputs[0], weights, *conv.inputs[2:]], origin=node.origin)
        editor.replace_uses(node.output, match.source)
        editor.remove(node)


@register_pass
@dataclass(frozen=True)
class ChannelShuffle(Pass):
    """Fold a channel shuffle into a convolution's constant weights.

    1. Reshapes and transpositions that together take the channels in another order, and leave batch and positions alone.
    2. Before or after it, channelwise operators with constant operands (depthwise convolution, BatchNorm, Map, pool), each the
       only reader of the one before it, whose constants take the order, too,
    3. lead to a convolution without groups and with constant weights: its output (or input) channels take the order.

    Between grouped convolutions the shuffle stays: mixing the groups is what it is for.
    """

    name = "channel_shuffle"
    summary = "fold channel shuffles into the weights of a convolution near by"

    def rewrite(self, graph: Graph, notes: Notes) -> Graph:
        return apply_rules(graph, [_Fold()], notes)
