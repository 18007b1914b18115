"""Requantisation: scalings of integer sums meet in one factor for each output channel."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.ops.base import Array
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.integer import DATA
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.passing.base import Notes, Pass, register_pass
from sparsec.compiler.passing.rules import Rule, apply_rules
from sparsec.compiler.scalar import Arg, Imm, Operand, Program, Step, Tmp

_CLAMPS = ("max", "min", "relu")


@dataclass(frozen=True)
class _Match:
    program: Program
    inputs: list[str | Array]


class _Scaling:
    """Multiplies one step of a program by a positive factor, inside the steps that it is made of."""

    def __init__(self, editor: GraphEditor, program: Program, inputs: list[str]) -> None:
        self.editor, self.steps = editor, list(program.steps)
        self.inputs: list[str | Array] = list(inputs)
        self.moved: dict[int, int] = {}

    def factor(self, a: Operand, c: float) -> Operand | None:
        """The operand times c, None when it is not one that can take the factor in."""
        if isinstance(a, Imm):
            return Imm(float(np.float32(a.value * c)))
        if isinstance(a, Arg):
            return self._constant(a.index, c)
        readers = sum(b == a for s in self.steps for b in s.args)
        return a if readers == 1 and self._step(a.index, c) else None

    def _constant(self, i: int, c: float) -> Operand | None:
        value = self.inputs[i - 1] if i else None
        array = self.editor.constant_of(value) if isinstance(value, str) else None
        if array is None or array.dtype != np.float32:
            return None
        if i not in self.moved:  # the value may have other readers
            self.inputs.append((array.astype(np.float64) * c).astype(np.float32))  # as dividing by the result's scale rounds
            self.moved[i] = len(self.inputs)
        return Arg(self.moved[i])

    def _step(self, i: int, c: float) -> bool:
        s = self.steps[i]
        if s.fn == "mul":
            tries = [1, 0]  # numbers and constants come last
        elif s.fn in (*_CLAMPS, "add", "sub", "neg"):
            tries = []
        else:
            return False
        args = list(s.args)
        for k in tries:
            new = self.factor(args[k], c) if not isinstance(args[k], Tmp) else None
            if new is not None:
                args[k] = new
                break
        else:
            if tries:
                return False
            for k, a in enumerate(args):
                new = self.factor(a, c)
                if new is None:
                    return False
                args[k] = new
        self.steps[i] = Step(s.fn, tuple(args), s.dtype)
        return True


class _Meet(Rule[_Match]):
    """epilogue(..., f(x * s) * c, ...) -> f(x * (s c)) for f that scale with their operands."""

    ops = (Conv, MatMul)

    def match(self, editor: GraphEditor, node: Node) -> _Match | None:
        op = node.op
        assert isinstance(op, Conv | MatMul)
        if editor.types[node.inputs[0]].dtype not in DATA:  # 1
            return None
        for i, s in enumerate(op.epilogue.steps):
            a, c = s.args[0], s.args[-1]
            if s.fn != "mul" or not isinstance(c, Imm) or not c.value > 0 or not isinstance(a, Tmp):  # 2
                continue
            scaling = _Scaling(editor, op.epilogue, list(node.inputs[2:]))
            if scaling.factor(a, c.value) is not None:  # 3
                scaling.steps[i] = Step("identity", (a,))
                return _Match(_without_identities(scaling.steps), scaling.inputs)
        return None

    def apply(self, editor: GraphEditor, node: Node, match: _Match) -> None:
        used = sorted({a.index for s in match.program.steps for a in s.args if isinstance(a, Arg) and a.index})
        extras = [
            v if isinstance(v, str) else editor.add_constant(v, f"{node.name}.scale") for v in (match.inputs[i - 1] for i in used)
        ]
        program = match.program.substitute({i: Arg(1 + n) for n, i in enumerate(used)})
        op = replace(node.op, epilogue=program)  # type: ignore[type-var]
        editor.replace(node, op, [*node.inputs[:2], *extras])


def _without_identities(steps: list[Step]) -> Program:
    now: list[Operand] = []
    kept: list[Step] = []
    for s in steps:
        args = tuple(now[a.index] if isinstance(a, Tmp) else a for a in s.args)
        if s.fn == "identity":
            now.append(args[0])
            continue
        kept.append(Step(s.fn, args, s.dtype))
        now.append(Tmp(len(kept) - 1))
    return Program(tuple(kept))


@register_pass
@dataclass(frozen=True)
class Requantise(Pass):
    """Move factors in the epilogues of integer products into the scale of the sums.

    1. The sums are of 8-bit data.
    2. A step multiplies by a positive number.
    3. What it multiplies is made of constants of float32 and of products with such, through sums, differences, and limits,
       each read by that step alone. The factors are multiplied here, which rounds once where two steps would round twice.
    """

    name = "requantise"
    summary = "one factor for each output channel where integer sums are scaled several times"

    def rewrite(self, graph: Graph, notes: Notes) -> Graph:
        return apply_rules(graph, [_Meet()], notes)
