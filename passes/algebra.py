"""Algebraic simplification of scalar programs, in Maps and in epilogues."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sparsec.compiler.dtypes import DType
from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.ops.map import Map
from sparsec.compiler.passing.base import Notes, Pass, register_pass
from sparsec.compiler.passing.rules import Rule, apply_rules
from sparsec.compiler.scalar import Arg, Imm, Program, Step, Tmp
from sparsec.passes.common.expr import Call, Num
from sparsec.passes.common.simplify import Simplifier
from sparsec.passes.fuse_epilogue import has_epilogue, sums_integers

_ACC = "\0accumulator"


@dataclass(frozen=True)
class _Match:
    program: Program
    inputs: list[str]


def _operand(s: Simplifier, editor: GraphEditor, value: str, *, inline: bool) -> int:
    array = editor.constant_of(value)
    if inline and array is not None and array.size == 1 and array.dtype.kind in "fi":
        return s.num(array.reshape(-1)[0].item())
    return s.leaf(value, editor.types[value].dtype)


def _untyped(s: Simplifier) -> bool:
    """Whether numbers stand where they have no operand beside them to take their type from."""
    for node in s.nodes:
        if isinstance(node, Call):
            typed = node.args[1:] if node.fn == "where" else node.args
            if all(isinstance(s[a], Num) for a in typed):
                return True
    return False


def _quantises_input(editor: GraphEditor, node: Node) -> bool:
    """Whether a Map rounds quotients of inputs of the model and constants."""
    assert isinstance(node.op, Map)
    steps = node.op.program.steps
    rounded = [steps[a.index].fn for s in steps if s.fn == "round" for a in s.args if isinstance(a, Tmp)]
    return "div" in rounded and all(editor.producer(v) is None for v in node.inputs)


class _SimplifyMap(Rule[_Match]):
    ops = (Map,)

    def match(self, editor: GraphEditor, node: Node) -> _Match | None:
        return self._try(editor, node, inline=True) or self._try(editor, node, inline=False)

    def _try(self, editor: GraphEditor, node: Node, *, inline: bool) -> _Match | None:
        assert isinstance(node.op, Map)
        s = Simplifier(divides=editor.types[node.output].elements == 1 or _quantises_input(editor, node))  # 4
        root = s.add_program(node.op.program, [_operand(s, editor, v, inline=inline) for v in node.inputs])
        if _untyped(s) or isinstance(s[root], Num):
            return None
        program, leaves = s.emit(root)
        program = program.canonical()
        if not leaves or (program == node.op.program.canonical() and tuple(leaves) == node.inputs):
            return None
        if Map(program).infer([editor.types[v] for v in leaves])[0] != editor.types[node.output].with_layout(
            editor.types[leaves[0]].layout
        ):
            return None  # an operand that is gone broadcast the result
        return _Match(program, leaves)

    def apply(self, editor: GraphEditor, node: Node, match: _Match) -> None:
        editor.replace(node, Map(match.program), match.inputs)


class _SimplifyEpilogue(Rule[_Match]):
    def match(self, editor: GraphEditor, node: Node) -> _Match | None:
        if not has_epilogue(node.op):
            return None
        old: Program = getattr(node.op, "epilogue")  # noqa: B009
        s, result = Simplifier(), editor.types[node.output].dtype
        acc = DType.I32 if sums_integers(editor, node) else result
        extras = [_operand(s, editor, v, inline=True) for v in node.inputs[2:]]
        root = s.add_program(old, [s.leaf(_ACC, acc), *extras])
        if _untyped(s) or s.dtypes[root] is not result:
            return None
        program, leaves = s.emit(root, first=(_ACC,))
        program, inputs = program.canonical(), [*node.inputs[:2], *leaves[1:]]
        if (program, tuple(inputs)) == (old.canonical(), node.inputs):
            return None
        return _Match(program, inputs)

    def apply(self, editor: GraphEditor, node: Node, match: _Match) -> None:
        editor.replace(node, replace(node.op, epilogue=match.program), match.inputs)  # type: ignore[type-var]


class _DivideByConstant(Rule[int]):
    """x / c -> x * (1 / c) for an array c."""

    ops = (Map,)

    def match(self, editor: GraphEditor, node: Node) -> int | None:
        assert isinstance(node.op, Map)
        for i, step in enumerate(node.op.program.steps):
            divisor = step.args[1] if step.fn == "div" else None
            if isinstance(divisor, Arg) and not isinstance(step.args[0], Imm):
                array = editor.constant_of(node.inputs[divisor.index])
                if array is not None and array.dtype in (np.float32, np.float64):
                    with np.errstate(all="ignore"):
                        inverse = 1 / array
                    if np.all(np.isfinite(inverse) & (np.abs(inverse) >= np.finfo(array.dtype).tiny)):
                        return i
        return None

    def apply(self, editor: GraphEditor, node: Node, match: int) -> None:
        assert isinstance(node.op, Map)
        steps = list(node.op.program.steps)
        x, divisor = steps[match].args
        assert isinstance(divisor, Arg)
        name = node.inputs[divisor.index]
        inverse = editor.add_constant(1 / editor.constants[name], f"{name}.inverse")
        steps[match] = Step("mul", (x, Arg(len(node.inputs))))
        editor.replace(node, Map(Program(tuple(steps))), [*node.inputs, inverse])


@register_pass
@dataclass(frozen=True)
class Algebra(Pass):
    """Simplify the scalar programs of Maps and epilogues.

    Constants of one element become numbers in the program. x + 0, x * 1, x / 1, x - 0, powers, double negation, nested clips
    and casts that lose nothing simplify; x / c becomes x * (1 / c), x - c becomes x + (-c); equal steps are computed once.

    1. The result keeps its type: an operand that only broadcasts the result stays.
    2. Numbers keep an operand beside them that gives them their type.
    3. Sums are not regrouped, so that no cancellation is lost; 1 / c is finite and normal.
    4. Single numbers, and inputs of the model that are quantised, are divided: that costs next to nothing, and computed scales
       and quantised inputs come out as onnxruntime's to the last bit.
    """

    name = "algebra"
    summary = "simplify scalar programs: neutral elements, powers, divisions, casts, clips"

    def rewrite(self, graph: Graph, notes: Notes) -> Graph:
        return apply_rules(graph, [_DivideByConstant(), _SimplifyMap(), _SimplifyEpilogue()], notes)
