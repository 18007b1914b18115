"""Fusion of chains and trees of Maps."""

from __future__ import annotations

from dataclasses import dataclass

from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.ops.map import Map
from sparsec.compiler.passing.base import Notes, Pass, Rejected, register_pass
from sparsec.compiler.passing.rules import Rule, apply_rules
from sparsec.compiler.scalar import Arg, Operand, Program


@dataclass(frozen=True)
class _Match:
    producer: Node
    program: Program
    inputs: list[str]


class _Fuse(Rule[_Match]):
    """f(g(a), b) -> one Map over a and b."""

    ops = (Map,)

    def __init__(self, max_args: int, max_steps: int) -> None:
        self.max_args, self.max_steps = max_args, max_steps

    def match(self, editor: GraphEditor, node: Node) -> _Match | Rejected | None:
        why: Rejected | None = None
        for v in dict.fromkeys(node.inputs):
            producer = editor.producer(v)
            if producer is not None and isinstance(producer.op, Map):  # 1
                found = self._try(editor, node, producer)
                if isinstance(found, _Match):
                    return found
                why = found
        return why

    def _try(self, editor: GraphEditor, node: Node, producer: Node) -> _Match | Rejected:
        assert isinstance(node.op, Map) and isinstance(producer.op, Map)
        inner, out = editor.types[producer.output], editor.types[node.output]
        if editor.only_user(producer.output) is None:  # 2
            return Rejected(f"the result of {producer.name!r} is used elsewhere, too")
        if inner.elements != out.elements:  # 3
            return Rejected(f"it broadcasts the result of {producer.name!r}, which would be computed again for every element")
        inputs = list(dict.fromkeys([*producer.inputs, *(v for v in node.inputs if v != producer.output)]))
        first: list[Operand] = [Arg(inputs.index(v)) for v in producer.inputs]
        program = (
            Program().compose(producer.op.program, first) if producer.op.program.steps else Program().then("identity", first[0])
        )
        here = program.result
        binding = [here if v == producer.output else Arg(inputs.index(v)) for v in node.inputs]
        program = program.compose(node.op.program, binding).canonical()
        if len(inputs) > self.max_args:  # 4
            return Rejected(f"with {producer.name!r} it would read {len(inputs)} operands; max_args is {self.max_args}")
        if len(program.steps) > self.max_steps:  # 5
            return Rejected(f"with {producer.name!r} it would take {len(program.steps)} steps; max_steps is {self.max_steps}")
        shape = Map(program).infer([editor.types[v] for v in inputs])[0].shape
        if shape != out.shape:  # 6
            return Rejected(f"with {producer.name!r} its shape would be {list(shape)}")
        return _Match(producer, program, inputs)

    def apply(self, editor: GraphEditor, node: Node, match: _Match) -> None:
        editor.replace(node, Map(match.program), match.inputs, origin=match.producer.origin)


@register_pass
@dataclass(frozen=True)
class FuseMap(Pass):
    """Fuse Maps into the Map that reads them, so that intermediate values stay in registers.

    1. An operand of the Map is computed by a Map,
    2. which nothing else reads: no work is done twice.
    3. It has as many elements as the result: a broadcast operand would be computed again for every element.
    4. The fused Map reads at most `max_args` operands,
    5. takes at most `max_steps` steps,
    6. and has the same shape.
    """

    name = "fuse_map"
    summary = "fuse chains and trees of elementwise operators"
    max_args: int = 8
    max_steps: int = 32

    def rewrite(self, graph: Graph, notes: Notes) -> Graph:
        return apply_rules(graph, [_Fuse(self.max_args, self.max_steps)], notes)
