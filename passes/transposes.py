"""Moving of transpositions towards the outputs until they cancel or disappear into weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.ops.base import Op
from sparsec.compiler.ops.concat import Concat
from sparsec.compiler.ops.map import Map
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.ops.pad import Pad
from sparsec.compiler.ops.reduce import Reduce
from sparsec.compiler.ops.reshape import Reshape
from sparsec.compiler.ops.slice import Slice
from sparsec.compiler.ops.softmax import Softmax
from sparsec.compiler.ops.transpose import Transpose
from sparsec.compiler.passing.base import Notes, Pass, Rejected, register_pass
from sparsec.compiler.passing.rules import Rule, apply_rules
from sparsec.passes.reshapes import Reshapes

Perm = tuple[int, ...]


def inverse(perm: Perm) -> Perm:
    """The permutation that undoes `perm`."""
    return tuple(perm.index(i) for i in range(len(perm)))


def transposed(editor: GraphEditor, value: str) -> tuple[str, Perm] | None:
    """(x, perm) where `value` = Transpose(x)."""
    node = editor.producer(value)
    return (node.inputs[0], node.op.perm) if node is not None and isinstance(node.op, Transpose) else None


def moved_op(op: Op, perm: Perm) -> tuple[Op, Perm] | None:
    """(op', perm') such that op(Transpose(x, perm)) = Transpose(op'(x), perm'); None when the operator does not commute."""
    n = len(perm)
    match op:
        case Softmax():
            return replace(op, axis=perm[op.axis]), perm
        case Concat():
            return Concat(perm[op.axis]), perm
        case Pad():
            pads = [0] * (2 * n)
            for i, p in enumerate(perm):
                pads[p], pads[n + p] = op.pads[i], op.pads[n + i]
            return replace(op, pads=tuple(pads)), perm
        case Slice():
            back = inverse(perm)
            moved = {f: tuple(getattr(op, f)[i] for i in back) for f in ("starts", "steps", "sizes")}
            return Slice(**moved), perm
        case Reduce():
            over = tuple(sorted(perm[a] for a in op.over))
            if op.keepdims:
                return replace(op, over=over), perm
            kept = [p for p in perm if p not in over]
            ranks = sorted(kept)
            return replace(op, over=over), tuple(ranks.index(p) for p in kept)
        case _:
            return None


class _PastOperator(Rule[tuple[Op, Perm, list[str]]]):
    """op(Transpose(x)) -> Transpose(op'(x)) for operators whose operands are all transposed alike."""

    ops = (Softmax, Concat, Pad, Slice, Reduce)

    def match(self, editor: GraphEditor, node: Node) -> tuple[Op, Perm, list[str]] | Rejected | None:
        found = [transposed(editor, v) for v in node.inputs]
        if not any(found):
            return None
        perms = {f[1] for f in found if f is not None}
        if None in found or len(perms) != 1:  # 1
            constant = all(f is not None or editor.constant_of(v) is not None for f, v in zip(found, node.inputs, strict=True))
            if not constant or len(perms) != 1:
                return Rejected("its operands are not all transposed alike")
        perm = next(iter(perms))
        moved = moved_op(node.op, perm)
        if moved is None:
            return None
        return moved[0], moved[1], [f[0] if f is not None else v for f, v in zip(found, node.inputs, strict=True)]

    def apply(self, editor: GraphEditor, node: Node, match: tuple[Op, Perm, list[str]]) -> None:
        op, after, inputs = match
        found = next(f for v in node.inputs if (f := transposed(editor, v)) is not None)
        values = []
        for v, old in zip(inputs, node.inputs, strict=True):
            array = editor.constant_of(v)
            moved = array is not None and v == old
            values.append(editor.add_constant(np.transpose(array, inverse(found[1])), v) if moved and array is not None else v)
        _finish(editor, node, op, values, after)


def _finish(editor: GraphEditor, node: Node, op: Op, inputs: list[str], after: Perm) -> None:
    """Compute `op` and transpose its result into the node's output."""
    if after == tuple(range(len(after))):
        editor.replace(node, op, inputs)
        return
    inner = editor.add(op, inputs, hint=f"{node.output.removesuffix('.moved')}.moved", origin=node.origin)
    for user in editor.users(node.output):
        if user.op == Transpose(inverse(after)):  # cancels at once, so that no rule sees the pair
            editor.replace_uses(user.output, inner.output)
            editor.remove(user)
    editor.replace(node, Transpose(after), [inner.output])


@dataclass(frozen=True)
class _Operands:
    """How a Map reads its operands once the transposition `perm` is after it: (how, value) each."""

    perm: Perm
    operands: list[tuple[str, str]]


class _PastMap(Rule[_Operands]):
    """f(Transpose(x), y) -> Transpose(f(x, y'))."""

    ops = (Map,)

    def match(self, editor: GraphEditor, node: Node) -> _Operands | Rejected | None:
        out = editor.types[node.output]
        found = [transposed(editor, v) if editor.types[v].rank == out.rank else None for v in node.inputs]
        perms = [f[1] for f in found if f is not None]
        if not perms:
            return None
        perm = max(dict.fromkeys(perms), key=perms.count)
        operands = [self._operand(editor, v, f, perm) for v, f in zip(node.inputs, found, strict=True)]
        inserted = len({v for how, v in operands if how == "transpose"})
        same = [v for v, f in zip(node.inputs, found, strict=True) if f is not None and f[1] == perm]
        removed = sum(editor.only_user(v) is not None for v in dict.fromkeys(same))
        users = editor.users(node.output)
        cancels = bool(users) and not editor.is_output(node.output) and all(u.op == Transpose(inverse(perm)) for u in users)
        if inserted and removed - inserted - 1 + 2 * cancels < 1:  # 2
            return Rejected(f"{inserted} other operands would have to be transposed instead")
        return _Operands(perm, operands)

    def _operand(self, editor: GraphEditor, v: str, found: tuple[str, Perm] | None, perm: Perm) -> tuple[str, str]:
        t = editor.types[v]
        if found is not None and found[1] == perm:
            return "as it is", found[0]
        if editor.constant_of(v) is not None:
            return "constant", v
        return ("reshape", v) if sum(n != 1 for n in t.shape) <= 1 else ("transpose", v)

    def apply(self, editor: GraphEditor, node: Node, match: _Operands) -> None:
        rank, back = len(match.perm), inverse(match.perm)
        inputs = []
        for how, v in match.operands:
            shape = editor.types[v].shape
            full = (1,) * (rank - len(shape)) + shape
            after = tuple(full[p] for p in back)
            array = editor.constant_of(v)
            if how == "constant" and array is not None:
                v = v if array.size == 1 else editor.add_constant(np.transpose(array.reshape(full), back), v)
            elif how == "reshape" and shape != after:
                v = editor.add(Reshape(after), [v], hint=f"{v}.moved", origin=node.origin).output
            elif how == "transpose":
                if full != shape:
                    v = editor.add(Reshape(full), [v], hint=f"{v}.full", origin=node.origin).output
                v = editor.add(Transpose(back), [v], hint=f"{v}.moved", origin=node.origin).output
            inputs.append(v)
        _finish(editor, node, node.op, inputs, match.perm)


class _IntoMatMul(Rule[tuple[MatMul, list[str]]]):
    """A transposition of the last two dimensions becomes the product's own flag."""

    ops = (MatMul,)

    def match(self, editor: GraphEditor, node: Node) -> tuple[MatMul, list[str]] | None:
        assert isinstance(node.op, MatMul)
        op, inputs = node.op, list(node.inputs)
        for i in (0, 1):
            found = transposed(editor, inputs[i])
            if found is not None and found[1] == (*range(len(found[1]) - 2), len(found[1]) - 1, len(found[1]) - 2):
                op = replace(op, trans_b=not op.trans_b) if i else replace(op, trans_a=not op.trans_a)
                inputs[i] = found[0]
        return (op, inputs) if op != node.op else None

    def apply(self, editor: GraphEditor, node: Node, match: tuple[MatMul, list[str]]) -> None:
        editor.replace(node, match[0], match[1])


class _IntoRows(Rule[tuple[str, Perm]]):
    """Flatten(Transpose(x)) W -> Flatten(x) W', with the rows of the constant W in another order."""

    ops = (MatMul,)

    def match(self, editor: GraphEditor, node: Node) -> tuple[str, Perm] | None:
        assert isinstance(node.op, MatMul)
        flat, weights = editor.producer(node.inputs[0]), editor.constant_of(node.inputs[1])
        if flat is None or not isinstance(flat.op, Reshape) or weights is None or weights.ndim != 2 or node.op.trans_a:
            return None
        found = transposed(editor, flat.inputs[0])
        shape = editor.types[flat.output].shape
        if found is None or found[1][0] != 0 or len(shape) != 2 or shape[0] != editor.types[found[0]].shape[0]:
            return None
        return found

    def apply(self, editor: GraphEditor, node: Node, match: tuple[str, Perm]) -> None:
        assert isinstance(node.op, MatMul)
        x, perm = match
        weights, shape = editor.constants[node.inputs[1]], editor.types[x].shape
        rows = weights.T if node.op.trans_b else weights
        dims = [shape[p] for p in perm[1:]]
        back = tuple(p - 1 for p in inverse(perm)[1:])
        moved = rows.reshape(*dims, -1).transpose(*back, len(dims)).reshape(rows.shape)
        w = editor.add_constant(moved.T if node.op.trans_b else moved, f"{node.inputs[1]}.rows")
        flat_shape = (shape[0], rows.shape[0])
        flat = editor.add(Reshape(flat_shape), [x], hint=f"{node.inputs[0]}.flat", origin=node.origin)
        editor.replace(node, node.op, [flat.output, w, *node.inputs[2:]])


@register_pass
@dataclass(frozen=True)
class Transposes(Pass):
    """Move transpositions towards the outputs until they cancel, or fold them into what reads them.

    1. Softmax, Concat, Pad, Slice and Reduce commute with a transposition of all their operands (constants are transposed).
    2. So do Maps. Operands with one dimension that is not 1 are reshaped; any other operand that is not transposed alike has to
       be transposed instead, which is done only where fewer transpositions remain.
    3. A swap of a matrix product's last two dimensions becomes its flag.
    4. A transposition before Flatten and a product with constant weights becomes another order of the weights' rows.
    5. Chains of transpositions and reshapes are merged as in pass `reshapes`.
    """

    name = "transposes"
    summary = "move transpositions towards the outputs, cancel them, fold them into weights"

    def rewrite(self, graph: Graph, notes: Notes) -> Graph:
        rules: list[Rule[Any]] = [_IntoMatMul(), _IntoRows(), _PastOperator(), _PastMap()]
        for _ in range(8):
            before = graph
            graph = Reshapes().rewrite(apply_rules(graph, rules, notes), notes)
            if graph is before:
                break
        return graph
