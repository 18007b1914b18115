"""One form for what can be said in several ways, so that patterns and backends know only that one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any

from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.ops.base import Op, broadcast_shapes
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.conv_transpose import ConvTranspose
from sparsec.compiler.ops.expand import Expand
from sparsec.compiler.ops.map import Map
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.ops.pool import Pool
from sparsec.compiler.ops.reduce import Reduce
from sparsec.compiler.ops.reshape import Reshape
from sparsec.compiler.passing.base import Notes, Pass, register_pass
from sparsec.compiler.passing.rules import Rule, apply_rules
from sparsec.compiler.scalar import Arg, Imm


class _OneToTwo(Rule[Op]):
    """A window over one dimension becomes one over two, the first of extent 1."""

    ops = (Conv, ConvTranspose, Pool)

    def match(self, editor: GraphEditor, node: Node) -> Op | None:
        op = node.op
        assert isinstance(op, Conv | ConvTranspose | Pool)
        if len(op.strides) != 1:
            return None
        more: dict[str, Any] = {"strides": (1, *op.strides), "dilations": (1, *op.dilations)}
        more["pads"] = (0, op.pads[0], 0, op.pads[1])
        if isinstance(op, ConvTranspose):
            more["output_padding"] = (0, *op.output_padding)
        if isinstance(op, Pool):
            more["kernel"] = (1, *op.kernel)
        return replace(op, **more)

    def apply(self, editor: GraphEditor, node: Node, match: Op) -> None:
        inputs = []
        for v in node.inputs:
            shape = editor.types[v].shape
            wide = (*shape[:-1], 1, *shape[-1:]) if len(shape) > 1 else shape
            array = editor.constant_of(v)
            if wide != shape and array is not None:
                v = editor.add_constant(array.reshape(wide), v)
            elif wide != shape:
                v = editor.add(Reshape(wide), [v], hint=f"{v}.2d", origin=node.origin).output
            inputs.append(v)
        inner = editor.add(match, inputs, hint=f"{node.output}.2d", origin=node.origin)
        editor.replace(node, Reshape(editor.types[node.output].shape), [inner.output])


class _GlobalPool(Rule[Reduce]):
    """A pool whose one window is all of the data is a reduction."""

    ops = (Pool,)

    def match(self, editor: GraphEditor, node: Node) -> Reduce | None:
        assert isinstance(node.op, Pool)
        op, shape = node.op, editor.types[node.inputs[0]].shape
        whole = op.kernel == shape[2:] and not any(op.pads) and set(op.dilations) <= {1}
        one = all(n == 1 for n in editor.types[node.output].shape[2:])
        if not (whole and one) or op.kind not in ("avg", "max"):
            return None
        return Reduce("mean" if op.kind == "avg" else "max", tuple(range(2, len(shape))), True)

    def apply(self, editor: GraphEditor, node: Node, match: Reduce) -> None:
        editor.replace(node, match, node.inputs)


class _KeepDims(Rule[Node]):
    """A reduction, then a reshape that puts the reduced dimensions back, is a reduction that keeps them."""

    ops = (Reshape,)

    def match(self, editor: GraphEditor, node: Node) -> Node | None:
        below = editor.producer(node.inputs[0])
        if below is None or not isinstance(below.op, Reduce) or below.op.keepdims:
            return None
        kept = replace(below.op, keepdims=True).infer(editor.in_types(below))[0].shape
        return below if kept == editor.types[node.output].shape else None

    def apply(self, editor: GraphEditor, node: Node, match: Node) -> None:
        assert isinstance(match.op, Reduce)
        op = replace(match.op, keepdims=True)
        if editor.only_user(match.output) is not None:
            editor.replace(node, op, match.inputs, origin=match.origin)
            return
        inner = editor.add(op, match.inputs, hint=f"{match.output}.kept", origin=match.origin)
        editor.replace_uses(node.output, inner.output)
        editor.remove(node)
        editor.replace(match, Reshape(editor.types[match.output].shape), [inner.output], origin=node.origin)


class _PointTransposed(Rule[MatMul]):
    """A transposed convolution of one position is a matrix product: every output is read from that position once."""

    ops = (ConvTranspose,)

    def match(self, editor: GraphEditor, node: Node) -> MatMul | None:
        op = node.op
        assert isinstance(op, ConvTranspose)
        point = all(n == 1 for n in editor.types[node.inputs[0]].shape[2:])
        whole = op.groups == 1 and set(op.dilations) == {1} and not any((*op.pads, *op.output_padding))
        return MatMul() if point and whole else None

    def apply(self, editor: GraphEditor, node: Node, match: MatMul) -> None:
        assert isinstance(node.op, ConvTranspose)
        n, ic = editor.types[node.inputs[0]].shape[:2]
        w = editor.types[node.inputs[1]].shape
        flat = []
        for v, shape in zip(node.inputs[:2], ((n, ic), (ic, prod(w[1:]))), strict=True):
            flat.append(editor.add(Reshape(shape), [v], hint=f"{v}.2d", origin=node.origin).output)
        product = editor.add(match, flat, hint=f"{node.output}.product", origin=node.origin).output
        out = editor.types[node.output].shape
        if not node.op.epilogue.steps:
            editor.replace(node, Reshape(out), [product])
            return
        shaped = editor.add(Reshape(out), [product], hint=f"{node.output}.sum", origin=node.origin).output
        editor.replace(node, Map(node.op.epilogue), [shaped, *node.inputs[2:]])


class _Mean(Rule[Node]):
    """A sum times 1 / n is a mean."""

    ops = (Map,)

    def match(self, editor: GraphEditor, node: Node) -> Node | None:
        assert isinstance(node.op, Map)
        below, steps = editor.producer(node.inputs[0]), node.op.program.steps
        if below is None or below.op.name != "Reduce" or len(steps) != 1 or editor.only_user(below.output) is None:
            return None
        assert isinstance(below.op, Reduce)
        n = prod(editor.types[below.inputs[0]].shape[a] for a in below.op.over)
        factor = steps[0].args[1] if steps[0].fn == "mul" and steps[0].args[0] == Arg(0) else None
        same = isinstance(factor, Imm) and n > 0 and abs(factor.value * n - 1) < 1e-6
        return below if below.op.kind == "sum" and same and editor.types[node.output].dtype.is_float else None

    def apply(self, editor: GraphEditor, node: Node, match: Node) -> None:
        assert isinstance(match.op, Reduce)
        editor.replace(node, replace(match.op, kind="mean"), match.inputs, origin=match.origin)


class _FlatWeights(Rule[tuple[int, ...]]):
    """A constant right operand [1, ..., K, N] is [K, N]."""

    ops = (MatMul,)

    def match(self, editor: GraphEditor, node: Node) -> tuple[int, ...] | None:
        a, b = editor.types[node.inputs[0]], editor.types[node.inputs[1]]
        if editor.constant_of(node.inputs[1]) is None or b.rank < 3 or any(n != 1 for n in b.shape[:-2]) or a.rank < b.rank:
            return None
        return b.shape[-2:]

    def apply(self, editor: GraphEditor, node: Node, match: tuple[int, ...]) -> None:
        w = editor.add_constant(editor.constants[node.inputs[1]].reshape(match), node.inputs[1])
        editor.replace(node, node.op, [node.inputs[0], w, *node.inputs[2:]])


class _NoExpand(Rule[list[str]]):
    """A Map broadcasts by itself."""

    ops = (Map,)

    def match(self, editor: GraphEditor, node: Node) -> list[str] | None:
        inputs = list(node.inputs)
        out = editor.types[node.output].shape
        for i, v in enumerate(inputs):
            below = editor.producer(v)
            if below is not None and isinstance(below.op, Expand):
                tried = [*inputs[:i], below.inputs[0], *inputs[i + 1 :]]
                if broadcast_shapes(*(editor.types[x].shape for x in tried)) == out:
                    inputs = tried
        return inputs if inputs != list(node.inputs) else None

    def apply(self, editor: GraphEditor, node: Node, match: list[str]) -> None:
        below = [p for v in node.inputs if (p := editor.producer(v)) is not None and isinstance(p.op, Expand)]
        editor.replace(node, node.op, match, origin=[o for p in below for o in p.origin])


@register_pass
@dataclass(frozen=True)
class Canonical(Pass):
    """Rewrite to one form.

    1. Convolutions and pools over one dimension become ones over two, between reshapes (which then meet and vanish).
    2. A pool whose one window is all of the data, without padding, becomes a Reduce.
    3. Reduce, then Reshape that puts the reduced dimensions back, becomes Reduce with keepdims.
    4. A sum over n elements times 1 / n becomes a mean.
    5. Constant matrices with leading dimensions of extent 1 lose them, where the left operand has as many dimensions.
    6. Maps read what Expand reads, where the result keeps its shape.
    7. A transposed convolution of a single position, without padding, groups or dilation, becomes a matrix product.
    """

    name = "canonical"
    summary = "one form for pools, one-dimensional convolutions, means, kept dimensions and broadcasts"

    def rewrite(self, graph: Graph, notes: Notes) -> Graph:
        rules: list[Rule[Any]] = [
            _OneToTwo(),
            _GlobalPool(),
            _KeepDims(),
            _Mean(),
            _FlatWeights(),
            _NoExpand(),
            _PointTransposed(),
        ]
        return apply_rules(graph, rules, notes)
