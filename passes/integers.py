"""Integer products: convolutions and matrix products of quantised data and weights sum integers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sparsec.compiler.dtypes import DType
from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.ops.base import Array
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.integer import DATA
from sparsec.compiler.ops.map import Map
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.passing.base import Notes, Pass, Rejected, register_pass
from sparsec.compiler.passing.rules import Rule, apply_rules, merged_origin
from sparsec.compiler.scalar import Arg, Imm, Operand, Program, Tmp
from sparsec.passes.common.affine import BIAS
from sparsec.passes.common.quantised import (
    as_centre,
    as_dequantise,
    known,
    quantised_constant,
    to_unsigned,
    unsigned,
)
from sparsec.passes.pads_apart import apart

_MOST = 1 << 16  # products that a 32-bit sum holds whatever they are
_CENTRED = Program.parse("cast.i32(a0);cast.i32(a1);sub(t0,t1)")
_LESS_ZEROS = Program.parse("cast.i32(a1);mul(t0,a2);sub(a0,t1)")
_SAME = 1e-6  # relative difference up to which a bias' scale is that of the products


@dataclass(frozen=True)
class _Match:
    """Data (a quantised value, its zero point), int8 weights, and what the sums become: the epilogue and its operands."""

    x: str
    zero: int
    w: Array
    epilogue: Program
    extras: tuple[str | Array, ...]
    sources: tuple[Node, ...]


class _Product(Rule[_Match]):
    """conv(dequantise x, dequantised constant) and conv(x - zero, integer constant)."""

    ops = (Conv, MatMul)

    def match(self, editor: GraphEditor, node: Node) -> _Match | Rejected | None:
        op = node.op
        assert isinstance(op, Conv | MatMul)
        below = editor.producer(node.inputs[0])
        affine, centre = as_dequantise(below), as_centre(below)
        moving = below is not None and isinstance(below.op, Map) and below.op.program == _CENTRED
        if below is None or (affine is None and centre is None and not moving):
            return None
        x = below.inputs[0]
        if op.macs(editor.in_types(node)) > _MOST * editor.types[node.output].elements:  # 6
            return Rejected("its sums have more than 65536 products, which 32 bits may not hold")
        if editor.types[x].dtype not in DATA or (isinstance(op, MatMul) and op.trans_a):  # 1
            return Rejected(f"the integers of {below.name!r} are {editor.types[x]}, not rows of 8 bits")
        if affine is None:
            return self._integers(editor, node, below, x, centre)
        c = quantised_constant(editor, node.inputs[1])
        w = c.int8() if c is not None else None
        if c is None or w is None:  # 2
            return Rejected(f"its weights {node.inputs[1]!r} are not constant integers that fit int8")
        scale = _per_output(op, c.scale)
        if scale is None:  # 3
            return Rejected(f"the scale of its weights {node.inputs[1]!r} differs within an output channel")
        total = np.float32(affine.scale) * scale.astype(np.float32)
        column = (-1,) + (1,) * (len(op.strides) if isinstance(op, Conv) else 0)
        program, extras = Program(), list[str | Array]()
        rest, inputs = op.epilogue, list[str | Array](node.inputs[2:])
        bias = _integer_bias(editor, node, total) if op.epilogue == BIAS else None
        if bias is not None:  # 4
            program, rest, inputs = program.then("add", Arg(0), Arg(1)), Program(), []
            extras.append(bias.reshape(column))
        program = program.then("cast", program.result, dtype=DType.F32)
        if total.size == 1 or np.all(total == total.reshape(-1)[0]):
            program = program.then("mul", Tmp(-1), Imm(float(total.reshape(-1)[0])))
        else:
            extras.append(np.ascontiguousarray(total.reshape(column)))
            program = program.then("mul", Tmp(-1), Arg(len(extras)))
        binding: list[Operand] = [Tmp(-1), *(Arg(len(extras) + 1 + i) for i in range(len(inputs)))]
        program = program.compose(rest, binding)
        return _Match(x, affine.zero, w, program, (*extras, *inputs), (below,))

    def _integers(self, editor: GraphEditor, node: Node, below: Node, x: str, zero: int | None) -> _Match | Rejected:
        """The product of centred integers: sums stay as they are. A `zero` that is only known when the model runs (None) takes
        its share of the sums of weights from them.
        """
        assert isinstance(node.op, Conv | MatMul)
        wide = known(editor, node.inputs[1])
        if wide is None or wide.dtype.kind not in "iu":
            return Rejected(f"its weights {node.inputs[1]!r} are not constant")
        if wide.size and (wide.min() < -128 or wide.max() > 127):
            return Rejected(f"its weights {node.inputs[1]!r} less their zero point do not fit int8")
        narrow = wide.astype(np.int8)
        if zero is not None:
            return _Match(x, zero, narrow, node.op.epilogue, node.inputs[2:], (below,))
        moving = below.inputs[1]
        if editor.types[moving].elements != 1 or editor.types[x].dtype is not DType.U8:  # 7
            return Rejected(f"the zero point {moving!r} of its data is computed, and not one of uint8 data")
        totals = _totals(node.op, narrow, editor.types[x].shape)
        binding: list[Operand] = [Tmp(-1), *(Arg(3 + i) for i in range(len(node.inputs) - 2))]
        program = _LESS_ZEROS.compose(node.op.epilogue, binding)
        return _Match(x, 0, narrow, program, (moving, totals, *node.inputs[2:]), (below,))

    def apply(self, editor: GraphEditor, node: Node, match: _Match) -> None:
        op, x, zero = node.op, match.x, match.zero
        assert isinstance(op, Conv | MatMul)
        origin = merged_origin(*match.sources)
        if editor.types[x].dtype is DType.I8:
            x, zero = editor.add(Map(to_unsigned()), [x], hint=f"{x}.u8", origin=origin).output, unsigned(zero)
        if zero and isinstance(op, Conv) and any(op.pads):  # 5
            x, op = apart(editor, x, replace(op, zero=zero), origin)
        w = editor.add_constant(match.w, f"{node.inputs[1]}.i8")
        extras = [e if isinstance(e, str) else editor.add_constant(e, f"{node.name}.{e.dtype}") for e in match.extras]
        editor.replace(node, replace(op, epilogue=match.epilogue, zero=zero), [x, w, *extras], origin=origin)


def _per_output(op: Conv | MatMul, scale: Array) -> Array | None:
    """The scales of output channels, one or [OC], from ones that broadcast to the weights; None when they differ within one."""
    axis = 0 if isinstance(op, Conv) or op.trans_b else scale.ndim - 1
    if isinstance(op, MatMul) and op.trans_b:
        axis = scale.ndim - 2
    if any(n != 1 for i, n in enumerate(scale.shape) if i != axis):
        first = np.moveaxis(scale, axis, 0).reshape(scale.shape[axis], -1)
        return first[:, 0] if np.all(first == first[:, :1]) else None
    return scale.reshape(-1)


def _totals(op: Conv | MatMul, w: Array, x: tuple[int, ...]) -> Array:
    """The sum of each output's weights, int32, in a shape that broadcasts to the output; `x` is the data's shape.

    With padding, which is beyond the data and holds no zero points, they differ from place to place: sums over data of ones.
    """
    if isinstance(op, MatMul):
        return np.ascontiguousarray(w.sum(axis=-1 if op.trans_b else -2, dtype=np.int32))
    if any(op.pads):
        plain = replace(op, groups=1, epilogue=Program(), zero=0)
        (sums,) = plain.evaluate([np.ones((1, 1, *x[2:]), np.int32), w.sum(axis=1, keepdims=True, dtype=np.int32)])
        return np.ascontiguousarray(np.broadcast_to(sums, (x[0], *sums.shape[1:])))
    each: Array = w.sum(axis=tuple(range(1, w.ndim)), dtype=np.int32)
    return each.reshape(-1, *[1] * len(op.strides))


def _integer_bias(editor: GraphEditor, node: Node, total: Array) -> Array | None:
    """The bias in units of the products' scale, int32 [OC], where it is quantised so; None otherwise."""
    c = quantised_constant(editor, node.inputs[2])
    if c is None or c.zero.any() or c.data.dtype != np.int32:
        return None
    scale = np.broadcast_to(c.scale, c.data.shape).reshape(-1)
    data = c.data.reshape(-1)
    out = editor.types[node.output].shape[1 if isinstance(node.op, Conv) else -1]
    if data.size not in (1, out) or np.any(np.abs(scale - total) > _SAME * np.abs(total)):
        return None
    return np.ascontiguousarray(np.broadcast_to(data, (out,)))


@register_pass
@dataclass(frozen=True)
class Integers(Pass):
    """Products of quantised data and weights become sums of integers, which the epilogue makes real numbers.

    1. The data are dequantised, or centred, from 8 bits with one scale and zero point.
    2. The weights are constant integers that fit int8 less their zero points,
    3. with one scale, or one for each output channel.
    4. A bias in the products' scale is added to the sums.
    5. Padding with a zero point other than 0 becomes a node of its own, since halos hold zeros.
    6. An output sums at most 65536 products.
    7. A zero point that is computed (dynamic quantisation) is one of uint8 data. Halos hold zeros; the sums of those weights that
       lie on data take its share.

    int8 data become uint8. The sums are exact where the float32 product rounds.
    """

    name = "integers"
    summary = "sum integers in convolutions and products of quantised data and weights"

    def rewrite(self, graph: Graph, notes: Notes) -> Graph:
        return apply_rules(graph, [_Product()], notes)
