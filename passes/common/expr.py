"""Scalar programs as interned expressions, so that algebra and patterns work whatever the steps' order and the nodes' borders.

Equal expressions have equal ids, so comparing is free and shared subexpressions cost nothing. An expression may span several
Map nodes: `of_value` inlines the programs that produce a value.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sparsec.compiler.dtypes import DType
from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.graph import Node
from sparsec.compiler.ops.map import Map
from sparsec.compiler.scalar import FUNCTIONS, Arg, Imm, Operand, Program, Step, Tmp

_DEPTH = 12  # Map nodes that `of_value` looks through
_PARTS = 24  # factors or terms that are taken apart


@dataclass(frozen=True, slots=True)
class Leaf:
    """A value of the graph."""

    value: str


@dataclass(frozen=True, slots=True)
class Num:
    """A number, which takes its type from the operands beside it."""

    value: float


@dataclass(frozen=True, slots=True)
class Call:
    """A scalar function of expressions; `cast` names the type that it casts to."""

    fn: str
    args: tuple[int, ...]
    cast: DType | None = None


Expr = Leaf | Num | Call


class Exprs:
    """A table of expressions; ids are indices into it, operands come before what reads them."""

    def __init__(self) -> None:
        """Start empty."""
        self.nodes: list[Expr] = []
        self.dtypes: list[DType | None] = []  # None: a number
        self._ids: dict[object, int] = {}
        self._seen: dict[str, int] = {}

    def __getitem__(self, e: int) -> Expr:
        return self.nodes[e]

    def _intern(self, key: object, node: Expr, dtype: DType | None) -> int:
        found = self._ids.get(key)
        if found is None:
            found = self._ids[key] = len(self.nodes)
            self.nodes.append(node)
            self.dtypes.append(dtype)
        return found

    def leaf(self, value: str, dtype: DType) -> int:
        """The expression that is a value of the graph."""
        return self._intern(("leaf", value), Leaf(value), dtype)

    def num(self, value: float) -> int:
        """The expression that is a number; 0.0, -0.0 and 0 are three different ones."""
        return self._intern(("num", type(value), repr(value)), Num(value), None)

    def call(self, fn: str, *args: int, cast: DType | None = None) -> int:
        """A function of expressions."""
        return self._intern((fn, args, cast), Call(fn, args, cast), self._result(fn, args, cast))

    def _result(self, fn: str, args: tuple[int, ...], cast: DType | None) -> DType:
        rule = FUNCTIONS[fn].result
        if rule == "cast" and cast is not None:
            return cast
        if rule == "bool":
            return DType.BOOL
        known = [t for t in (self.dtypes[a] for a in args) if t is not None]
        if rule == "second":
            return known[1] if len(known) > 1 else DType.F32
        return known[0] if known else DType.F32

    # ---- from and to programs
    def add_program(self, program: Program, args: Sequence[int]) -> int:
        """The expression of a program whose argument i is the expression `args[i]`."""
        steps: list[int] = []

        def operand(a: Operand) -> int:
            if isinstance(a, Imm):
                return self.num(a.value)
            return args[a.index] if isinstance(a, Arg) else steps[a.index]

        for step in program.steps:
            steps.append(self.call(step.fn, *map(operand, step.args), cast=step.dtype))
        return steps[-1] if steps else args[0]

    def of_value(
        self,
        editor: GraphEditor,
        value: str,
        *,
        depth: int = _DEPTH,
        shared: bool = False,
        stop: Collection[str] = (),
    ) -> int:
        """The expression of a value, the Maps that produce it inlined; constants of one element are numbers.

        What several nodes read is a leaf (the value itself excepted), unless `shared`: formulas are told from their arguments
        by that. The values of `stop` are leaves, too.
        """
        if value in self._seen:
            return self._seen[value]
        array, node = editor.constant_of(value), editor.producer(value)
        if array is not None and array.size == 1 and array.dtype.kind in "fi":
            e = self.num(array.reshape(-1)[0].item())
        elif node is None or not isinstance(node.op, Map) or depth == 0 or value in stop:
            e = self.leaf(value, editor.types[value].dtype)
        else:
            args = []
            for v in node.inputs:
                inlined = shared or editor.only_user(v) is not None or editor.constant_of(v) is not None
                below = depth - 1 if inlined else 0
                args.append(self.of_value(editor, v, depth=below, shared=shared, stop=stop))
            e = self.add_program(node.op.program, args)
        self._seen[value] = e
        return e

    def emit(self, root: int, *, first: Sequence[str] = ()) -> tuple[Program, list[str]]:
        """The program of an expression and the values that are its arguments, those of `first` before all others."""
        leaves: dict[str, Operand] = {v: Arg(i) for i, v in enumerate(first)}
        done: dict[int, Operand] = {}
        steps: list[Step] = []
        stack = [root]
        while stack:
            e = stack[-1]
            node = self.nodes[e]
            if e in done:
                stack.pop()
            elif isinstance(node, Num):
                done[e] = Imm(node.value)
            elif isinstance(node, Leaf):
                done[e] = leaves.setdefault(node.value, Arg(len(leaves)))
            elif missing := [a for a in node.args if a not in done]:
                stack += reversed(missing)
            else:
                steps.append(Step(node.fn, tuple(done[a] for a in node.args), node.cast))
                done[e] = Tmp(len(steps) - 1)
        if steps and done[root] != Tmp(len(steps) - 1):
            raise AssertionError("the root of an expression is its last step")
        return Program(tuple(steps)), list(leaves)

    # ---- products and sums
    def factors(self, e: int) -> tuple[float, list[int]]:
        """`e` = coefficient * product of factors, none of which is a number or a product. Divisors appear as reciprocals."""
        coefficient, found, open_ = 1.0, list[int](), [e]
        while open_:
            part = open_.pop()
            node = self.nodes[part]
            if isinstance(node, Num):
                coefficient *= node.value
            elif len(found) + len(open_) > _PARTS or not isinstance(node, Call):
                found.append(part)
            elif node.fn == "mul":
                open_ += node.args
            elif node.fn == "neg":
                coefficient = -coefficient
                open_.append(node.args[0])
            elif node.fn == "div" and isinstance(divisor := self.nodes[node.args[1]], Num) and divisor.value != 0:
                coefficient /= divisor.value
                open_.append(node.args[0])
            elif node.fn == "div":
                open_.append(node.args[0])
                found.append(self.call("reciprocal", node.args[1]))
            else:
                found.append(part)
        return coefficient, sorted(found)

    def terms(self, e: int) -> tuple[float, list[tuple[float, int]]]:
        """`e` = constant + sum of coefficient * term, none of which is a number or a sum."""
        constant, found, open_ = 0.0, list[tuple[float, int]](), [(1.0, e)]
        while open_:
            sign, part = open_.pop()
            node = self.nodes[part]
            if isinstance(node, Num):
                constant += sign * node.value
            elif len(found) + len(open_) < _PARTS and isinstance(node, Call) and node.fn in ("add", "sub"):
                second = -sign if node.fn == "sub" else sign
                open_ += [(sign, node.args[0]), (second, node.args[1])]
            elif len(found) + len(open_) < _PARTS and isinstance(node, Call) and node.fn == "neg":
                open_.append((-sign, node.args[0]))
            else:
                found.append((sign, part))
        return constant, sorted(found, key=lambda t: t[1])

    def total(self, terms: Sequence[tuple[float, int]]) -> int:
        """Sum of terms with their signs; at least one term."""
        signed = [t if sign > 0 else self.call("neg", t) for sign, t in terms]
        e = signed[0]
        for t in signed[1:]:
            e = self.call("add", e, t)
        return e

    def product(self, coefficient: float, factors: Sequence[int]) -> int:
        """coefficient * product of factors; at least one factor."""
        e = factors[0]
        for f in factors[1:]:
            e = self.call("mul", e, f)
        return e if coefficient == 1 else self.call("mul", e, self.num(coefficient))

    def is_call(self, e: int, fn: str) -> Call | None:
        """The call, if `e` is one of `fn`."""
        node = self.nodes[e]
        return node if isinstance(node, Call) and node.fn == fn else None

    def number(self, e: int) -> float | None:
        """The number, if `e` is one."""
        node = self.nodes[e]
        return node.value if isinstance(node, Num) else None


@dataclass(frozen=True)
class Replacement:
    """A Map that can take a node's place; `origin` is that of the Maps that it makes superfluous."""

    op: Map
    inputs: list[str]
    origin: list[str]

    def apply(self, editor: GraphEditor, node: Node) -> None:
        """Put it there."""
        editor.replace(node, self.op, self.inputs, origin=self.origin)


def replacement(editor: GraphEditor, node: Node, exprs: Exprs, e: int) -> Replacement | None:
    """The Map that computes `e` from existing values in the place of `node`; None when that changes the type or nothing."""
    program, leaves = exprs.emit(e)
    op = Map(program.canonical())
    if not leaves or op.infer([editor.types[v] for v in leaves])[0] != editor.types[node.output]:
        return None
    if op == node.op and tuple(leaves) == node.inputs:
        return None
    inner = _inner_nodes(editor, node, set(leaves))
    return Replacement(op, leaves, [o for n in inner for o in n.origin])


def _inner_nodes(editor: GraphEditor, root: Node, leaves: set[str]) -> list[Node]:
    """The Maps between `root` and `leaves`."""
    found: dict[str, Node] = {}
    open_ = [(v, _DEPTH) for v in root.inputs]
    while open_:
        value, depth = open_.pop()
        node = editor.producer(value)
        if value not in leaves and node is not None and isinstance(node.op, Map) and node.name not in found and depth:
            found[node.name] = node
            open_ += [(v, depth - 1) for v in node.inputs]
    return list(found.values())
