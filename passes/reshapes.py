"""Merging of chains of Reshape and Transpose, and moving of Reshapes past Maps."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.ops.base import Array
from sparsec.compiler.ops.map import Map
from sparsec.compiler.ops.reshape import Reshape
from sparsec.compiler.ops.transpose import Transpose
from sparsec.compiler.passing.base import Notes, Pass, Rejected, register_pass
from sparsec.compiler.passing.rules import Rule, apply_rules, merged_origin
from sparsec.passes.common.views import is_row_major, sources
from sparsec.passes.fuse_epilogue import has_epilogue


@dataclass(frozen=True)
class _Chain:
    """The same view of `source` in fewer nodes: reshape to `split`, transposition by `perm`, reshape."""

    source: str
    split: tuple[int, ...]
    perm: tuple[int, ...]
    nodes: tuple[Node, ...]


def shortest(view: Array) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(split, perm) such that `view` = reshape(transpose(reshape(buffer, split), perm)), with as few dimensions as possible."""
    groups: list[list[int]] = []  # [extent, stride] of runs of dimensions that lie together
    for n, stride in zip(view.shape, view.strides, strict=True):
        if n == 1:
            continue
        if groups and groups[-1][1] == stride * n:
            groups[-1] = [groups[-1][0] * n, stride]
        else:
            groups.append([n, stride])
    order = sorted(range(len(groups)), key=lambda i: -groups[i][1])
    split = tuple(groups[i][0] for i in order)
    return split, tuple(order.index(i) for i in range(len(groups)))


def as_transpose(shape: tuple[int, ...], view: Array) -> tuple[int, ...] | None:
    """The permutation that makes `view` of a buffer of `shape` without any reshape; None when there is none."""
    if len(shape) != view.ndim:
        return None
    strides = [prod(shape[i + 1 :]) for i in range(len(shape))]
    free = [i for i, n in enumerate(shape) if n == 1]
    found: list[int] = []
    for n, stride in zip(view.shape, view.strides, strict=True):
        fits = free[:1] if n == 1 else [i for i, m in enumerate(shape) if m == n != 1 and strides[i] == stride]
        if not fits:
            return None
        found.append(fits[0])
        if n == 1:
            free.pop(0)
    return tuple(found)


_COPY, _VIEW = 10, 1  # a transposition moves data, a reshape does not


class _Merge(Rule[_Chain]):
    ops = (Reshape, Transpose)

    def match(self, editor: GraphEditor, node: Node) -> _Chain | None:
        best: _Chain | None = None
        gain = 0
        chain: list[Node] = [node]
        dying = _cost(node)
        alone = True
        for source, view in sources(editor, node.output):
            if source == node.output:
                continue
            if view is None:
                break
            split, perm, cost = self._form(editor.types[source].shape, view)
            shorter = cost < dying or (cost <= _VIEW and len(chain) > 1)
            if shorter and dying - cost >= gain:
                best, gain = _Chain(source, split, perm, tuple(chain)), dying - cost
            producer = editor.producer(source)
            if producer is None:
                break
            chain.append(producer)
            alone = alone and editor.only_user(source) is not None
            dying += _cost(producer) if alone else 0
        return best

    def _form(self, shape: tuple[int, ...], view: Array) -> tuple[tuple[int, ...], tuple[int, ...], int]:
        """(split, perm, cost) of the shortest form of `view` of a buffer of `shape`; an empty perm for a mere reshape."""
        if is_row_major(view):
            return (), (), 0 if view.shape == shape else _VIEW
        perm = as_transpose(shape, view)
        if perm is not None:
            return shape, perm, _COPY
        split, perm = shortest(view)
        after = tuple(split[p] for p in perm)
        return split, perm, _COPY + _VIEW * ((split != shape) + (after != view.shape))

    def apply(self, editor: GraphEditor, node: Node, match: _Chain) -> None:
        value, shape = match.source, editor.types[node.output].shape
        origin = merged_origin(*match.nodes)
        if match.perm:
            if editor.types[value].shape != match.split:
                value = editor.add(Reshape(match.split), [value], hint=f"{value}.split", origin=origin).output
            after = tuple(match.split[p] for p in match.perm)
            if after == shape:
                editor.replace(node, Transpose(match.perm), [value], origin=origin)
                return
            value = editor.add(Transpose(match.perm), [value], hint=f"{value}.moved", origin=origin).output
        if editor.types[value].shape == shape:
            editor.replace_uses(node.output, value)
            editor.remove(node)
        else:
            editor.replace(node, Reshape(shape), [value], origin=origin)


def _cost(node: Node) -> int:
    return _COPY if isinstance(node.op, Transpose) else _VIEW


class _PastMap(Rule[list[str]]):
    """f(reshape(x), c) -> reshape(f(x, c')), where that lets f join the operator that computes x, or two reshapes meet."""

    ops = (Map,)

    def match(self, editor: GraphEditor, node: Node) -> list[str] | Rejected | None:
        out = editor.types[node.output].shape
        reshaped = [p for v in node.inputs if (p := editor.producer(v)) is not None and isinstance(p.op, Reshape)]
        if not reshaped:
            return None
        source = editor.types[reshaped[0].inputs[0]].shape
        following = editor.only_user(node.output)
        joins = any(_fusable(editor, p.inputs[0]) and editor.only_user(p.output) is not None for p in reshaped)
        if not joins and not (following is not None and isinstance(following.op, Reshape)):  # 2
            return None
        moved: list[str] = []
        for v in node.inputs:
            found = self._operand(editor, v, source, out)
            if found is None:  # 3
                return Rejected(f"operand {v!r} does not broadcast to {list(source)} as it does to {list(out)}")
            moved.append(found)
        return moved

    def _operand(self, editor: GraphEditor, v: str, source: tuple[int, ...], out: tuple[int, ...]) -> str | None:
        """The operand for data of shape `source`; a text `reshape:` marks a constant that `apply` reshapes."""
        t, producer = editor.types[v], editor.producer(v)
        if t.shape == out and producer is not None and isinstance(producer.op, Reshape):
            inner = producer.inputs[0]
            return inner if editor.types[inner].shape == source else None
        if t.elements == 1:
            return v if t.rank <= len(source) else None
        array = editor.constant_of(v)
        return v if array is not None and moved_shape(t.shape, out, source) is not None else None

    def apply(self, editor: GraphEditor, node: Node, match: list[str]) -> None:
        out = editor.types[node.output].shape
        source = next(editor.types[n].shape for v, n in zip(node.inputs, match, strict=True) if v != n)
        inputs = []
        for v in match:
            array = editor.constant_of(v)
            alike = moved_shape(array.shape, out, source) if array is not None and array.size > 1 else None
            inputs.append(editor.add_constant(array.reshape(alike), v) if array is not None and alike is not None else v)
        assert isinstance(node.op, Map)
        inner = editor.add(node.op, inputs, hint=f"{node.output}.flat", origin=node.origin)
        editor.replace(node, Reshape(out), [inner.output])


def _fusable(editor: GraphEditor, value: str, depth: int = 8) -> bool:
    """Whether `value` is computed by an operator with an epilogue, or by Maps that can join one; nothing else reads it."""
    node = editor.producer(value)
    if node is None or editor.only_user(value) is None or depth == 0:
        return False
    return has_epilogue(node.op) or (isinstance(node.op, Map) and any(_fusable(editor, v, depth - 1) for v in node.inputs))


def moved_shape(shape: tuple[int, ...], out: tuple[int, ...], source: tuple[int, ...]) -> tuple[int, ...] | None:
    """The shape in which a constant that broadcasts to `out` broadcasts alike to `source` (a reshape of `out`).

    It has to fill a run of dimensions of `out` that is also a run of dimensions of `source`; None when it does not.
    """
    full = (1,) * (len(out) - len(shape)) + shape
    filled = [i for i, n in enumerate(full) if n != 1]
    if not filled:
        return (1,) * len(source)
    begin, end = filled[0], filled[-1] + 1
    if full[begin:end] != out[begin:end]:
        return None
    before, size = prod(out[:begin]), prod(out[begin:end])
    for i in range(len(source)):
        if prod(source[:i]) == before:
            for j in range(i, len(source) + 1):
                if prod(source[i:j]) == size:
                    return source[i:j] + (1,) * (len(source) - j)
    return None


@register_pass
@dataclass(frozen=True)
class Reshapes(Pass):
    """Merge chains of Reshape and Transpose, and move Reshapes past Maps.

    1. A chain that is a view of its start at fixed strides becomes the shortest reshape - transposition - reshape that makes
       the same view; transpositions that move only dimensions of extent 1, or that cancel, vanish.
    2. A Reshape moves past a Map where the Map can then join the operator before the Reshape, or meets another Reshape.
    3. The Map's operands are reshaped alike, or are one number, or constants that fill a run of dimensions of both shapes.
    """

    name = "reshapes"
    summary = "merge chains of reshapes and transpositions, move reshapes past elementwise operators"

    def rewrite(self, graph: Graph, notes: Notes) -> Graph:
        return apply_rules(graph, [_Merge(), _PastMap()], notes)
