"""Nodes that move nothing on the array: concatenations of channels, and reshapes of single positions.

Channels lie in blocks of 8, and an image is block after block: images that follow one another are the image of all their
channels. So the parts of a concatenation are made where the whole will be, as long as all but the last are whole blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sparsec.backends.aie.lower.geometry import BLOCK, plane
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.ops.concat import Concat
from sparsec.compiler.ops.reshape import Reshape
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
        if not isinstance(node.op, Concat | Reshape):
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


def _alike(x: TensorType, y: TensorType) -> bool:
    """Whether both are the same image: the same channels at the same positions, in one order."""
    one, other = plane(x), plane(y)
    if one is None or other is None or one[:3] != other[:3]:
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
