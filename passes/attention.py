"""Recognition of scaled dot-product attention, and of the head split and merge around it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.ops.attention import Attention
from sparsec.compiler.ops.base import broadcasts_to
from sparsec.compiler.ops.map import Map
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.ops.reshape import Reshape
from sparsec.compiler.ops.softmax import Softmax
from sparsec.compiler.ops.transpose import Transpose
from sparsec.compiler.passing.base import Notes, Pass, Rejected, register_pass
from sparsec.compiler.passing.rules import Rule, apply_rules, merged_origin
from sparsec.compiler.scalar import Program
from sparsec.passes.common.expr import Leaf
from sparsec.passes.common.heads import HeadsInside, SharedHeads
from sparsec.passes.common.simplify import Simplifier

_LOW = -1e9  # beside any other score, one this low has weight 0; and any score is lost when added to it
_CHOOSE = Program.parse("where(a0,a1,a2)")


@dataclass(frozen=True)
class _Scores:
    """q k^T * scale + mask. `mask` is a value, or (condition, score where it holds, score where not) of a Where."""

    product: Node
    scale: float
    mask: str | tuple[str, float, float] | None
    nodes: tuple[Node, ...]


@dataclass(frozen=True)
class _Match:
    scores: _Scores
    softmax: Node
    weighted: Node


def _chain(editor: GraphEditor, value: str) -> tuple[Node, ...]:
    """The Maps that lead to `value`, as long as each has one reader."""
    found: list[Node] = []
    open_ = [value]
    while open_ and len(found) < 8:
        node = editor.producer(open_.pop())
        if node is not None and isinstance(node.op, Map) and editor.only_user(node.output) is not None:
            found.append(node)
            open_ += node.inputs
    return tuple(found)


def _scores(editor: GraphEditor, value: str) -> _Scores | Rejected | None:
    """What the softmax reads, as a scaled and masked product."""
    node = editor.producer(value)
    if node is not None and isinstance(node.op, Map) and editor.only_user(value) is not None and node.op.program == _CHOOSE:
        return _chosen(editor, node)
    s = Simplifier()
    constant, terms = s.terms(s.of_value(editor, value))
    found: tuple[Node, float] | None = None
    others: list[str] = []
    for sign, term in terms:
        c, factors = s.factors(term)
        leaf = s[factors[0]] if len(factors) == 1 else None
        producer = editor.producer(leaf.value) if isinstance(leaf, Leaf) else None
        if found is None and producer is not None and isinstance(producer.op, MatMul):
            found = (producer, sign * c)
        elif isinstance(leaf, Leaf) and sign * c == 1:
            others.append(leaf.value)
        else:
            return _mask_apart(editor, value)
    if found is None or constant != 0:
        return None
    if len(others) > 1:  # 3
        return Rejected(f"its scores are a sum with {len(others)} other values, not one mask")
    nodes = _chain(editor, value)
    return _Scores(found[0], found[1], others[0] if others else None, nodes)


def _mask_apart(editor: GraphEditor, value: str) -> _Scores | None:
    """An addition whose one side is the product; the other side, whatever it is, is the mask."""
    node = editor.producer(value)
    if node is None or not isinstance(node.op, Map) or str(node.op.program) not in ("add(a0,a1)", "add(a1,a0)"):
        return None
    for product, mask in (node.inputs, node.inputs[::-1]):
        found = _scores(editor, product) if editor.only_user(product) is not None else None
        if isinstance(found, _Scores) and found.mask is None:
            return _Scores(found.product, found.scale, mask, (*found.nodes, node))
    return None


def _chosen(editor: GraphEditor, node: Node) -> _Scores | Rejected | None:
    """where(condition, scores, low) or where(condition, low, scores): the mask adds 0 or low."""
    condition, kept, dropped = node.inputs
    for product, low, first in ((kept, dropped, True), (dropped, kept, False)):
        array = editor.constant_of(low)
        if array is None or array.size != 1 or editor.only_user(product) is None:
            continue
        found = _scores(editor, product)
        if not isinstance(found, _Scores) or found.mask is not None:
            return None
        number = float(array.reshape(-1)[0])
        if number > _LOW:  # 4
            return Rejected(f"it replaces masked scores by {number}, which is not low enough to be added instead")
        mask = (condition, 0.0, number) if first else (condition, number, 0.0)
        return _Scores(found.product, found.scale, mask, (*found.nodes, node))
    return None


class _Recognise(Rule[_Match]):
    """softmax(q k^T * scale + mask) v."""

    ops = (Softmax,)

    def match(self, editor: GraphEditor, node: Node) -> _Match | Rejected | None:
        assert isinstance(node.op, Softmax)
        t = editor.types[node.output]
        weighted = editor.only_user(node.output)
        if node.op.log or node.op.axis != t.rank - 1 or weighted is None or not isinstance(weighted.op, MatMul):  # 1
            return None
        if weighted.inputs[0] != node.output or weighted.op.trans_a or editor.only_user(node.inputs[0]) is None:
            return None
        scores = _scores(editor, node.inputs[0])  # 2
        if not isinstance(scores, _Scores):
            return scores
        product = scores.product
        assert isinstance(product.op, MatMul)
        if editor.only_user(product.output) is None or product.op.epilogue.steps or weighted.op.epilogue.steps:  # 2
            return Rejected(f"the product {product.name!r} is used elsewhere, too, or has an epilogue")
        q, k, v = editor.types[product.inputs[0]], editor.types[product.inputs[1]], editor.types[weighted.inputs[1]]
        if not q.rank == k.rank == v.rank or q.rank not in (3, 4):  # 5
            return Rejected(f"queries {q}, keys {k} and values {v} are not all of rank 3 or 4")
        lead = {x.shape[:-2] for x in (q, k, v)}
        if len(lead) != 1:  # 5
            return Rejected(f"queries {q}, keys {k} and values {v} differ in batch or heads")
        mask = scores.mask if not isinstance(scores.mask, tuple) else scores.mask[0]
        if mask is not None and not broadcasts_to(editor.types[mask].shape, t.shape):
            return Rejected(f"the mask {mask!r} broadcasts the scores")
        if mask is not None and editor.types[mask].shape[-1:] != t.shape[-1:]:
            return Rejected(f"the mask {mask!r} is the same for all keys")
        return _Match(scores, node, weighted)

    def apply(self, editor: GraphEditor, node: Node, match: _Match) -> None:
        product, weighted, scale = match.scores.product, match.weighted, match.scores.scale
        assert isinstance(product.op, MatMul) and isinstance(weighted.op, MatMul)
        origin = merged_origin(product, *match.scores.nodes, node, weighted)
        operands: list[str] = []
        for value, swapped in (
            (product.inputs[0], product.op.trans_a),
            (product.inputs[1], not product.op.trans_b),
            (weighted.inputs[1], weighted.op.trans_b),
        ):
            factor, stripped = _unscaled(editor, value) if len(operands) < 2 else (1.0, value)
            scale *= factor
            operands.append(_heads_outside(editor, stripped, origin, swapped=swapped))
        mask = _mask_value(editor, match.scores.mask, editor.types[operands[0]].dtype.numpy, origin)
        if mask is not None:
            operands.append(mask)
        heads = editor.types[operands[0]].shape[1]
        out = editor.types[weighted.output]
        if out.rank == 4:
            editor.replace(weighted, Attention(heads, heads, scale), operands, origin=origin)
            return
        inner = editor.add(Attention(heads, heads, scale), operands, hint=f"{weighted.output}.heads", origin=origin)
        editor.replace(weighted, Reshape(out.shape), [inner.output], origin=origin)


def _unscaled(editor: GraphEditor, value: str) -> tuple[float, str]:
    """(factor, operand) where `value` = factor * operand by a Map that nothing else reads."""
    node = editor.producer(value)
    if node is None or not isinstance(node.op, Map) or editor.only_user(value) is None:
        return 1.0, value
    s = Simplifier()
    c, factors = s.factors(s.of_value(editor, value))
    leaf = s[factors[0]] if len(factors) == 1 else None
    if not isinstance(leaf, Leaf) or editor.types[leaf.value] != editor.types[value]:
        return 1.0, value
    return c, leaf.value


def _heads_outside(editor: GraphEditor, value: str, origin: tuple[str, ...], *, swapped: bool) -> str:
    """`value` as [B, heads, length, width]: the last two dimensions swapped back, heads in a batch of one for rank 3."""
    t = editor.types[value]
    if swapped:
        perm = (*range(t.rank - 2), t.rank - 1, t.rank - 2)
        value = editor.add(Transpose(perm), [value], hint=f"{value}.swapped", origin=origin).output
    if t.rank == 3:
        shape = (1, *editor.types[value].shape)
        value = editor.add(Reshape(shape), [value], hint=f"{value}.batched", origin=origin).output
    return value


def _mask_value(
    editor: GraphEditor, mask: str | tuple[str, float, float] | None, dtype: np.dtype, origin: tuple[str, ...]
) -> str | None:
    if not isinstance(mask, tuple):
        return mask
    condition, yes, no = mask
    numbers = [editor.add_constant(np.asarray(x, dtype=dtype), f"{condition}.score") for x in (yes, no)]
    return editor.add(Map(_CHOOSE), [condition, *numbers], hint=f"{condition}.mask", origin=origin).output


@register_pass
@dataclass(frozen=True)
class RecogniseAttention(Pass):
    """Recognise softmax(q k^T * scale + mask) v as Attention, then the head split and merge around it.

    1. A softmax over the last dimension is read by one matrix product only, as its left operand.
    2. It reads a matrix product that nothing else reads: scaled before (on either side) or after, by factors or divisors,
    3. plus at most one mask, which tells keys apart,
    4. or chosen against a number of at most -1e9, which becomes a mask that adds 0 or that number.
    5. Queries, keys and values are of rank 3 or 4 and agree in all dimensions but the last two; rank 3 is one batch.
    6. Keys and values that are repeated for groups of query heads are read once a group.
    7. Heads inside: queries, keys and values are each a reshape and transposition of [batch, length, heads * width]
    8. and the result is merged back to it.
    """

    name = "attention"
    summary = "recognise scaled dot-product attention with its head split and merge"

    def rewrite(self, graph: Graph, notes: Notes) -> Graph:
        graph = apply_rules(graph, [_Recognise()], notes)
        graph = apply_rules(graph, [SharedHeads()], notes)
        return apply_rules(graph, [HeadsInside()], notes)
