"""Quantised values stay quantised: dequantising moves to where real numbers are needed."""

from __future__ import annotations

from dataclasses import dataclass

from sparsec.compiler.dtypes import DType
from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.ops.concat import Concat
from sparsec.compiler.ops.map import Map
from sparsec.compiler.ops.pool import Pool
from sparsec.compiler.ops.quantize import dequantise_program, quantise_program
from sparsec.compiler.ops.reshape import Reshape
from sparsec.compiler.ops.slice import Slice
from sparsec.compiler.ops.transpose import Transpose
from sparsec.compiler.passing.base import Notes, Pass, Rejected, register_pass
from sparsec.compiler.passing.rules import Rule, apply_rules
from sparsec.compiler.scalar import Arg, Operand, Program
from sparsec.passes.common.quantised import (
    Affine,
    as_dequantise,
    as_quantise,
    is_signed_view,
    to_signed,
    unsigned,
)

_MOVES = (Reshape, Transpose, Slice, Concat, Pool)
_MAX_ARGS, _MAX_STEPS = 8, 32


class _Unsigned(Rule[Affine]):
    """Quantise to int8 -> quantise to uint8, then a Map to int8 for readers that want that."""

    ops = (Map,)

    def match(self, editor: GraphEditor, node: Node) -> Affine | None:
        found = as_quantise(node)
        return found[0] if found is not None and found[1] is DType.I8 else None

    def apply(self, editor: GraphEditor, node: Node, match: Affine) -> None:
        op = Map(quantise_program(match.scale, unsigned(match.zero), DType.U8))
        inner = editor.add(op, node.inputs, hint=f"{node.output}.u8", origin=node.origin)
        editor.replace(node, Map(to_signed()), [inner.output])


class _Recentre(Rule[Affine]):
    """Dequantise (int8 of x) -> dequantise x with the zero point moved."""

    ops = (Map,)

    def match(self, editor: GraphEditor, node: Node) -> Affine | None:
        return as_dequantise(node) if is_signed_view(editor.producer(node.inputs[0])) else None

    def apply(self, editor: GraphEditor, node: Node, match: Affine) -> None:
        below = editor.producer(node.inputs[0])
        assert below is not None
        editor.replace(node, Map(dequantise_program(match.scale, unsigned(match.zero))), below.inputs, origin=below.origin)


class _Cancel(Rule[str]):
    """Quantise (dequantise x), both with the same parameters -> x."""

    ops = (Map,)

    def match(self, editor: GraphEditor, node: Node) -> str | None:
        found = as_quantise(node)
        if found is None:
            return None
        below = editor.producer(node.inputs[0])
        if below is None or as_dequantise(below) != found[0]:
            return None
        return below.inputs[0] if editor.types[below.inputs[0]].dtype is found[1] else None

    def apply(self, editor: GraphEditor, node: Node, match: str) -> None:
        editor.replace_uses(node.output, match)
        editor.remove(node)


class _Sink(Rule[tuple[Program, list[str]]]):
    """move(f(x)) -> f(move(x)), f dequantising or an int8 view."""

    ops = _MOVES

    def match(self, editor: GraphEditor, node: Node) -> tuple[Program, list[str]] | Rejected | None:
        if isinstance(node.op, Pool) and node.op.kind != "max":  # 1
            return None
        below = [editor.producer(v) for v in node.inputs]
        programs = {p.op.program for p in below if p is not None and isinstance(p.op, Map)}
        if len(programs) != 1 or any(p is None or not isinstance(p.op, Map) for p in below):
            return None
        if any(as_dequantise(p) is None and not is_signed_view(p) for p in below):
            return None
        inputs = [p.inputs[0] for p in below if p is not None]
        if any(v in editor.constants for v in inputs):  # 2
            return None
        if len({editor.types[v].dtype for v in inputs}) > 1:
            return None
        return programs.pop(), inputs

    def apply(self, editor: GraphEditor, node: Node, match: tuple[Program, list[str]]) -> None:
        program, inputs = match
        inner = editor.add(node.op, inputs, hint=f"{node.output}.q", origin=node.origin)
        origin = [o for v in node.inputs if (p := editor.producer(v)) is not None for o in p.origin]
        editor.replace(node, Map(program), [inner.output], origin=origin)


class _Inline(Rule[tuple[Program, list[str]]]):
    """f(dequantise x, ...) -> one Map over x."""

    ops = (Map,)

    def match(self, editor: GraphEditor, node: Node) -> tuple[Program, list[str]] | Rejected | None:
        assert isinstance(node.op, Map)
        for v in dict.fromkeys(node.inputs):
            below = editor.producer(v)
            if below is None or as_dequantise(below) is None or as_dequantise(node) is not None:
                continue
            assert isinstance(below.op, Map)
            x = below.inputs[0]
            if x in editor.constants:
                continue
            inputs = list(dict.fromkeys([x, *(u for u in node.inputs if u != v)]))
            program = Program().compose(below.op.program, [Arg(0)])
            here: Operand = program.result
            program = program.compose(node.op.program, [here if u == v else Arg(inputs.index(u)) for u in node.inputs])
            if len(inputs) > _MAX_ARGS or len(program.steps) > _MAX_STEPS:
                return Rejected(f"with {below.name!r} it would read {len(inputs)} operands in {len(program.steps)} steps")
            return program, inputs
        return None

    def apply(self, editor: GraphEditor, node: Node, match: tuple[Program, list[str]]) -> None:
        origin = [o for v in node.inputs if (p := editor.producer(v)) is not None and as_dequantise(p) for o in p.origin]
        editor.replace(node, Map(match[0]), match[1], origin=origin)


@register_pass
@dataclass(frozen=True)
class Dequantise(Pass):
    """Move dequantising to where real numbers are needed; what moves, selects and compares works on integers.

    1. Reshape, Transpose, Slice, Concat of parts with equal parameters, and maximum pools take quantised data: dequantising
       keeps the order of numbers.
    2. Constants stay: `integers` and constant folding know them.
    3. Quantising what was dequantised with the same parameters gives what was there before.
    4. int8 data become uint8 with a zero point that is 128 higher, which is what instructions multiply by int8 weights.
    5. Maps dequantise what they read themselves.
    """

    name = "dequantise"
    summary = "keep quantised values quantised between the operators that compute real numbers"

    def rewrite(self, graph: Graph, notes: Notes) -> Graph:
        graph = apply_rules(graph, [_Unsigned(), _Recentre(), _Sink(), _Cancel()], notes)
        return apply_rules(graph, [_Inline()], notes)
