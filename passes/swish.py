"""Recognition of sigmoid, SiLU, hard sigmoid and hard swish from what exporters write for them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.ops.map import Map
from sparsec.compiler.passing.base import Notes, Pass, register_pass
from sparsec.compiler.passing.rules import Rule, apply_rules
from sparsec.passes.common.expr import Call, Replacement, replacement
from sparsec.passes.common.simplify import Simplifier
from sparsec.passes.gelu import close, without


def find_swish(s: Simplifier, root: int) -> int | None:
    """`root` with its activations made explicit; None when there is none."""
    found = _find_one(s, root)
    return None if found is None else find_swish(s, found) or found


def _find_one(s: Simplifier, root: int) -> int | None:
    c, factors = s.factors(root)
    for f in factors:
        rest = without(factors, [f])
        assert rest is not None
        for find in (_sigmoid, _silu, _hard):
            found = find(s, f, rest, c)
            if found is not None:
                return found
    return None


def _sigmoid(s: Simplifier, f: int, rest: list[int], c: float) -> int | None:
    """1 / (1 + exp(-x)) -> sigmoid(x)."""
    call = s.is_call(f, "reciprocal")
    if call is None:
        return None
    constant, terms = s.terms(call.args[0])
    exp = s.is_call(terms[0][1], "exp") if len(terms) == 1 and terms[0][0] == 1 else None
    if exp is None or constant != 1:
        return None
    k, x = s.factors(exp.args[0])
    return s.product(c, [s.call("sigmoid", s.product(-k, x)), *rest]) if x else None


def _silu(s: Simplifier, f: int, rest: list[int], c: float) -> int | None:
    """x sigmoid(x) -> silu(x)."""
    call = s.is_call(f, "sigmoid")
    if call is None:
        return None
    k, x = s.factors(call.args[0])
    others = without(rest, x)
    if others is None or not x or k != 1:
        return None
    return s.product(c, [s.call("silu", call.args[0]), *others])


def _hard(s: Simplifier, f: int, rest: list[int], c: float) -> int | None:
    """clip(x + 3, 0, 6) / 6 -> hard_sigmoid(x, 1/6, 1/2); with a factor x -> hard_swish(x)."""
    found = _unit_ramp(s, f)
    if found is None:
        return None
    x, weight = found
    others = without(rest, [x])
    if others is not None and close(c * weight, 1):
        return s.product(1.0, [s.call("hard_swish", x), *others])
    if not rest and close(c * weight, 1) and not s.is_call(f, "hard_sigmoid"):
        return s.call("hard_sigmoid", x, s.num(1 / 6), s.num(0.5))
    return None


def _unit_ramp(s: Simplifier, f: int) -> tuple[int, float] | None:
    """(x, w) where f = w * clip(x / 6 + 1/2, 0, 1)."""
    node = s[f]
    if isinstance(node, Call) and node.fn == "hard_sigmoid":
        alpha, beta = s.number(node.args[1]), s.number(node.args[2])
        return (node.args[0], 1.0) if alpha is not None and close(alpha, 1 / 6) and beta == 0.5 else None
    low, high, inner = _clip(s, f)
    if low != 0 or high <= 0 or math.isinf(high):
        return None
    constant, terms = s.terms(inner)
    if not terms or not close(constant, high / 2):
        return None
    if close(high, 6):
        return s.total(terms), high
    k, x = s.factors(terms[0][1])
    return (x[0], high) if len(terms) == len(x) == 1 and close(k * terms[0][0], high / 6) else None


def _clip(s: Simplifier, e: int) -> tuple[float, float, int]:
    """e = min(max(inner, low), high); infinite where there is no bound."""
    low, high = -math.inf, math.inf
    upper = s.is_call(e, "min")
    if upper is not None and (bound := s.number(upper.args[1])) is not None:
        high, e = bound, upper.args[0]
    if (relu := s.is_call(e, "relu")) is not None:
        return 0.0, high, relu.args[0]
    lower = s.is_call(e, "max")
    if lower is not None and (bound := s.number(lower.args[1])) is not None:
        low, e = bound, lower.args[0]
    return low, high, e


class _Swish(Rule[Replacement]):
    ops = (Map,)

    def match(self, editor: GraphEditor, node: Node) -> Replacement | None:
        if not editor.types[node.output].dtype.is_float:
            return None
        s = Simplifier()
        root = s.of_value(editor, node.output)
        if not any(isinstance(n, Call) and n.fn in ("exp", "sigmoid", "min", "hard_sigmoid") for n in s.nodes):
            return None
        found = find_swish(s, root)
        return replacement(editor, node, s, found) if found is not None and found != root else None

    def apply(self, editor: GraphEditor, node: Node, match: Replacement) -> None:
        match.apply(editor, node)


@register_pass
@dataclass(frozen=True)
class Swish(Pass):
    """Recognise activations in products.

    1. A factor 1 / (1 + exp(-x)) becomes sigmoid(x).
    2. Factors x and sigmoid(x) become silu(x).
    3. clip(x + 3, 0, 6) / 6, or clip(x / 6 + 1/2, 0, 1), becomes hard_sigmoid(x), and with a factor x hard_swish(x).
    """

    name = "swish"
    summary = "recognise sigmoid, SiLU, hard sigmoid and hard swish"

    def rewrite(self, graph: Graph, notes: Notes) -> Graph:
        return apply_rules(graph, [_Swish()], notes)
