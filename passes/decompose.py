"""Operators that no kernel computes as they are, written in operators that have kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod

from sparsec.compiler.dtypes import DType
from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.graph import ABSENT, Graph, Node
from sparsec.compiler.ops.attention import Attention
from sparsec.compiler.ops.base import Op
from sparsec.compiler.ops.batch_norm import BatchNorm
from sparsec.compiler.ops.group_norm import GroupNorm
from sparsec.compiler.ops.layer_norm import LayerNorm
from sparsec.compiler.ops.lrn import LRN
from sparsec.compiler.ops.map import Map
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.ops.pool import Pool
from sparsec.compiler.ops.reduce import Reduce
from sparsec.compiler.ops.reshape import Reshape
from sparsec.compiler.ops.resize import Resize
from sparsec.compiler.ops.softmax import Softmax
from sparsec.compiler.ops.transpose import Transpose
from sparsec.compiler.passing.base import Notes, Pass, register_pass
from sparsec.compiler.scalar import Program
from sparsec.compiler.types import TensorType


@dataclass(frozen=True)
class _Writer:
    """Adds the nodes that stand in for one node."""

    editor: GraphEditor
    node: Node

    def emit(self, op: Op, *inputs: str) -> str:
        """A new node's output."""
        return self.editor.add(op, inputs, hint=f"{self.node.name}.{op.name.lower()}", origin=self.node.origin).output

    def map(self, program: str, *inputs: str) -> str:
        """A new Map's output; argument i of the program is input i."""
        return self.emit(Map(Program.parse(program)), *inputs)

    def shape(self, value: str) -> tuple[int, ...]:
        """The extents of a value."""
        return self.editor.types[value].shape


def _channels(w: _Writer, value: str, rank: int) -> str:
    """A vector of one value a channel as [C, 1, 1, ...], to broadcast along dimension 1 of `rank`."""
    return w.emit(Reshape((w.shape(value)[0], *[1] * (rank - 2))), value)


def _batch_norm(w: _Writer, op: BatchNorm) -> str:
    x = w.node.inputs[0]
    parameters = [_channels(w, v, len(w.shape(x))) for v in w.node.inputs[1:]]
    dtype = w.editor.types[x].dtype.value
    program = f"sub(a0,a3);add(a4,{op.epsilon!r});sqrt(t1);div(t0,t2);mul(t3,a1);add(t4,a2);cast.{dtype}(t5)"
    return w.map(program, x, *parameters)


def _softmax(w: _Writer, op: Softmax) -> str:
    return _softmax_of(w, op, w.node.inputs[0])


def _softmax_of(w: _Writer, op: Softmax, x: str) -> str:
    top = w.emit(Reduce("max", (op.axis,)), x)
    if not op.log:
        powers = w.map("sub(a0,a1);exp(t0)", x, top)
        return w.map("div(a0,a1)", powers, w.emit(Reduce("sum", (op.axis,)), powers))
    shifted = w.map("sub(a0,a1)", x, top)
    total = w.emit(Reduce("sum", (op.axis,)), w.map("exp(a0)", shifted))
    return w.map("log(a1);sub(a0,t0)", shifted, total)


def _attention(w: _Writer, op: Attention) -> str:
    """Products, softmax, products; groups of query heads that share keys are a dimension of their own."""
    z = op.sizes(w.editor.in_types(w.node))
    shared, inside = z.h // z.kv, len(w.shape(w.node.inputs[0])) == 3

    def heads(value: str, lines: int, width: int, group: int) -> str:
        """[B, kv heads, query heads that share one (or 1), lines, width]."""
        if not inside:
            return w.emit(Reshape((z.b, z.kv, group, lines, width)), value)
        return w.emit(Transpose((0, 2, 3, 1, 4)), w.emit(Reshape((z.b, lines, z.kv, group, width)), value))

    q = heads(w.node.inputs[0], z.s, z.d, shared)
    k = heads(w.node.inputs[1], z.l, z.d, 1)
    v = heads(w.node.inputs[2], z.l, z.dv, 1)
    products = w.emit(Reshape((z.b, z.h, z.s, z.l)), w.emit(MatMul(trans_b=True), q, k))
    mask = w.node.inputs[3] if len(w.node.inputs) > 3 else ABSENT
    scale = f"mul(a0,{op.scale!r})"
    scores = w.map(f"{scale};add(t0,a1)", products, mask) if mask != ABSENT else w.map(scale, products)
    weights = _softmax_of(w, Softmax(3), scores)
    y = w.emit(MatMul(), w.emit(Reshape((z.b, z.kv, shared, z.s, z.l)), weights), v)
    if inside:
        y = w.emit(Transpose((0, 3, 1, 2, 4)), y)
    return w.emit(Reshape((z.b, z.s, z.h * z.dv) if inside else (z.b, z.h, z.s, z.dv)), y)


def _takes_attention(op: Attention, types: Sequence[TensorType]) -> bool:
    """Whether the fused kernel takes an Attention: float32, and a mask, if any, that tells keys apart."""
    plain = all(t.dtype is DType.F32 for t in types)
    return plain and (len(types) < 4 or types[3].shape[-1:] == (op.sizes(types).l,))


def _normalise(w: _Writer, x: str, over: tuple[int, ...], epsilon: float, *, rms: bool = False) -> str:
    centred = x if rms else w.map("sub(a0,a1)", x, w.emit(Reduce("mean", over), x))
    spread = w.emit(Reduce("mean", over), w.map("mul(a0,a0)", centred))
    return w.map(f"add(a1,{epsilon!r});sqrt(t0);div(a0,t1)", centred, spread)


def _layer_norm(w: _Writer, op: LayerNorm) -> str:
    x, *parameters = w.node.inputs
    y = _normalise(w, x, tuple(range(op.axis, len(w.shape(x)))), op.epsilon, rms=op.rms)
    for value, fn in zip(parameters, ("mul", "add"), strict=False):
        y = w.map(f"{fn}(a0,a1)", y, value) if value != ABSENT else y
    return y


def _group_norm(w: _Writer, op: GroupNorm) -> str:
    x, scale, bias = w.node.inputs
    shape, wide = w.shape(x), w.editor.types[scale].dtype
    grouped = w.emit(Reshape((shape[0], op.groups, w.editor.types[x].elements // (shape[0] * op.groups))), x)
    y = w.emit(Reshape(shape), _normalise(w, grouped, (2,), op.epsilon))
    dtype = w.editor.types[x].dtype
    program = f"cast.{wide.value}(a0);mul(t0,a1);add(t1,a2);cast.{dtype.value}(t2)"
    return w.map(program, y, _channels(w, scale, len(shape)), _channels(w, bias, len(shape)))


def _lrn(w: _Writer, op: LRN) -> str:
    """The sum of squares over neighbouring channels as a mean over windows, counting the padding, times their size."""
    x = w.node.inputs[0]
    n, c, *spatial = w.shape(x)
    before = (op.size - 1) // 2
    squares = w.emit(Reshape((n, 1, c, prod(spatial))), w.map("mul(a0,a0)", x))
    pads = (before, 0, op.size - 1 - before, 0)
    mean = w.emit(Pool("avg", (op.size, 1), (1, 1), (1, 1), pads, include_pad=True), squares)
    mean = w.emit(Reshape(w.shape(x)), mean)
    return w.map(f"mul(a1,{op.alpha!r});add(t0,{op.bias!r});pow(t1,{op.beta!r});div(a0,t2)", x, mean)


def _resize(w: _Writer, op: Resize) -> str:
    """In float32, one axis after the other, those that grow least (or shrink most) first."""
    x = w.node.inputs[0]
    shape, dtype, rank = w.shape(x), w.editor.types[x].dtype, len(op.sizes)
    y = x if dtype is DType.F32 else w.map("cast.f32(a0)", x)
    for axis in sorted(op.resized(shape), key=lambda i: (op.sizes[i] / shape[i], -i)):
        sizes = tuple(op.sizes[i] if i == axis else n for i, n in enumerate(w.shape(y)))
        scales = tuple(s if i == axis else 1.0 for i, s in enumerate(op.scales))
        roi = tuple(r if i % rank == axis else float(i >= rank) for i, r in enumerate(op.roi))
        y = w.emit(replace(op, sizes=sizes, scales=scales, roi=roi), y)
    return y if dtype is DType.F32 else w.map(f"cast.{dtype.value}(a0)", y)


def _takes_resize(op: Resize, x: TensorType) -> bool:
    """Whether kernels take a Resize whole: nearest neighbours, one axis, or the two of an image with channels first or last."""
    changed = op.resized(x.shape)
    image = x.rank == 4 and op.coordinates != "tf_crop_and_resize" and changed in ([2, 3], [1, 2])
    return op.mode == "nearest" or (x.dtype is DType.F32 and (len(changed) < 2 or image))


_RULES: dict[type[Op], Callable[..., str]] = {
    BatchNorm: _batch_norm,
    Softmax: _softmax,
    LayerNorm: _layer_norm,
    GroupNorm: _group_norm,
    LRN: _lrn,
    Resize: _resize,
    Attention: _attention,
}
_ALWAYS = (BatchNorm,)


@register_pass
@dataclass(frozen=True)
class Decompose(Pass):
    """Write operators that have no kernel for their element types as reductions and elementwise programs.

    1. The operator is BatchNorm (what is left of them has computed statistics), or
    2. Softmax, LayerNorm, GroupNorm or LRN, and some operand is not float32, or
    3. Resize, which interpolates in float32, along more axes than a kernel takes at once or of another type (but float64), or
    4. Attention, of other types than float32 or with a mask that does not tell keys apart.
    """

    name = "decompose"
    summary = "write operators that have no kernel for their element types in simpler ones"

    def rewrite(self, graph: Graph, notes: Notes) -> Graph:
        editor = GraphEditor(graph)
        for node in graph.nodes:
            rule = _RULES.get(type(node.op))
            if rule is None or graph.types[node.output].elements == 0:
                continue
            types = [t for t in graph.in_types(node) if t]
            plain = all(t.dtype is DType.F32 for t in types)
            if isinstance(node.op, Resize):
                plain = _takes_resize(node.op, types[0]) or types[0].dtype is DType.F64
            if isinstance(node.op, Attention):
                plain = _takes_attention(node.op, types)
            if isinstance(node.op, _ALWAYS) or not plain:
                value = rule(_Writer(editor, node), node.op)
                last = editor.producer(value)
                assert last is not None
                editor.remove(node)
                editor.replace(last, last.op, last.inputs, outputs=node.outputs)
        return editor.finish()
