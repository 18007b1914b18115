"""Means of bfloat16 as products: windows summed channel by channel, divided and rounded, for machines that store nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsec.compiler.dtypes import DType
from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.pool import Pool
from sparsec.compiler.ops.reduce import Reduce
from sparsec.compiler.passing.base import Notes, Pass, Rejected, register_pass
from sparsec.compiler.passing.rules import Rule, apply_rules, merged_origin
from sparsec.compiler.scalar import Arg, Imm, Program, Step, Tmp
from sparsec.passes.common.windows import Windows, mean_windows
from sparsec.passes.widen import cast

_MOST = 1 << 10  # positions of a window: each is a weight of a convolution


@dataclass(frozen=True)
class _Match:
    x: str
    windows: Windows
    below: Node


class _Mean(Rule[_Match]):
    """mean(float32(x)) -> a depthwise convolution of x with weights of 1, divided and rounded."""

    ops = (Reduce, Pool)

    def match(self, editor: GraphEditor, node: Node) -> _Match | Rejected | None:
        below = editor.producer(node.inputs[0])
        if below is None or below.op != cast(DType.F32) or getattr(node.op, "kind", "") not in ("mean", "avg"):
            return None
        x = editor.types[below.inputs[0]]
        if x.dtype is not DType.BF16 or x.rank != 4:
            return None
        windows = mean_windows(node, x.shape)
        if isinstance(windows, str):  # 1
            return Rejected(f"it {windows}")
        if windows.count > _MOST:  # 2
            return Rejected(f"it is one of {windows.count} positions, more than {_MOST}")
        return _Match(below.inputs[0], windows, below)

    def apply(self, editor: GraphEditor, node: Node, match: _Match) -> None:
        channels, windows = editor.types[match.x].shape[1], match.windows
        steps = (Step("div", (Arg(0), Imm(float(windows.count)))), Step("cast", (Tmp(0),), DType.BF16))
        op = Conv(windows.strides, (1, 1), windows.pads, channels, Program(steps), wide=True)
        ones = editor.add_constant(np.ones((channels, 1, *windows.kernel), DType.BF16.numpy), f"{node.output}.ones")
        origin = merged_origin(match.below, node)
        editor.remove(node)
        made = editor.add(op, [match.x, ones], hint=f"{node.output}.bf16", origin=origin, name=node.name)
        editor.add(cast(DType.F32), [made.output], hint=node.output, origin=origin, outputs=node.outputs)
        for user in editor.users(node.output):
            if user.op == cast(DType.BF16) and not editor.is_output(user.output):
                editor.replace_uses(user.output, made.output)


@register_pass
@dataclass(frozen=True)
class Bfloat16Means(Pass):
    """Means of bfloat16 become depthwise convolutions, whose results are bfloat16: for machines that store nothing else.

    1. All windows have as many positions as the mean divides by, as a global mean does, and a mean that counts its padding;
    2. and not more than 1,024.

    Means that the model computes further in float32 are rounded once more than by `bfloat16` alone, as products are by
    `bfloat16_out`.
    """

    name = "bfloat16_means"
    summary = "means of bfloat16 as depthwise convolutions that divide their sums and store bfloat16"

    def rewrite(self, graph: Graph, notes: Notes) -> Graph:
        return apply_rules(graph, [_Mean()], notes)
