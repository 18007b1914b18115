"""Splitting of a matrix product whose result is only read in slices, as fused query-key-value projections are."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.ops.base import Array
from sparsec.compiler.ops.map import Map
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.ops.reshape import Reshape
from sparsec.compiler.ops.slice import Slice
from sparsec.compiler.ops.transpose import Transpose
from sparsec.compiler.passing.base import Notes, Pass, Rejected, register_pass
from sparsec.compiler.passing.rules import Rule, apply_rules
from sparsec.compiler.sparsity import DENSE, HiNM, Sparsity

_LONGEST = 8


@dataclass(frozen=True)
class _Range:
    """[start, start + size) of dimension `axis`; all other dimensions are whole."""

    axis: int
    start: int
    size: int


def _range(op: Slice, shape: tuple[int, ...]) -> _Range | None:
    """The one dimension that a slice cuts; None when it cuts several, or strides."""
    cut = [i for i, n in enumerate(shape) if op.sizes[i] != n]
    if len(cut) != 1 or any(s != 1 for s, n in zip(op.steps, op.sizes, strict=True) if n > 1):
        return None
    return _Range(cut[0], op.starts[cut[0]], op.sizes[cut[0]])


def _slice_op(cut: _Range, shape: tuple[int, ...]) -> Slice:
    starts = tuple(cut.start if i == cut.axis else 0 for i in range(len(shape)))
    sizes = tuple(cut.size if i == cut.axis else n for i, n in enumerate(shape))
    return Slice(starts, (1,) * len(shape), sizes)


def _only_slices(editor: GraphEditor, value: str) -> bool:
    return not editor.is_output(value) and all(isinstance(u.op, Slice) for u in editor.users(value))


def _from_product(editor: GraphEditor, value: str) -> bool:
    """Whether `value` is a rearranged or shifted matrix product with constant weights that is only read in slices."""
    for _ in range(_LONGEST):
        node = editor.producer(value)
        if node is None:
            return False
        if isinstance(node.op, MatMul):
            return editor.constant_of(node.inputs[1]) is not None
        if isinstance(node.op, Map):
            computed = [v for v in node.inputs if editor.constant_of(v) is None]
            if len(computed) != 1 or editor.types[computed[0]].shape != editor.types[value].shape:
                return False
            value = computed[0]
        elif isinstance(node.op, Reshape | Transpose):
            value = node.inputs[0]
        else:
            return False
        users = editor.users(value)
        if editor.is_output(value) or not (len(users) == 1 or all(isinstance(u.op, Slice) or u is node for u in users)):
            return False
    return False


class _Before(Rule[tuple[Node, _Range]]):
    """slice(f(x)) -> f'(slice(x)) for transpositions, reshapes and Maps with constants."""

    ops = (Slice,)

    def match(self, editor: GraphEditor, node: Node) -> tuple[Node, _Range] | None:
        assert isinstance(node.op, Slice)
        below, shape = editor.producer(node.inputs[0]), editor.types[node.inputs[0]].shape
        cut = _range(node.op, shape)
        if below is None or cut is None or not isinstance(below.op, Transpose | Reshape | Map):
            return None
        if not _only_slices(editor, below.output) or not _from_product(editor, below.output):  # 1
            return None
        if isinstance(below.op, Transpose):
            return below, replace(cut, axis=below.op.perm[cut.axis])
        if isinstance(below.op, Reshape):
            moved = self._before_reshape(cut, editor.types[below.inputs[0]].shape, shape)
            return (below, moved) if moved is not None else None
        return below, cut

    def _before_reshape(self, cut: _Range, source: tuple[int, ...], shape: tuple[int, ...]) -> _Range | None:
        """The range of `source`, where the cut dimension is the first of those that one dimension of `source` is split into."""
        before = prod(shape[: cut.axis])
        for i, n in enumerate(source):
            if prod(source[:i]) == before and n % shape[cut.axis] == 0:
                inner = n // shape[cut.axis]
                if any(prod(shape[cut.axis + 1 : e]) == inner for e in range(cut.axis + 1, len(shape) + 1)):
                    return _Range(i, cut.start * inner, cut.size * inner)
        return None

    def apply(self, editor: GraphEditor, node: Node, match: tuple[Node, _Range]) -> None:
        below, cut = match
        inputs = []
        for v in below.inputs:
            shape, array = editor.types[v].shape, editor.constant_of(v)
            if array is not None:
                inputs.append(editor.add_constant(_cut_constant(array, cut, len(editor.types[below.output].shape)), v))
            else:
                inputs.append(editor.add(_slice_op(cut, shape), [v], hint=f"{node.output}.cut", origin=node.origin).output)
        op = Reshape(editor.types[node.output].shape) if isinstance(below.op, Reshape) else below.op
        editor.replace(node, op, inputs, origin=below.origin)


def _cut_constant(array: Array, cut: _Range, rank: int) -> Array:
    """The part of a constant that broadcasts to the cut result."""
    axis = cut.axis - (rank - array.ndim)
    if axis < 0 or array.shape[axis] == 1:
        return array
    index = [slice(None)] * array.ndim
    index[axis] = slice(cut.start, cut.start + cut.size)
    return array[tuple(index)]


class _IntoWeights(Rule[tuple[Node, _Range]]):
    """slice(x W + b) along the columns -> x W' + b'."""

    ops = (Slice,)

    def match(self, editor: GraphEditor, node: Node) -> tuple[Node, _Range] | Rejected | None:
        assert isinstance(node.op, Slice)
        below, shape = editor.producer(node.inputs[0]), editor.types[node.inputs[0]].shape
        cut = _range(node.op, shape)
        if below is None or not isinstance(below.op, MatMul) or cut is None or cut.axis != len(shape) - 1:
            return None
        if any(editor.constant_of(v) is None for v in below.inputs[1:]):  # 2
            return Rejected(f"the weights or the epilogue's operands of {below.name!r} are not constant")
        if not _only_slices(editor, below.output):  # 3
            return Rejected(f"the result of {below.name!r} is also read as a whole")
        cuts = [_range(u.op, shape) for u in editor.users(below.output) if isinstance(u.op, Slice)]
        if None in cuts or _overlap([c for c in cuts if c is not None], cut.axis):  # 4
            return Rejected(f"the slices of {below.name!r} overlap")
        return below, cut

    def apply(self, editor: GraphEditor, node: Node, match: tuple[Node, _Range]) -> None:
        below, cut = match
        assert isinstance(below.op, MatMul)
        weights, rank = editor.constants[below.inputs[1]], len(editor.types[below.output].shape)
        columns = replace(cut, axis=weights.ndim - 2 if below.op.trans_b else weights.ndim - 1)
        known = _cut_pattern(editor.types[below.inputs[1]].sparsity, columns, weights.shape)
        part = editor.add_constant(_cut_constant(weights, columns, weights.ndim), f"{node.output}.weights", known)
        inputs = [below.inputs[0], part]
        for v in below.inputs[2:]:
            inputs.append(editor.add_constant(_cut_constant(editor.constants[v], cut, rank), v))
        editor.replace(node, below.op, inputs, origin=below.origin)


def _cut_pattern(known: Sparsity, cut: _Range, shape: tuple[int, ...]) -> Sparsity:
    """What is known of some columns: the order of their tiles, which nothing else tells. Other patterns are found again."""
    found = known.of_outputs(cut.start, cut.start + cut.size, shape[cut.axis]) if isinstance(known, HiNM) else None
    return found or DENSE


def _overlap(cuts: list[_Range], axis: int) -> bool:
    """Whether ranges of one dimension overlap, or one is of another dimension."""
    spans = sorted((c.start, c.start + c.size) for c in set(cuts))
    return any(c.axis != axis for c in cuts) or any(b[0] < a[1] for a, b in itertools.pairwise(spans))


@register_pass
@dataclass(frozen=True)
class Split(Pass):
    """Split a matrix product with constant weights whose result is only read in slices, so that no slice is copied.

    1. Slices move before transpositions, reshapes and Maps with constants that follow such a product, where nothing reads
       these as a whole.
    2. Weights and epilogue operands are constant.
    3. The product is read by slices of its columns only,
    4. which do not overlap: no column is computed twice.
    """

    name = "split"
    summary = "split fused projections: matrix products that are only read in slices"

    def rewrite(self, graph: Graph, notes: Notes) -> Graph:
        rules: list[Rule[Any]] = [_Before(), _IntoWeights()]
        return apply_rules(graph, rules, notes)
