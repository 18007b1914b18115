"""The first part of an epilogue: what is done to a product's sums one after the other, up to the rounding of its result.

That is, in this order and whatever of it there is: a constant of each channel added (a bias), a bfloat16 tensor of the result's
shape added (a residual), cuts to bounds, a rounding to bfloat16. Sums of one channel each, as of means, may be divided before.
Machines that store nothing but bfloat16 compute it beside the product; `bfloat16_out` gives the rest to nodes of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sparsec.compiler.dtypes import DType
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.scalar import Arg, Imm, Operand, Step, Tmp

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Chain:
    """How far the first part goes: `at` is the step that ends it (-1: it is empty).

    `bias` float32 [channels]; `residual` is the index of the operand among the node's inputs; `bounds` are the least and greatest
    results; `divisor` is what sums are divided by first; `steps` are those of the chain, and those that widen the residual, in
    order; `stopped` is the step that no longer belongs to it.
    """

    bias: Array
    residual: int | None = None
    bounds: tuple[float | None, float | None] = (None, None)
    rounded: bool = False
    at: int = -1
    steps: tuple[int, ...] = ()
    stopped: Step | None = None
    divisor: float = 1.0

    @property
    def result(self) -> Operand:
        """What it leaves."""
        return Tmp(self.at) if self.at >= 0 else Arg(0)


def chain_of(graph: Graph, node: Node) -> Chain:
    """The first part of the epilogue of a product of bfloat16, a Conv or MatMul."""
    op, y = node.op, graph.types[node.output]
    assert isinstance(op, Conv | MatMul)
    steps = op.epilogue.steps
    chain = Chain(np.zeros(y.shape[1] if isinstance(op, Conv) else y.shape[-1], np.float32))
    while not chain.rounded and chain.at < len(steps) - 1:
        users = [i for i, s in enumerate(steps) for a in s.args if a == chain.result]
        made = _longer(graph, node, chain, users[0]) if len(users) == 1 else None
        if made is None:
            return replace(chain, stopped=steps[users[0]]) if users else chain
        chain = made
    return chain


def _longer(graph: Graph, node: Node, chain: Chain, i: int) -> Chain | None:
    """The chain with step `i` at its end; None when that does not belong to it."""
    assert isinstance(node.op, Conv | MatMul)
    step = node.op.epilogue.steps[i]
    low, high = chain.bounds
    made = replace(chain, at=i, steps=(*chain.steps, i))
    others = [a for a in step.args if a != chain.result]
    if step.fn == "cast":
        return replace(made, rounded=True) if step.dtype is DType.BF16 else None
    if step.fn == "relu":
        return None if high is not None else replace(made, bounds=(max(0.0, low or 0.0), None))
    if len(others) != 1:
        return None
    if step.fn == "div":
        by, divides = others[0], chain.at == -1 and step.args[0] == chain.result and _by_channel(graph, node)
        return replace(made, divisor=float(np.float32(by.value))) if divides and isinstance(by, Imm) and by.value > 0 else None
    if step.fn == "add":
        return _added(graph, node, made, others[0]) if low is high is None else None
    if step.fn in ("min", "max") and isinstance(others[0], Imm) and high is None:
        bound = float(np.float32(others[0].value))
        if step.fn == "max":
            return replace(made, bounds=(bound if low is None else max(low, bound), None))
        return replace(made, bounds=(low, bound)) if low is None or low <= bound else None
    return None


def _by_channel(graph: Graph, node: Node) -> bool:
    """Whether every sum is of one channel of the data."""
    channels = graph.types[node.inputs[0]].shape[1:2]
    return isinstance(node.op, Conv) and (node.op.groups,) == channels == graph.types[node.output].shape[1:2]


def _added(graph: Graph, node: Node, chain: Chain, a: Operand) -> Chain | None:
    """The chain that adds an operand at its end."""
    assert isinstance(node.op, Conv | MatMul)
    steps, y = node.op.epilogue.steps, graph.types[node.output]
    data: Array = np.array([a.value if isinstance(a, Imm) else 0.0], np.float32)
    if not isinstance(a, Imm):
        source = steps[a.index].args[0] if isinstance(a, Tmp) and steps[a.index].fn == "cast" else a
        if not isinstance(source, Arg):
            return None
        value = node.inputs[1 + source.index]
        if value not in graph.constants:
            fits = chain.residual is None and graph.types[value].dtype is DType.BF16 and graph.types[value].shape == y.shape
            widening = (a.index,) if isinstance(a, Tmp) else ()
            return replace(chain, residual=1 + source.index, steps=(*chain.steps, *widening)) if fits and widening else None
        if isinstance(a, Tmp):
            return None
        data = graph.constants[value].astype(np.float32)
    axis = -3 if isinstance(node.op, Conv) else -1
    each = data.ndim >= -axis and data.shape[axis] == data.size == chain.bias.size
    if not (each or data.size == 1) or chain.residual is not None or chain.bias.any():
        return None
    return replace(chain, bias=np.broadcast_to(data.reshape(-1), chain.bias.shape).copy())
