"""What the array does with float32 sums of bfloat16 products: add a bias and a residual, cut to bounds, round to bfloat16.

The epilogue of such a product is a chain from its sums: y = bfloat16(min(max(acc + bias + residual, low), high)), whatever of it
there is, in this order. The array adds the bias first, so that its sums are the interpreter's in another order.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sparsec.backends.aie.lower.shifts import Shifts
from sparsec.compiler.dtypes import DType
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.scalar import Arg, Imm, Operand, Step, Tmp

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class _Chain:
    """What has been done to the sums: argument 0, or step `at`'s result."""

    at: int
    shifts: Shifts
    rounded: bool = False


def floats_of(graph: Graph, node: Node) -> Shifts | str:
    """How the array finishes the node's float32 sums; or why it cannot, as a clause."""
    op, y = node.op, graph.types[node.output]
    assert isinstance(op, Conv | MatMul)
    if y.dtype is not DType.BF16:
        return f"its result is {y.dtype.value}, and that of bfloat16 products the array stores as bfloat16"
    steps = op.epilogue.steps
    channels = y.shape[1] if isinstance(op, Conv) else y.shape[-1]
    chain = _Chain(-1, Shifts(np.zeros(channels, np.float32), 0))
    for i, step in enumerate(steps):
        if step.fn == "cast" and isinstance(step.args[0], Arg) and step.args[0].index:
            continue  # a residual, which `_added` looks for
        if chain.rounded or not any(_is(a, chain.at) for a in step.args):
            return f"its epilogue's step {step} is none that the array has"
        made = _step(graph, node, steps, i, chain)
        if isinstance(made, str):
            return made
        chain = made
    return chain.shifts


def _is(a: Operand, at: int) -> bool:
    return a == (Tmp(at) if at >= 0 else Arg(0))


def _step(graph: Graph, node: Node, steps: tuple[Step, ...], i: int, chain: _Chain) -> _Chain | str:
    step, s = steps[i], chain.shifts
    low, high = s.bounds
    others = [a for a in step.args if not _is(a, chain.at)]
    if step.fn == "add" and len(others) == 1 and low is high is None:
        added = _added(graph, node, steps, others[0], s)
        return added if isinstance(added, str) else _Chain(i, added)
    if step.fn == "relu" and high is None:
        return _Chain(i, replace(s, bounds=(max(0.0, low or 0.0), None)))
    if step.fn in ("min", "max") and len(others) == 1 and isinstance(others[0], Imm) and high is None:
        bound = float(np.float32(others[0].value))
        if step.fn == "min" and (low is None or low <= bound):
            return _Chain(i, replace(s, bounds=(low, bound)))
        if step.fn == "max":
            return _Chain(i, replace(s, bounds=(bound if low is None else max(low, bound), None)))
    if step.fn == "cast" and step.dtype is DType.BF16:
        return _Chain(i, s, rounded=True)
    return f"its epilogue's step {step} is none that the array has"


def _added(graph: Graph, node: Node, steps: tuple[Step, ...], a: Operand, s: Shifts) -> Shifts | str:
    """`s` with an operand added: a constant of each channel before all else, or one bfloat16 tensor of the result's shape."""
    y = graph.types[node.output]
    if isinstance(a, Imm):
        data: Array = np.float32([a.value])
    else:
        source = steps[a.index].args[0] if isinstance(a, Tmp) else a
        if not isinstance(source, Arg):
            return f"it adds {a}, which it computes itself"
        index = 1 + source.index
        value = node.inputs[index]
        if value not in graph.constants:
            if s.residual is not None or graph.types[value].dtype is not DType.BF16 or graph.types[value].shape != y.shape:
                return f"it adds {value!r}: one tensor of bfloat16 of its own shape fits"
            return replace(s, residual=index)
        data = graph.constants[value].astype(np.float32)
    axis = -3 if isinstance(node.op, Conv) else -1
    each = data.ndim >= -axis and data.shape[axis] == data.size == s.bias.size
    if not (each or data.size == 1) or s.residual is not None or s.bias.any():
        return f"it adds constants that are not one for each of its {s.bias.size} channels, or more than a bias"
    return replace(s, bias=np.broadcast_to(data.reshape(-1), s.bias.shape).copy())
