"""Fusion of elementwise work into the epilogue of the operator that computes its operand."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from sparsec.compiler.dtypes import DType
from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.ops.base import Op
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.integer import DATA
from sparsec.compiler.ops.map import Map
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.passing.base import Notes, Pass, Rejected, register_pass
from sparsec.compiler.passing.rules import Rule, apply_rules
from sparsec.compiler.scalar import Arg, Operand, Program, Tmp

_COMPUTED = 2  # operands that computed zero points and scales need
_AROUND_INTEGERS = {DType.F32, DType.I32, DType.U8, DType.I8}


def has_epilogue(op: Op) -> bool:
    """Whether the operator ends with a scalar program over its accumulator (argument 0) and extra operands."""
    return any(f.name == "epilogue" for f in fields(op))  # type: ignore[arg-type]


def sums_integers(editor: GraphEditor, node: Node) -> bool:
    """Whether an operator with an epilogue sums products of 8-bit integers."""
    return isinstance(node.op, Conv | MatMul) and editor.types[node.inputs[0]].dtype in DATA


@dataclass(frozen=True)
class _Match:
    producer: Node
    epilogue: Program
    extras: list[str]


class _Fuse(Rule[_Match]):
    """y = f(producer(...), others) -> producer with f in its epilogue."""

    ops = (Map,)

    def __init__(self, graph: Graph, max_extras: int, max_steps: int) -> None:
        self.order = {n.name: i for i, n in enumerate(graph.nodes)}
        self.max_extras, self.max_steps = max_extras, max_steps

    def match(self, editor: GraphEditor, node: Node) -> _Match | Rejected | None:
        candidates = [p for v in dict.fromkeys(node.inputs) if (p := editor.producer(v)) is not None and has_epilogue(p.op)]
        if not candidates:  # 1
            return None
        # the latest, because the others are computed by then; but none that has rounded where another has not
        candidates.sort(key=lambda p: (self._rounds(p), -self.order.get(p.name, 0)))
        tried = [self._try(editor, node, p) for p in candidates]
        return next((t for t in tried if isinstance(t, _Match)), tried[0])

    def _try(self, editor: GraphEditor, node: Node, producer: Node) -> _Match | Rejected:
        assert isinstance(node.op, Map)
        acc, out = editor.types[producer.output], editor.types[node.output]
        if editor.only_user(producer.output) is None:  # 2
            return Rejected(f"the result of {producer.name!r} is used elsewhere, too")
        if out.shape != acc.shape:  # 3
            return Rejected(f"it broadcasts the result of {producer.name!r} to {list(out.shape)}")
        types = {editor.types[v].dtype for v in (*node.inputs, node.output)}
        if types != {acc.dtype} and not (sums_integers(editor, producer) and types <= _AROUND_INTEGERS):  # 4
            return Rejected(f"its operands or result are not of the type {acc.dtype.value} of {producer.name!r}")
        n_main = len(producer.inputs) - self._n_extras(producer)
        extras = list(producer.inputs[n_main:])
        binding: list[Operand] = []
        for v in node.inputs:
            if v == producer.output:
                binding.append(Tmp(-1))
                continue
            if v not in extras:
                extras.append(v)
            binding.append(Arg(1 + extras.index(v)))
        epilogue = self._epilogue(producer).compose(node.op.program, binding).canonical()
        most = self.max_extras + (_COMPUTED if sums_integers(editor, producer) else 0)
        if len(extras) > most:  # 5
            return Rejected(f"the epilogue of {producer.name!r} would read {len(extras)} operands; max_extras is {most}")
        if len(epilogue.steps) > self.max_steps:  # 6
            return Rejected(
                f"the epilogue of {producer.name!r} would take {len(epilogue.steps)} steps; max_steps is {self.max_steps}"
            )
        return _Match(producer, epilogue, [*producer.inputs[:n_main], *extras])

    def _rounds(self, node: Node) -> bool:
        return any(step.fn == "round" for step in self._epilogue(node).steps)

    def _epilogue(self, node: Node) -> Program:
        program = getattr(node.op, "epilogue")  # noqa: B009 (only some operators have it)
        assert isinstance(program, Program)
        return program

    def _n_extras(self, node: Node) -> int:
        """Operators with an epilogue have two operands of their own; the rest is the epilogue's."""
        return len(node.inputs) - 2

    def apply(self, editor: GraphEditor, node: Node, match: _Match) -> None:
        editor.remove(node)
        op = replace(match.producer.op, epilogue=match.epilogue)  # type: ignore[type-var]
        editor.replace(match.producer, op, match.extras, outputs=node.outputs, origin=node.origin)


class _Scales(Rule[tuple[Program, list[str]]]):
    """product(..., f(numbers, constants)) -> product with f in its epilogue: scales that are only known when the model runs."""

    ops = (Conv, MatMul)

    def __init__(self, max_extras: int, max_steps: int) -> None:
        self.max_extras, self.max_steps = max_extras, max_steps

    def match(self, editor: GraphEditor, node: Node) -> tuple[Program, list[str]] | Rejected | None:
        assert isinstance(node.op, Conv | MatMul)
        if not sums_integers(editor, node):
            return None
        out = editor.types[node.output]
        for v in dict.fromkeys(node.inputs[2:]):
            below = editor.producer(v)
            if below is None or not isinstance(below.op, Map) or editor.types[v].shape == out.shape:
                continue
            if editor.types[v].elements == 1:
                continue
            if any(u not in editor.constants and editor.types[u].elements != 1 for u in below.inputs):  # 7
                continue
            extras = list(dict.fromkeys([*(u for u in node.inputs[2:] if u != v), *below.inputs]))
            program = Program().compose(below.op.program, [Arg(1 + extras.index(u)) for u in below.inputs])
            here = program.result
            binding = [Arg(0), *(here if u == v else Arg(1 + extras.index(u)) for u in node.inputs[2:])]
            program = program.compose(node.op.epilogue, binding).canonical()
            if len(extras) > self.max_extras + _COMPUTED or len(program.steps) > self.max_steps:
                return Rejected(
                    f"with {below.name!r} its epilogue would read {len(extras)} operands in {len(program.steps)} steps"
                )
            return program, extras
        return None

    def apply(self, editor: GraphEditor, node: Node, match: tuple[Program, list[str]]) -> None:
        op = replace(node.op, epilogue=match[0])  # type: ignore[type-var]
        editor.replace(node, op, [*node.inputs[:2], *match[1]])


@register_pass
@dataclass(frozen=True)
class FuseEpilogue(Pass):
    """Move Maps into the epilogue of the operator that computes one of their operands: bias, residual, activation, scaling.

    1. An operand is computed by an operator with an epilogue. Of several, one that does not round its result takes the Map, so
       that what others round stays bytes on its way there; of these the latest, because the others are ready by then.
    2. The Map is the only reader of that result. So no other operand can depend on it, and fusing makes no cycle.
    3. The result has the accumulator's shape: the other operands broadcast to it, never beyond it.
    4. All operands and the result have the accumulator's element type; around sums of 8-bit integers they may also be
       float32 and integers of 8 and 32 bits.
    5. The epilogue reads at most `max_extras` operands besides the accumulator, around sums of 8-bit integers two more, for a
       zero point and a scale that are computed,
    6. and takes at most `max_steps` steps.
    7. Around sums of 8-bit integers, what Maps make of constants and single numbers that are computed (the scales of dynamic
       quantisation) is computed again in the epilogue: kernels read constants and single numbers, but no other vectors.
    """

    name = "fuse_epilogue"
    summary = "fuse elementwise work into the convolution or matrix product before it"
    max_extras: int = 4
    max_steps: int = 24

    def rewrite(self, graph: Graph, notes: Notes) -> Graph:
        limits = self.max_extras, self.max_steps
        return apply_rules(graph, [_Fuse(graph, *limits), _Scales(*limits)], notes)
