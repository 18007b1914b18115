"""Nodes that move nothing on the array: concatenations of channels, reshapes of single positions, and heads taken apart.

Channels lie in blocks of 8, and an image is block after block: images that follow one another are the image of all their
channels. So the parts of a concatenation are made where the whole will be, as long as all but the last are whole blocks.

The channels of [M, heads * K] are those of the heads, one after the other, and so is the image of [heads, M, K] where K is whole
blocks: a reshape to or from [M, heads, K] and a transposition before or behind it are views together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sparsec.backends.aie.lower.geometry import BLOCK, heads_of, plane
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.ops.concat import Concat
from sparsec.compiler.ops.reshape import Reshape
from sparsec.compiler.ops.transpose import Transpose
from sparsec.compiler.types import TensorType


@dataclass(frozen=True, slots=True)
class View:
    """A node whose values share an image: each of `parts` begins so many blocks of channels within `whole`."""

    node: str
    inputs: tuple[str, ...]
    output: str
    whole: str
    parts: Mapping[str, int]


def views_of(graph: Graph, made: set[str]) -> tuple[dict[str, View], dict[str, str]]:
    """The nodes that are views once the array makes the values `made`, by node; and why other concatenations are not."""
    views: dict[str, View] = {}
    reasons: dict[str, str] = {}
    made, parts = set(made), set[str]()
    for node in graph.nodes:
        if node.name in views or not isinstance(node.op, Concat | Reshape | Transpose):
            continue
        pair = None if isinstance(node.op, Concat) else _heads(graph, node, made)
        if pair is not None:
            views |= {view.node: view for view in pair}
            made.add(pair[1].output)
            parts.update(pair[1].parts)
            continue
        if isinstance(node.op, Transpose):
            continue
        found = _joined(graph, node, made, parts) if isinstance(node.op, Concat) else _reshaped(graph, node, made)
        if isinstance(found, str):
            reasons[node.name] = found
            continue
        views[node.name] = found
        made.add(found.output)
        parts.update(found.parts)
    return views, reasons


def _joined(graph: Graph, node: Node, made: set[str], parts: set[str]) -> View | str:
    assert isinstance(node.op, Concat)
    y = graph.types[node.output]
    if y.rank != 4 or node.op.axis % 4 != 1 or plane(y) is None:
        return "it does not join channels of one image of bytes"
    if not made.intersection(node.inputs):
        return "the array makes none of the values that it joins"
    offsets: dict[str, int] = {}
    at = 0
    for v in node.inputs:
        if at % BLOCK:
            return f"its parts before {v!r} have {at} channels, which are not whole blocks of {BLOCK}"
        if v in graph.constants or v in offsets or v in parts:
            return f"its part {v!r} is a constant, or a part elsewhere, too: it would have to be copied"
        offsets[v] = at // BLOCK
        at += graph.types[v].shape[1]
    return View(node.name, node.inputs, node.output, node.output, offsets)


def _reshaped(graph: Graph, node: Node, made: set[str]) -> View | str:
    x, y = node.inputs[0], node.output
    if x not in made or not _alike(graph.types[x], graph.types[y]):
        return "Reshape is not computed on the array"
    return View(node.name, node.inputs, y, x, {y: 0})


def _heads(graph: Graph, node: Node, made: set[str]) -> tuple[View, View] | None:
    """A node and the only one behind it, which take heads apart or put them together; what is between them has no image."""
    x, users = node.inputs[0], graph.users[node.output]
    if x not in made or len(users) != 1 or node.output in graph.output_values:
        return None
    (other,) = users
    ops, y = (node.op, other.op), other.output
    turns = [op.perm for op in ops if isinstance(op, Transpose)]
    if turns != [(1, 0, 2)] or not any(isinstance(op, Reshape) for op in ops):
        return None
    apart = isinstance(ops[0], Reshape)
    whole, each = (x, y) if apart else (y, x)
    flat, heads = graph.types[whole], graph.types[each]
    between = graph.types[node.output].shape
    same = heads.rank == 3 and between == (heads.shape[1], heads.shape[0], heads.shape[2]) and heads.shape[2] % BLOCK == 0
    one = flat.rank in (2, 3) and heads_of(flat) == 1 and flat.shape[-2:] == (between[0], between[1] * between[2])
    if not same or not one or plane(flat) is None:
        return None
    return View(node.name, (x,), x, x, {}), View(other.name, (x,), y, x, {y: 0})


def _alike(x: TensorType, y: TensorType) -> bool:
    """Whether both are the same image: the same channels at the same positions, in one order."""
    one, other = plane(x), plane(y)
    if one is None or other is None or one[:3] != other[:3] or heads_of(x) != heads_of(y):
        return False
    return one[3] == other[3] or one[1] * one[2] == 1


def roots(views: Mapping[str, View]) -> dict[str, tuple[str, int]]:
    """For every part the value whose image holds it, no part itself, and the block where it begins."""
    parents = {v: (view.whole, at) for view in views.values() for v, at in view.parts.items()}
    found = {}
    for value in parents:
        root, offset = value, 0
        while root in parents:
            root, at = parents[root]
            offset += at
        found[value] = (root, offset)
    return found
