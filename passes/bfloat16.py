"""bfloat16 products: convolutions and matrix products of rounded data and weights, summed in float32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import ClassVar

import numpy as np

from sparsec.compiler.dtypes import DType
from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.graph import ABSENT, Graph, Node
from sparsec.compiler.ops.base import Array
from sparsec.compiler.ops.concat import Concat
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.map import Map
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.ops.pad import Pad
from sparsec.compiler.ops.pool import Pool
from sparsec.compiler.ops.reshape import Reshape
from sparsec.compiler.ops.slice import Slice
from sparsec.compiler.ops.transpose import Transpose
from sparsec.compiler.passing.base import Notes, Pass, Rejected, register_pass
from sparsec.compiler.scalar import Arg, Operand, Program, Tmp
from sparsec.compiler.sparsity import DENSE
from sparsec.passes.widen import cast

_SPATIAL = 2  # dimensions of convolutions whose kernels take bfloat16


def rounded(array: Array) -> Array:
    """A float32 array as bfloat16: to nearest, ties to even."""
    return array.astype(DType.BF16.numpy)


def refusal(graph: Graph, node: Node, *, computed: bool = False) -> Rejected | None:
    """Why a Conv or MatMul stays as it is; None for one that becomes a bfloat16 product, of two computed tensors only if
    `computed`. The numbers are those of `Bfloat16`."""
    op, x, w = node.op, graph.types[node.inputs[0]], graph.types[node.inputs[1]]
    assert isinstance(op, Conv | MatMul)
    if x.dtype is not DType.F32 or w.dtype is not DType.F32:  # 1
        return Rejected(f"it multiplies {x.dtype.value}")
    if computed and isinstance(op, MatMul) and not any(v in graph.constants for v in node.inputs[:2]):
        same = x.shape[:-2] == w.shape[:-2] and not op.trans_a and 0 not in (*x.shape, *w.shape)
        return None if same else Rejected("its operands are not as many matrices and as many")
    if node.inputs[0] in graph.constants or node.inputs[1] not in graph.constants or 0 in x.shape:  # 2
        return Rejected(f"its weights {node.inputs[1]!r} are not constant")
    if isinstance(op, MatMul):  # 3
        shared = prod(w.shape[:-2]) == 1 and x.rank == graph.types[node.output].rank
        return None if shared and not op.trans_a else Rejected("its operands are not rows of data and one matrix of weights")
    if len(op.strides) != _SPATIAL:  # 4
        return Rejected(f"it has {len(op.strides)} spatial dimensions: bfloat16 kernels have {_SPATIAL}")
    depthwise = op.groups == w.shape[0] and w.shape[1] == 1
    if op.groups > 1 and w.shape[1] % 2 and not depthwise:  # 5
        return Rejected(f"its groups have {w.shape[1]} channels, which are not pairs")
    return None


def _moved(graph: Graph, node: Node) -> Sequence[str]:
    """The operands of a node that only moves numbers, or takes their maxima: rounding before is rounding after. () for others."""
    op = node.op
    if len(node.outputs) != 1:
        return ()
    keeps = isinstance(op, Reshape | Transpose | Slice | Concat) or (isinstance(op, Pool) and op.kind == "max")
    if isinstance(op, Pad):
        keeps = op.mode != "constant" or float(np.float32(op.fill).astype(DType.BF16.numpy)) == float(np.float32(op.fill))
    every = node.inputs if isinstance(op, Concat) else node.inputs[:1]
    return every if keeps and all(graph.types[v].dtype is DType.F32 for v in every) else ()


def _wanted(graph: Graph, products: set[str]) -> set[str]:
    """Values that a bfloat16 product reads, itself or through nodes that only move them; none that leave the graph."""
    pending = [v for n in graph.nodes if n.name in products for v in n.inputs[:2] if v not in graph.constants]
    found: set[str] = set()
    outputs = set(graph.output_values)
    while pending:
        value = pending.pop()
        if value in found or value in outputs:
            continue
        found.add(value)
        if value in graph.producers:
            pending += _moved(graph, graph.producers[value])
    return found


class _Rewriter:
    """Nodes in order; `narrow` are the values that are stored as bfloat16 now."""

    def __init__(self, graph: Graph, products: set[str]) -> None:
        self.graph, self.editor, self.products = graph, GraphEditor(graph), products
        self.wanted = _wanted(graph, products)
        self.narrow: set[str] = set()
        self.casts: dict[tuple[str, DType], str] = {}

    def rewrite(self, node: Node) -> None:
        op, editor = node.op, self.editor
        stored = node.output in self.wanted
        moved = _moved(self.graph, node)
        leaves = node.output in self.graph.output_values
        if node.name in self.products:
            assert isinstance(op, Conv | MatMul)
            program = self._program(op.epilogue, node.inputs[2:], 1, stored)
            constant = node.inputs[1] in self.graph.constants
            weights = self._weights(node) if constant else self._as(node.inputs[1], DType.BF16, node)
            inputs = [self._as(node.inputs[0], DType.BF16, node), weights, *node.inputs[2:]]
            editor.replace(node, replace(op, wide=True, epilogue=program), inputs)
        elif op == cast(DType.F32) and self.graph.types[node.inputs[0]].dtype is DType.BF16:
            stored = False
            self.casts[node.output, DType.BF16] = node.inputs[0]  # a model's own bfloat16
        elif isinstance(op, Map) and (stored or self.narrow & set(node.inputs)):
            stored = stored and self.graph.types[node.output].dtype is DType.F32
            editor.replace(node, Map(self._program(op.program, node.inputs, 0, stored)), node.inputs)
        elif moved and (stored or (not leaves and self.narrow.issuperset(moved))):
            stored = True
            editor.replace(node, op, [self._as(v, DType.BF16, node) if v in moved else v for v in node.inputs])
        else:
            stored = False
            inputs = [self._as(v, DType.F32, node) for v in node.inputs]
            if inputs != list(node.inputs):
                editor.replace(node, op, inputs)
        if stored:
            self.narrow.add(node.output)

    def _program(self, program: Program, operands: Sequence[str], first: int, stored: bool) -> Program:
        """The program whose arguments from `first` on are `operands`, some of them bfloat16 now; `stored`: so is its result."""
        made = Program()
        binding: list[Operand] = [Arg(i) for i in range(first)]
        for i, value in enumerate(operands):
            binding.append(Arg(first + i))
            if value in self.narrow:
                made = made.then("cast", Arg(first + i), dtype=DType.F32)
                binding[-1] = made.result
        made = made.compose(program, binding) if program.steps or made.steps else program
        return made.then("cast", Tmp(-1) if made.steps else Arg(0), dtype=DType.BF16) if stored else made

    def _as(self, value: str, dtype: DType, reader: Node) -> str:
        """The value as float32 or bfloat16, converted once; a value of another type as it is."""
        if value == ABSENT or self.graph.types[value].dtype is not DType.F32 or (value in self.narrow) == (dtype is DType.BF16):
            return value
        if (value, dtype) not in self.casts:
            hint, array = f"{value}.{dtype.value}", self.editor.constant_of(value)
            if array is not None:
                self.casts[value, dtype] = self.editor.add_constant(rounded(array), hint)
            else:
                self.casts[value, dtype] = self.editor.add(cast(dtype), [value], hint=hint, origin=reader.origin).output
        return self.casts[value, dtype]

    def _weights(self, node: Node) -> str:
        name = node.inputs[1]
        if (name, DType.BF16) not in self.casts:
            array = self.graph.constants[name]
            narrow = rounded(array)
            same = np.count_nonzero(narrow) == np.count_nonzero(array)
            sparsity = self.graph.types[name].sparsity if same else DENSE
            self.casts[name, DType.BF16] = self.editor.add_constant(narrow, f"{name}.bf16", sparsity)
        return self.casts[name, DType.BF16]


@register_pass
@dataclass(frozen=True)
class Bfloat16(Pass):
    """Round what convolutions and matrix products multiply to bfloat16, and sum in float32.

    1. Data and weights are float32,
    2. the weights are constant.
    3. The operands of a matrix product are rows of data and one matrix.
    4. A convolution has two spatial dimensions,
    5. and an even number of channels in each group, or one channel in each.

    What such products read is stored as bfloat16, for every reader: a product or a Map rounds what it stores, and Reshape,
    Transpose, Slice, Concat, Pad and maximum pools move what is rounded already. Biases, epilogues and everything else compute
    in float32. Inputs and outputs of the graph keep their types, and outputs are not rounded.
    """

    name = "bfloat16"
    summary = "multiply bfloat16 and sum float32 in convolutions and products with constant weights; `--precision bf16`"
    computed: ClassVar[bool] = False

    def rewrite(self, graph: Graph, notes: Notes) -> Graph:
        products = set()
        for node in graph.nodes:
            if isinstance(node.op, Conv | MatMul):
                notes.at = node
                why = refusal(graph, node, computed=self.computed)
                if why is None:
                    products.add(node.name)
                else:
                    notes.reject(node, why)
        if not products:
            return graph
        rewriter = _Rewriter(graph, products)
        for node in graph.nodes:
            notes.at = node
            rewriter.rewrite(node)
        return rewriter.editor.finish()


@register_pass
@dataclass(frozen=True)
class Bfloat16Pairs(Bfloat16):
    """As `bfloat16`, and products of as many computed matrices by as many others as well: for machines that multiply those."""

    name = "bfloat16_pairs"
    summary = "as bfloat16, and products of two computed tensors as well"
    computed: ClassVar[bool] = True
