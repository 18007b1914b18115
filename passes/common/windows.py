"""The windows of means: which positions they are of, where that is the same everywhere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsec.compiler.graph import Node
from sparsec.compiler.ops.pool import Pool
from sparsec.compiler.ops.reduce import Reduce


@dataclass(frozen=True)
class Windows:
    """What a mean is of: windows, all of `count` positions, those of the padding among them."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    count: int


def mean_windows(node: Node, shape: tuple[int, ...]) -> Windows | str:
    """The windows of a mean of [N, C, H, W]; or why they are none of one size, as a clause."""
    op = node.op
    if isinstance(op, Reduce):
        if op.kind != "mean" or op.over != (2, 3) or not op.keepdims:
            return "is no mean of rows and columns that keeps its dimensions"
        return Windows((shape[2], shape[3]), (1, 1), (0, 0, 0, 0), shape[2] * shape[3])
    assert isinstance(op, Pool)
    if op.kind != "avg" or len(op.kernel) != 2 or any(d != 1 for d in op.dilations):
        return "is no mean of windows of rows and columns without dilations"
    counts = op.counts(np.zeros((1, 1, *shape[2:]), np.float32))
    reach = [(o - 1) * s + k for o, s, k in zip(counts.shape[2:], op.strides, op.kernel, strict=True)]
    padded = [n + op.pads[i] + op.pads[2 + i] for i, n in enumerate(shape[2:])]
    if any(r > p for r, p in zip(reach, padded, strict=True)) or (counts != counts.flat[0]).any():
        return "divides by fewer positions where its windows reach beyond the image"
    first, second, third, fourth = op.pads
    return Windows(
        (op.kernel[0], op.kernel[1]), (op.strides[0], op.strides[1]), (first, second, third, fourth), int(counts.flat[0])
    )
