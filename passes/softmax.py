"""Recognition of softmax and its logarithm from exponentials, sums and quotients."""

from __future__ import annotations

from dataclasses import dataclass

from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.ops.map import Map
from sparsec.compiler.ops.reduce import Reduce
from sparsec.compiler.ops.softmax import Softmax
from sparsec.compiler.passing.base import Notes, Pass, Rejected, register_pass
from sparsec.compiler.passing.rules import Rule, apply_rules, merged_origin
from sparsec.passes.common.expr import Call, Leaf
from sparsec.passes.common.simplify import Simplifier


@dataclass(frozen=True)
class _Match:
    root: Node
    x: str
    axis: int
    log: bool
    nodes: tuple[Node, ...]


class _Recognise(Rule[_Match]):
    ops = (Reduce,)

    def match(self, editor: GraphEditor, node: Node) -> _Match | Rejected | None:
        assert isinstance(node.op, Reduce)
        if node.op.kind != "sum" or not node.op.keepdims or len(node.op.over) != 1:  # 1
            return None
        exp = editor.producer(node.inputs[0])
        if exp is None or not isinstance(exp.op, Map):
            return None
        s = Simplifier()
        call = s.is_call(s.add_program(exp.op.program, [s.leaf(v, editor.types[v].dtype) for v in exp.inputs]), "exp")
        if call is None:  # 2
            return None
        found = self._source(editor, s, call.args[0], node.op.over[0])
        if found is None:
            found = self._leaf(s, call.args[0])
        if found is None:
            return Rejected("the sum is of exponentials, but not of a value minus its maximum")
        x, peak = found
        for user in editor.users(node.output):
            log = self._normalises(editor, node, exp, user, x, peak)
            if log is not None:
                top = (editor.producer(peak),) if peak else ()
                return _Match(user, x, node.op.over[0], log, (*(t for t in top if t), exp, node))
        return None

    def _leaf(self, s: Simplifier, e: int) -> tuple[str, str] | None:
        node = s[e]
        return (node.value, "") if isinstance(node, Leaf) else None

    def _source(self, editor: GraphEditor, s: Simplifier, e: int, axis: int) -> tuple[str, str] | None:
        """(x, its maximum), where the exponent is x - max(x), in one Map with the exponential or in its own."""
        node = s[e]
        if isinstance(node, Leaf) and (made := editor.producer(node.value)) is not None and isinstance(made.op, Map):
            inner = s.add_program(made.op.program, [s.leaf(v, editor.types[v].dtype) for v in made.inputs])
            return self._source(editor, s, inner, axis) if isinstance(s[inner], Call) else None
        if not isinstance(node, Call) or node.fn != "sub":
            return None
        x, peak = s[node.args[0]], s[node.args[1]]
        if not isinstance(x, Leaf) or not isinstance(peak, Leaf):
            return None
        top = editor.producer(peak.value)
        wanted = Reduce("max", (axis,), True)
        return (x.value, peak.value) if top is not None and top.op == wanted and top.inputs[0] == x.value else None  # 3

    def _normalises(self, editor: GraphEditor, total: Node, exp: Node, user: Node, x: str, peak: str) -> bool | None:
        """False when `user` is the quotient, True when it is the logarithm of it, None when it is neither."""
        if not isinstance(user.op, Map) or editor.types[user.output] != editor.types[x]:
            return None
        s = Simplifier()
        stop = {x, peak, total.output, exp.output}
        root = s.of_value(editor, user.output, depth=3, shared=True, stop=stop)
        t = editor.types[x].dtype
        e, z = s.leaf(exp.output, t), s.leaf(total.output, t)
        if s.factors(root) == (1.0, sorted([e, s.call("reciprocal", z)])):  # 4
            return False
        wanted = [(1.0, s.leaf(x, t)), (-1.0, s.call("log", z)), *([(-1.0, s.leaf(peak, t))] if peak else [])]
        constant, terms = s.terms(root)
        return True if constant == 0 and sorted(terms) == sorted(wanted) else None  # 5

    def apply(self, editor: GraphEditor, node: Node, match: _Match) -> None:
        origin = merged_origin(*match.nodes)
        editor.replace(match.root, Softmax(match.axis, match.log), [match.x], origin=origin)


@register_pass
@dataclass(frozen=True)
class RecogniseSoftmax(Pass):
    """Recognise exp(x - max x) / sum exp(x - max x), with or without the maximum, and its logarithm.

    1. A sum over one dimension, which stays with extent 1,
    2. of exponentials
    3. of x, or of x minus its maximum over that dimension,
    4. divides these exponentials,
    5. or its logarithm is subtracted from what they are the exponentials of.
    """

    name = "softmax"
    summary = "recognise softmax and log-softmax"

    def rewrite(self, graph: Graph, notes: Notes) -> Graph:
        return apply_rules(graph, [_Recognise()], notes)
