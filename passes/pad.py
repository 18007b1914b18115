"""Folding of padding into the sliding windows that read it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.map import Map
from sparsec.compiler.ops.pad import Pad
from sparsec.compiler.ops.pool import Pool
from sparsec.compiler.ops.transpose import Transpose
from sparsec.compiler.passing.base import Notes, Pass, Rejected, register_pass
from sparsec.compiler.passing.rules import Rule, apply_rules, merged_origin


@dataclass(frozen=True)
class _Match:
    pad: Node
    between: Node | None
    op: Conv | Pool


class _Fold(Rule[_Match]):
    """window(Pad(x)) -> window(x) with larger pads; a transposition may stand between."""

    ops = (Conv, Pool)

    def match(self, editor: GraphEditor, node: Node) -> _Match | Rejected | None:
        op, pad, between = node.op, editor.producer(node.inputs[0]), None
        assert isinstance(op, Conv | Pool)
        if pad is not None and isinstance(pad.op, Transpose):
            between, pad = pad, editor.producer(pad.inputs[0])
        if pad is None or not isinstance(pad.op, Pad):
            return None
        n, rank = len(op.strides), len(op.strides) + 2
        perm = between.op.perm if between is not None and isinstance(between.op, Transpose) else tuple(range(rank))
        before, after = [pad.op.pads[p] for p in perm], [pad.op.pads[rank + p] for p in perm]
        if any(before[:2]) or any(after[:2]):  # 1
            return Rejected(f"{pad.name!r} pads batch or channels")
        if pad.op.mode != "constant" or min(before + after) < 0:  # 2
            return Rejected(f"{pad.name!r} does not pad with a constant")
        pads = tuple(a + b for a, b in zip(op.pads, (*before[2:], *after[2:]), strict=True))
        why = self._fill(editor, op, pad, pads, n)
        if why is not None:
            return Rejected(why)
        if isinstance(op, Pool):
            return _Match(pad, between, replace(op, pads=pads, include_pad=op.include_pad or op.kind == "avg"))
        return _Match(pad, between, replace(op, pads=pads))

    def _fill(self, editor: GraphEditor, op: Conv | Pool, pad: Node, pads: tuple[int, ...], n: int) -> str | None:
        """Why the window would not see what the padding holds; None when it does."""
        assert isinstance(pad.op, Pad)
        fill = pad.op.fill
        if isinstance(op, Pool):
            spans = [(k - 1) * d + 1 for k, d in zip(op.kernel, op.dilations, strict=True)]
            if any(p >= spans[i % n] for i, p in enumerate(pads)):  # 6
                return f"some windows would lie in the padding of {pad.name!r} alone"
        if isinstance(op, Conv) and op.zero:  # 3
            return f"the data have the zero point {op.zero}"
        if isinstance(op, Conv) or op.kind == "lp":  # 3
            return None if fill == 0 else f"{pad.name!r} pads with {fill}, not with zeros"
        if op.kind == "avg":  # 4
            if any(op.pads) and not op.include_pad:
                return f"the average leaves out its own padding, but counts that of {pad.name!r}"
            return None if fill == 0 else f"{pad.name!r} pads with {fill}, not with zeros"
        if fill == -math.inf:  # 5
            return None
        if fill == 0 and _nonnegative(editor, pad.inputs[0]):
            return None
        return f"{pad.name!r} pads with {fill}, which may be the maximum"

    def apply(self, editor: GraphEditor, node: Node, match: _Match) -> None:
        value = match.pad.inputs[0]
        if match.between is not None:
            value = editor.add(match.between.op, [value], hint=match.between.output, origin=match.between.origin).output
        editor.replace(node, match.op, [value, *node.inputs[1:]], origin=merged_origin(match.pad))


def _nonnegative(editor: GraphEditor, value: str) -> bool:
    """Whether a value is the result of a Relu."""
    node = editor.producer(value)
    if node is None:
        return False
    program = node.op.program if isinstance(node.op, Map) else getattr(node.op, "epilogue", None)
    return program is not None and bool(program.steps) and program.steps[-1].fn in ("relu", "sigmoid")


@register_pass
@dataclass(frozen=True)
class FoldPad(Pass):
    """Fold Pad into the convolution or pool that reads it (through a transposition, too).

    1. Only spatial dimensions are padded,
    2. with a constant, by no negative numbers.
    3. Convolution and Lp pool: the constant is 0, and so is the zero point of quantised data.
    4. Average pool: the constant is 0, and the pool counts its own padding or has none; it counts all of it afterwards.
    5. Max pool: the constant is -inf, or it is 0 and the data are not negative (a Relu's).
    6. No window of a pool lies in the padding alone.
    """

    name = "pad"
    summary = "fold padding into convolutions and pools"

    def rewrite(self, graph: Graph, notes: Notes) -> Graph:
        return apply_rules(graph, [_Fold()], notes)
