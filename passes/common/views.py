"""Chains of Reshape and Transpose as strided views of the value that they start from.

numpy does the arithmetic: a byte array that is never touched is reshaped and transposed; its strides say which element is where.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

import numpy as np

from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.graph import Node
from sparsec.compiler.ops.base import Array
from sparsec.compiler.ops.reshape import Reshape
from sparsec.compiler.ops.transpose import Transpose

_LONGEST = 16


def row_major(shape: Sequence[int]) -> Array:
    """A view of all elements in order. It holds no data: only strides are read."""
    return np.empty(prod(shape), dtype=np.uint8).reshape(shape)


def step_view(view: Array, node: Node) -> Array | None:
    """The view after one more Reshape or Transpose; None when its elements no longer lie at fixed strides."""
    if isinstance(node.op, Transpose):
        return view.transpose(node.op.perm)
    assert isinstance(node.op, Reshape)
    reshaped = view.reshape(node.op.shape)
    return reshaped if view.size and np.may_share_memory(reshaped, view) else None


def same_view(a: Array, b: Array) -> bool:
    """Whether two views of equal buffers read the same element at every index."""
    if a.shape != b.shape:
        return False
    return all(n == 1 or s == t for n, s, t in zip(a.shape, a.strides, b.strides, strict=True))


def is_row_major(view: Array) -> bool:
    """Whether a view reads its buffer in order."""
    return same_view(view, row_major(view.shape))


def sources(editor: GraphEditor, value: str) -> Iterator[tuple[str, Array | None]]:
    """Each value that `value` is a rearrangement of, nearest first, with `value` as a view of it (None: not at fixed strides)."""
    chain: list[Node] = []
    yield value, row_major(editor.types[value].shape)
    while len(chain) < _LONGEST:
        node = editor.producer(value)
        if node is None or not isinstance(node.op, Reshape | Transpose):
            return
        chain.insert(0, node)
        value = node.inputs[0]
        view: Array | None = row_major(editor.types[value].shape)
        for step in chain:
            view = step_view(view, step) if view is not None else None
        yield value, view


def readers(editor: GraphEditor, value: str) -> Iterator[Node]:
    """The Reshapes and Transposes that follow `value`, as long as each is the only reader."""
    for _ in range(_LONGEST):
        node = editor.only_user(value)
        if node is None or not isinstance(node.op, Reshape | Transpose):
            return
        yield node
        value = node.output
