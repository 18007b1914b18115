"""Products of bfloat16 store bfloat16, and what is done to their results beyond that becomes a node of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sparsec.compiler.dtypes import DType
from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.map import Map
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.passing.base import Notes, Pass, register_pass
from sparsec.compiler.scalar import Arg, Imm, Operand, Program, Step, Tmp
from sparsec.passes.common.chains import Chain, chain_of
from sparsec.passes.widen import cast


def _moved(
    steps: Sequence[Step], which: Sequence[int], begin: Sequence[Step], known: Mapping[Operand, Operand]
) -> tuple[Program, list[int]]:
    """Some steps behind `begin`, `known` operands as others; and which arguments they read, which follow the first, in order."""
    read = sorted({a.index for i in which for a in steps[i].args if isinstance(a, Arg) and a not in known})
    moved: dict[Operand, Operand] = dict(known) | {Arg(a): Arg(1 + n) for n, a in enumerate(read)}
    made = list(begin)
    for i in which:
        args = tuple(a if isinstance(a, Imm) else moved[a] for a in steps[i].args)
        moved[Tmp(i)] = Tmp(len(made))
        made.append(replace(steps[i], args=args))
    return Program(tuple(made)), read


def _kept(steps: Sequence[Step], chain: Chain) -> tuple[Program, list[int]]:
    """The chain as a program, rounded at its end, and which arguments behind the first it reads."""
    program, read = _moved(steps, sorted(chain.steps), (), {Arg(0): Arg(0)})
    return program if chain.rounded else program.then("cast", program.result, dtype=DType.BF16), read


def _behind(steps: Sequence[Step], chain: Chain) -> tuple[Program, list[int]]:
    """The steps behind the chain as a program of its rounded result, and which arguments they read beside that."""
    needed = _needed(steps, len(steps) - 1, chain.at)
    return _moved(steps, sorted(needed), [Step("cast", (Arg(0),), DType.F32)], {chain.result: Tmp(0)})


def _needed(steps: Sequence[Step], last: int, end: int) -> set[int]:
    """The steps that the last one needs, without those up to the end of the chain that it needs by way of that."""
    pending, found = [last] if last != end else [], set[int]()
    while pending:
        i = pending.pop()
        if i not in found:
            found.add(i)
            pending += [a.index for a in steps[i].args if isinstance(a, Tmp) and a.index != end]
    return found


def _read_narrow(graph: Graph) -> Graph:
    """The graph with epilogues of bfloat16 products that read what was rounded before it is float32 again: the same numbers."""
    editor = GraphEditor(graph)
    for node in graph.nodes:
        op = node.op
        if not isinstance(op, Conv | MatMul) or not op.wide:
            continue
        made, inputs, binding = Program(), list(node.inputs), list[Operand]([Arg(0)])
        for i, value in enumerate(node.inputs[2:], 2):
            below = editor.producer(value)
            binding.append(Arg(i - 1))
            if below is not None and below.op == cast(DType.F32) and graph.types[below.inputs[0]].dtype is DType.BF16:
                made, inputs[i] = made.then("cast", Arg(i - 1), dtype=DType.F32), below.inputs[0]
                binding[-1] = made.result
        if made.steps:
            editor.replace(node, replace(op, epilogue=made.compose(op.epilogue, binding)), inputs)
    editor.sweep()
    return editor.finish() if editor.nodes != graph.nodes else graph


@register_pass
@dataclass(frozen=True)
class Bfloat16Out(Pass):
    """Round the results of bfloat16 products where they are made: for machines that store nothing else.

    1. The product is one of bfloat16 that is summed in float32, 2. and it does not end with the rounding already.

    Epilogues that add such results read them as bfloat16. What is left in an epilogue is a bias, a bfloat16 residual and bounds
    (`passes/common/chains.py`). Results that the model computes further in float32 are rounded once more than by `bfloat16`
    alone.
    """

    name = "bfloat16_out"
    summary = (
        "store products of bfloat16 as bfloat16, and compute what comes behind bias, residual and bounds by nodes of its own"
    )

    def rewrite(self, graph: Graph, notes: Notes) -> Graph:
        before = None
        while graph is not before:
            before, graph = graph, _read_narrow(self._stored(graph, notes, whole=True))
        return self._stored(graph, notes, whole=False)

    def _stored(self, graph: Graph, notes: Notes, *, whole: bool) -> Graph:
        """The graph with products that store bfloat16; with `whole` only those that lack nothing but the rounding."""
        editor = GraphEditor(graph)
        for node in graph.nodes:
            op = node.op
            if not isinstance(op, Conv | MatMul) or not op.wide:  # 1
                continue
            notes.at = node
            chain, last = chain_of(graph, node), len(op.epilogue.steps) - 1
            if (chain.rounded and chain.at == last) or (whole and (chain.rounded or chain.at != last)):  # 2
                continue
            self._split(editor, node, chain)
        return editor.finish() if editor.nodes != graph.nodes else graph

    def _split(self, editor: GraphEditor, node: Node, chain: Chain) -> None:
        op, inputs, outputs = node.op, node.inputs, node.outputs
        assert isinstance(op, Conv | MatMul)
        program, read = _kept(op.epilogue.steps, chain)
        behind, others = _behind(op.epilogue.steps, chain)
        stored = replace(op, epilogue=program)
        editor.remove(node)
        operands = [*inputs[:2], *(inputs[1 + i] for i in read)]
        made = editor.add(stored, operands, hint=f"{node.output}.bf16", origin=node.origin, name=node.name)
        rest = [made.output, *(inputs[1 + i] for i in others)]
        editor.add(Map(behind), rest, hint=node.output, origin=node.origin, outputs=outputs)
