"""Import rule of Einsum: transposes, reductions, and one matrix product (or elementwise product) for each pair of operands.

Two operands at a time, left to right. Labels of a pair fall into four groups: shared and kept (batch), shared and summed (k), the
left's own (m), the right's own (n). Then left [batch, m, k] times right [batch, k, n] is a MatMul; groups of several labels are
merged by Reshape. An operand that is stored the other way round in its last two groups is read transposed.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from sparsec.compiler.errors import ModelError
from sparsec.compiler.onnx_rules import ImportContext, OnnxNode, onnx_rule
from sparsec.compiler.ops.map import emit_map
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.ops.reduce import Reduce
from sparsec.compiler.ops.reshape import Reshape
from sparsec.compiler.ops.transpose import Transpose


@dataclass(frozen=True, slots=True)
class _Term:
    """A value with a label for each of its dimensions."""

    value: str
    labels: str


@onnx_rule(
    "Einsum",
    becomes="Transpose, Reduce, Reshape, MatMul, Map",
    constraints="no label twice in one operand (diagonals); all floats",
)
def _import_einsum(ctx: ImportContext, node: OnnxNode) -> str:
    inputs, output = _parse(ctx, node)
    sizes: dict[str, int] = {}
    for term in inputs:
        for label, n in zip(term.labels, ctx.type(term.value).shape, strict=True):
            if sizes.get(label, 1) not in (1, n) and n != 1:
                raise ModelError(f"label {label!r} stands for extents {sizes[label]} and {n}")
            sizes[label] = max(sizes.get(label, 1), n) if n != 0 else 0
    if missing := set(output) - set(sizes):
        raise ModelError(f"the result has labels {''.join(sorted(missing))!r}, which no operand has")
    terms = [_squeezed(ctx, term, sizes) for term in inputs]
    left = terms[0]
    for i, right in enumerate(terms[1:], 1):
        later = set(output).union(*(t.labels for t in terms[i + 1 :]))
        left = _contract(ctx, _summed(ctx, left, later | set(right.labels)), _summed(ctx, right, later | set(left.labels)), later)
    left = _summed(ctx, left, set(output))
    if lost := [c for c in output if c not in left.labels]:
        left = _Term(ctx.emit(Reshape((*[1] * len(lost), *ctx.type(left.value).shape)), left.value), "".join(lost) + left.labels)
    return _permuted(ctx, left, output).value


def _parse(ctx: ImportContext, node: OnnxNode) -> tuple[list[_Term], str]:
    """The operands with labels and the result's labels; an ellipsis becomes upper-case Greek letters."""
    equation = str(node.attr("equation", "")).replace(" ", "")
    left, arrow, output = equation.partition("->")
    parts = left.split(",")
    if len(parts) != len(node.inputs):
        raise ModelError(f"equation {equation!r} has {len(parts)} operands, the node has {len(node.inputs)}")
    terms, widest = [], 0
    for part, value in zip(parts, node.inputs, strict=True):
        rank = ctx.type(value).rank
        named = part.replace("...", "")
        dots = rank - len(named)
        if (dots < 0 or (dots > 0 and "..." not in part)) or not (named.isalpha() or not named) or not named.isascii():
            raise ModelError(f"operand {part!r} of equation {equation!r} does not fit {ctx.type(value)}")
        if len(set(named)) != len(named):
            raise node.refuse(f"equation {equation!r} takes a diagonal ({part!r}), which is not supported")
        widest = max(widest, dots)
        terms.append(_Term(value, part.replace("...", _greek(dots))))
    if not arrow:
        text = left.replace(",", "").replace("...", "")
        output = "..." * ("..." in left) + "".join(sorted(c for c in set(text) if text.count(c) == 1))
    output = output.replace("...", _greek(widest))
    if len(set(output)) != len(output):
        raise ModelError(f"the result of equation {equation!r} repeats a label")
    return terms, output


def _greek(n: int) -> str:
    """The last `n` of a run of labels that no equation can spell."""
    return "".join(chr(0x3A9 - i) for i in range(n))[::-1]


def _squeezed(ctx: ImportContext, term: _Term, sizes: dict[str, int]) -> _Term:
    """Drop dimensions of extent 1 whose label is larger elsewhere: they broadcast."""
    shape = ctx.type(term.value).shape
    kept = [i for i, c in enumerate(term.labels) if shape[i] == sizes[c]]
    if len(kept) == len(shape):
        return term
    return _Term(ctx.emit(Reshape(tuple(shape[i] for i in kept)), term.value), "".join(term.labels[i] for i in kept))


def _summed(ctx: ImportContext, term: _Term, needed: set[str]) -> _Term:
    over = tuple(i for i, c in enumerate(term.labels) if c not in needed)
    if not over:
        return term
    return _Term(ctx.emit(Reduce("sum", over, False), term.value), "".join(c for c in term.labels if c in needed))


def _permuted(ctx: ImportContext, term: _Term, labels: str) -> _Term:
    if term.labels == labels:
        return term
    return _Term(ctx.emit(Transpose(tuple(term.labels.index(c) for c in labels)), term.value), labels)


def _contract(ctx: ImportContext, a: _Term, b: _Term, later: set[str]) -> _Term:
    """The product of two operands, summed over the labels that both have and nothing later needs."""
    shared = [c for c in a.labels if c in b.labels]
    batch = "".join(c for c in shared if c in later)
    k = "".join(c for c in shared if c not in later)
    m = "".join(c for c in a.labels if c not in shared)
    n = "".join(c for c in b.labels if c not in shared)
    extent = dict(zip(a.labels + b.labels, ctx.type(a.value).shape + ctx.type(b.value).shape, strict=True))
    if not k:
        left = _shaped(ctx, _permuted(ctx, a, batch + m).value, [*(extent[c] for c in batch + m), *[1] * len(n)])
        wide = [*(extent[c] for c in batch), *[1] * len(m), *(extent[c] for c in n)]
        right = _shaped(ctx, _permuted(ctx, b, batch + n).value, wide)
        return _Term(emit_map(ctx, "mul(a0,a1)", left, right), batch + m + n)
    lead = tuple(extent[c] for c in batch)

    def matrix(term: _Term, rows: str, columns: str) -> tuple[str, bool]:
        """[batch, rows, columns], or [batch, columns, rows] and True where the operand is stored so."""
        transposed = term.labels == batch + columns + rows and rows != columns
        first, second = (columns, rows) if transposed else (rows, columns)
        value = _permuted(ctx, term, batch + first + second).value
        return _shaped(ctx, value, [*lead, prod(extent[c] for c in first), prod(extent[c] for c in second)]), transposed

    left, trans_a = matrix(a, m, k)
    right, trans_b = matrix(b, k, n)
    product = ctx.emit(MatMul(trans_a, trans_b), left, right)
    return _Term(_shaped(ctx, product, [extent[c] for c in batch + m + n]), batch + m + n)


def _shaped(ctx: ImportContext, value: str, shape: list[int]) -> str:
    return value if ctx.type(value).shape == tuple(shape) else ctx.emit(Reshape(tuple(shape)), value)
