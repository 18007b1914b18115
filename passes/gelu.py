"""Recognition of the Gaussian error linear unit from what exporters write for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.ops.map import Map
from sparsec.compiler.passing.base import Notes, Pass, register_pass
from sparsec.compiler.passing.rules import Rule, apply_rules
from sparsec.passes.common.expr import Replacement, replacement
from sparsec.passes.common.simplify import Simplifier

_CUBIC = 0.044715  # Hendrycks & Gimpel, Gaussian Error Linear Units (2016)
_SLOPE = math.sqrt(2 / math.pi)
_DEGREE = 4


def close(a: float, b: float) -> bool:
    """Equal constants, as far as float32 exporters write them."""
    return abs(a - b) <= 2e-5 * max(abs(a), abs(b))


def without(items: Sequence[int], remove: Sequence[int]) -> list[int] | None:
    """`items` less those of `remove` (as multisets), or None when one is missing."""
    rest = list(items)
    for r in remove:
        if r not in rest:
            return None
        rest.remove(r)
    return rest


def find_gelu(s: Simplifier, root: int) -> int | None:
    """`root` as rest * gelu(x), or as rest * the tanh approximation in its sigmoid form; None when it is neither."""
    c, factors = s.factors(root)
    for f in factors:
        shape = _one_plus(s, f)
        if shape is None:
            continue
        fn, argument, weight = shape
        rest = without(factors, [f])
        assert rest is not None
        found = _erf(s, argument, rest, c * weight) if fn == "erf" else _tanh(s, argument, rest, c * weight)
        if found is not None:
            return found
    return None


def _one_plus(s: Simplifier, f: int) -> tuple[str, int, float] | None:
    """f = weight * (1 + fn(argument)) with fn erf or tanh."""
    constant, terms = s.terms(f)
    if len(terms) != 1 or constant == 0:
        return None
    c, inner = s.factors(terms[0][1])
    call = next((k for fn in ("erf", "tanh") if len(inner) == 1 and (k := s.is_call(inner[0], fn)) is not None), None)
    if call is None or not close(terms[0][0] * c, constant):
        return None
    return call.fn, call.args[0], constant


def _erf(s: Simplifier, argument: int, rest: Sequence[int], c: float) -> int | None:
    scale, x = s.factors(argument)
    others = without(rest, x)
    k = scale * math.sqrt(2)  # the argument of gelu is k * x
    if others is None or not x or k == 0 or not close(c, 0.5 * k):
        return None
    return s.product(1.0, [s.call("gelu", s.product(1.0 if close(k, 1) else k, x)), *others])


def _tanh(s: Simplifier, argument: int, rest: Sequence[int], c: float) -> int | None:
    for x in dict.fromkeys(rest):
        powers = _polynomial(s, argument, x, 8)
        if powers is None or not close(c, 0.5) or set(powers) != {1, 3}:
            continue
        if close(powers[1], _SLOPE) and close(powers[3], _SLOPE * _CUBIC):
            others = without(rest, [x])
            assert others is not None
            inner = s.call("add", s.call("mul", s.call("mul", x, x), s.num(2 * _SLOPE * _CUBIC)), s.num(2 * _SLOPE))
            return s.product(1.0, [s.call("mul", x, s.call("sigmoid", s.call("mul", inner, x))), *others])
    return None


def _polynomial(s: Simplifier, e: int, x: int, depth: int) -> dict[int, float] | None:
    """`e` as a polynomial of `x`: power -> coefficient."""
    number = s.number(e)
    if e == x or number is not None:
        return {1: 1.0} if number is None else {0: number}
    if depth == 0:
        return None
    c, factors = s.factors(e)
    if factors != [e]:
        total: dict[int, float] = {0: c}
        for f in factors:
            part = _polynomial(s, f, x, depth - 1)
            if part is None or max(total) + max(part) > _DEGREE:
                return None
            product: dict[int, float] = {}
            for p, a in total.items():
                for q, b in part.items():
                    product[p + q] = product.get(p + q, 0.0) + a * b
            total = product
        return total
    constant, terms = s.terms(e)
    if len(terms) == 1 and terms[0][1] == e:
        return None
    found = {0: constant} if constant else {}
    for sign, t in terms:
        part = _polynomial(s, t, x, depth - 1)
        if part is None:
            return None
        for p, a in part.items():
            found[p] = found.get(p, 0.0) + sign * a
    return found


class _Gelu(Rule[Replacement]):
    ops = (Map,)

    def match(self, editor: GraphEditor, node: Node) -> Replacement | None:
        if not editor.types[node.output].dtype.is_float:
            return None
        s = Simplifier()
        root = s.of_value(editor, node.output)
        if not any(s.is_call(e, "erf") or s.is_call(e, "tanh") for e in range(len(s.nodes))):
            return None
        found = find_gelu(s, root)
        return replacement(editor, node, s, found) if found is not None and found != root else None

    def apply(self, editor: GraphEditor, node: Node, match: Replacement) -> None:
        match.apply(editor, node)


@register_pass
@dataclass(frozen=True)
class Gelu(Pass):
    """Recognise gelu(x) = x (1 + erf(x / sqrt 2)) / 2 and its tanh approximation.

    Constants may stand anywhere in the products, as factors or divisors, and within the sum.

    1. A Map's value is a product with a factor w (1 + erf(a)) or w (1 + tanh(a)).
    2. Erf: a is x / sqrt 2, x is among the other factors, and the numbers multiply to 1/2; it becomes the function `gelu`.
    3. Tanh: a is sqrt(2 / pi) (x + 0.044715 x^3), expanded or not; (1 + tanh(a)) / 2 becomes sigmoid(2 a): one exponential.

    Constants are compared within 2e-5.
    """

    name = "gelu"
    summary = "recognise GELU from its erf and tanh forms"

    def rewrite(self, graph: Graph, notes: Notes) -> Graph:
        return apply_rules(graph, [_Gelu()], notes)
