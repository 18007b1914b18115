"""Padding of bytes with their zero point as a part of convolutions, for machines that surround images with any byte."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sparsec.compiler.dtypes import DType
from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.ops.concat import Concat
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.pad import Pad
from sparsec.compiler.ops.pool import Pool
from sparsec.compiler.passing.base import Notes, Pass, Rejected, register_pass
from sparsec.compiler.passing.rules import Rule, apply_rules, merged_origin


@dataclass(frozen=True)
class _Match:
    pad: Node
    pads: tuple[int, ...]


class _Fold(Rule[_Match]):
    """Conv(Pad(x, zero)) -> Conv(x) with larger pads."""

    ops = (Conv,)

    def match(self, editor: GraphEditor, node: Node) -> _Match | Rejected | None:
        op, pad = node.op, editor.producer(node.inputs[0])
        assert isinstance(op, Conv)
        if pad is None or not isinstance(pad.op, Pad) or editor.types[pad.output].dtype is not DType.U8:  # 1
            return None
        n = len(op.strides)
        before, after = pad.op.pads[: n + 2], pad.op.pads[n + 2 :]
        if any((*before[:2], *after[:2])) or min(pad.op.pads) < 0:  # 1
            return Rejected(f"{pad.name!r} pads more than rows and columns")
        if pad.op.mode != "constant" or pad.op.fill != op.zero:  # 2
            return Rejected(f"{pad.name!r} does not pad with the zero point {op.zero}")
        pads = tuple(a + b for a, b in zip(op.pads, (*before[2:], *after[2:]), strict=True))
        kernel = editor.types[node.inputs[1]].shape[2:]
        if any(p > (k - 1) * d for p, k, d in zip(pads, 2 * kernel, 2 * op.dilations, strict=True)):  # 3
            return Rejected(f"some windows would lie in the padding of {pad.name!r} alone")
        maximum = _maximum(editor, pad.inputs[0]) if op.zero else None
        if maximum is not None:  # 4
            return Rejected(f"{maximum.name!r} takes maxima of the same image, which want the least byte around it")
        return _Match(pad, pads)

    def apply(self, editor: GraphEditor, node: Node, match: _Match) -> None:
        op = node.op
        assert isinstance(op, Conv)
        inputs = [match.pad.inputs[0], *node.inputs[1:]]
        editor.replace(node, replace(op, pads=match.pads), inputs, origin=merged_origin(match.pad))


def _maximum(editor: GraphEditor, value: str) -> Node | None:
    """A maximum of windows that reach beyond the image of a value, or of one that shares it: joined values are one image."""
    pending, seen = [value], {value}
    while pending:
        v = pending.pop()
        maker = editor.producer(v)
        for node in (*editor.users(v), *([maker] if maker is not None else [])):
            if isinstance(node.op, Pool) and node.inputs[0] == v and node.op.kind == "max" and _reaches_beyond(editor, node):
                return node
            if isinstance(node.op, Concat):
                found = {*node.inputs, node.output} - seen
                seen |= found
                pending += sorted(found)
    return None


def _reaches_beyond(editor: GraphEditor, node: Node) -> bool:
    op, x, y = node.op, editor.types[node.inputs[0]].shape[2:], editor.types[node.output].shape[2:]
    assert isinstance(op, Pool)
    windows = zip(x, y, op.kernel, op.strides, op.dilations, op.pads, strict=False)
    return any(op.pads) or any((o - 1) * s + (k - 1) * d + 1 - p > n for n, o, k, s, d, p in windows)


@register_pass
@dataclass(frozen=True)
class BytePads(Pass):
    """Padding of bytes with a convolution's zero point becomes the convolution's own: for machines that keep images surrounded
    by any byte, but one only. `pads_apart` takes it out again.

    1. Rows and columns of bytes are padded,
    2. with the zero point, all around which is what a convolution's own padding is.
    3. No window lies in the padding alone.
    4. No maximum of the same image wants another byte around it.
    """

    name = "byte_pads"
    summary = "padding with zero points as that of convolutions"

    def rewrite(self, graph: Graph, notes: Notes) -> Graph:
        return apply_rules(graph, [_Fold()], notes)
