"""Import rules of LSTM, GRU and RNN: static sequences are unrolled into products and elementwise programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparsec.compiler.errors import ModelError
from sparsec.compiler.onnx_rules import ImportContext, OnnxNode, onnx_rule
from sparsec.compiler.ops.concat import Concat
from sparsec.compiler.ops.map import emit_map
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.ops.reshape import Reshape
from sparsec.compiler.ops.slice import emit_slice
from sparsec.compiler.ops.transpose import Transpose
from sparsec.compiler.scalar import Program

_ADD = Program.parse("add(a0,a1)")
_SIMPLE = {"Sigmoid": "sigmoid", "Tanh": "tanh", "Relu": "relu", "Softsign": "softsign", "Softplus": "softplus"}
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_DEFAULTS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}


@dataclass(frozen=True, slots=True)
class _Layer:
    """One direction: values w [gates * H, I], r [gates * H, H], b [2 * gates * H], p [3 * H] (None: absent), start values."""

    ctx: ImportContext
    hidden: int
    batch: int
    w: str
    r: str
    b: str | None
    p: str | None
    fns: list[str]

    def part(self, x: str, index: int, size: int) -> str:
        """Columns [index * size, (index + 1) * size) of the last dimension of `x`."""
        return _slice(self.ctx, x, self.ctx.type(x).rank - 1, index * size, size)

    def biases(self) -> tuple[str | None, str | None]:
        """The biases of the input's and of the state's product."""
        if self.b is None:
            return None, None
        half = self.ctx.type(self.b).shape[0] // 2
        return self.part(self.b, 0, half), self.part(self.b, 1, half)

    def product(self, x: str, weights: str, bias: str | None) -> str:
        """x w^T + bias."""
        if bias is None:
            return self.ctx.emit(MatMul(trans_b=True), x, weights)
        return self.ctx.emit(MatMul(trans_b=True, epilogue=_ADD), x, weights, bias)


def _slice(ctx: ImportContext, x: str, axis: int, start: int, size: int) -> str:
    """Constants are cut at once, however large: they are weights."""
    array = ctx.const(x)
    return emit_slice(ctx, x, axis, start, size) if array is None else ctx.constant(array.take(range(start, start + size), axis))


def _drop(ctx: ImportContext, x: str, index: int) -> str:
    """x[index]."""
    array = ctx.const(x)
    return (
        ctx.emit(Reshape(ctx.type(x).shape[1:]), emit_slice(ctx, x, 0, index, 1)) if array is None else ctx.constant(array[index])
    )


def _activation(node: OnnxNode, index: int) -> str:
    """The scalar function of activation `index`, which must be one without parameters."""
    names = node.attr("activations", _DEFAULTS[node.op_type] * 2)
    if index >= len(names) or names[index] not in _SIMPLE:
        raise node.refuse(f"its activations are {names}, and only {', '.join(_SIMPLE)} are supported")
    return _SIMPLE[names[index]]


def _lstm_step(cell: _Layer, x: str, h: str, c: str, peepholes: Sequence[str]) -> tuple[str, str]:
    """Gates i, o, f and the candidate; `peepholes` (of i, o, f) add p * c to i and f, and p * the new c to o."""
    ctx, (f, g, k), size = cell.ctx, cell.fns, cell.hidden
    gates = ctx.emit(MatMul(trans_b=True, epilogue=_ADD), h, cell.r, x)
    i, o, forget, new = (cell.part(gates, n, size) for n in range(4))
    if not peepholes:
        c = emit_map(ctx, f"{f}(a0);{f}(a1);{g}(a2);mul(t0,t2);mul(t1,a3);add(t3,t4)", i, forget, new, c)
        return emit_map(ctx, f"{f}(a0);{k}(a1);mul(t0,t1)", o, c), c
    pi, po, pf = peepholes
    program = f"mul(a4,a3);add(a0,t0);{f}(t1);mul(a5,a3);add(a1,t3);{f}(t4);{g}(a2);mul(t2,t6);mul(t5,a3);add(t7,t8)"
    c = emit_map(ctx, program, i, forget, new, c, pi, pf)
    return emit_map(ctx, f"mul(a2,a1);add(a0,t0);{f}(t1);{k}(a1);mul(t2,t3)", o, c, po), c


def _gru_step(cell: _Layer, x: str, h: str, linear_before_reset: bool, gates: Sequence[tuple[str, str | None]]) -> str:
    """Gates z, r and the candidate; the reset applies to the state, or with `linear_before_reset` to its product.

    `gates` holds the recurrence weights and bias of z, r and the candidate.
    """
    ctx, (f, g) = cell.ctx, cell.fns
    xz, xr, xh = (cell.part(x, n, cell.hidden) for n in range(3))
    z, r = cell.product(h, *gates[0]), cell.product(h, *gates[1])
    if linear_before_reset:
        new = emit_map(ctx, f"add(a0,a1);{f}(t0);mul(t1,a2);add(t2,a3);{g}(t3)", r, xr, cell.product(h, *gates[2]), xh)
    else:
        reset = emit_map(ctx, f"add(a0,a1);{f}(t0);mul(t1,a2)", r, xr, h)
        new = emit_map(ctx, f"add(a0,a1);{g}(t0)", cell.product(reset, *gates[2]), xh)
    return emit_map(ctx, f"add(a0,a1);{f}(t0);sub(a3,a2);mul(t1,t2);add(a2,t3)", z, xz, new, h)


def _run(cell: _Layer, node: OnnxNode, x: str, h: str, c: str, backwards: bool) -> tuple[list[str], str, str]:
    """(the states in time order, the last state, the last cell); x is [T, N, I]."""
    ctx = cell.ctx
    steps, batch, width = ctx.type(x).shape
    bias_x, bias_h = cell.biases()
    gru = node.op_type == "GRU"
    if bias_x and bias_h and not gru:  # one addition for all steps
        bias_x = emit_map(ctx, "add(a0,a1)", bias_x, bias_h)
    flat = cell.product(ctx.emit(Reshape((steps * batch, width)), x), cell.w, bias_x)
    gates = ctx.emit(Reshape((steps, batch, ctx.type(flat).shape[1])), flat)
    peepholes = [cell.part(cell.p, n, cell.hidden) for n in range(3)] if cell.p else []
    recurrent = (
        [
            (_slice(ctx, cell.r, 0, n * cell.hidden, cell.hidden), cell.part(bias_h, n, cell.hidden) if bias_h else None)
            for n in range(3)
        ]
        if gru
        else []
    )
    states: list[str] = []
    for t in reversed(range(steps)) if backwards else range(steps):
        now = _drop(ctx, gates, t)
        if gru:
            h = _gru_step(cell, now, h, bool(node.attr("linear_before_reset", 0)), recurrent)
        elif node.op_type == "LSTM":
            h, c = _lstm_step(cell, now, h, c, peepholes)
        else:
            h = emit_map(ctx, f"{cell.fns[0]}(a0)", ctx.emit(MatMul(trans_b=True, epilogue=_ADD), h, cell.r, now))
        states.append(h)
    return states[::-1] if backwards else states, h, c


def _check(ctx: ImportContext, node: OnnxNode, steps: int, batch: int) -> tuple[int, list[bool]]:
    """(hidden size, whether each direction runs backwards), or what is not supported."""
    if node.attr("clip") is not None or node.attr("input_forget", 0):
        raise node.refuse("clip and input_forget are not supported")
    if node.has(4) and (node.need_const(ctx, 4, "sequence_lens") != steps).any():
        raise node.refuse(f"its sequence_lens are not all {steps}, the extent of its input")
    directions = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}.get(node.attr("direction", "forward"))
    shape = ctx.type(node.inputs[2]).shape
    if directions is None or len(shape) != 3 or shape[0] != len(directions) or steps < 1 or batch < 1:
        raise ModelError(f"direction {node.attr('direction')!r} does not fit the recurrence weights {list(shape)}")
    if shape[1] != _GATES[node.op_type] * shape[2]:
        raise ModelError(f"recurrence weights {list(shape)} do not have {_GATES[node.op_type]} gates of {shape[2]} units")
    return shape[2], directions


@onnx_rule(
    "LSTM",
    "GRU",
    "RNN",
    becomes="MatMul, Map, Slice, Reshape, Concat, Transpose",
    constraints="unrolled; full sequences; activations without parameters; no clip, no input_forget",
)
def _import_recurrent(ctx: ImportContext, node: OnnxNode) -> tuple[str, ...]:
    """Y [T, D, N, H], Y_h [D, N, H] and Y_c [D, N, H]; with layout 1 the batch comes first everywhere."""
    batch_first, lstm = bool(node.attr("layout", 0)), node.op_type == "LSTM"

    def swap(x: str, perm: tuple[int, ...]) -> str:
        return ctx.emit(Transpose(perm), x) if batch_first else x

    x = swap(node.inputs[0], (1, 0, 2))
    steps, batch, _ = ctx.type(x).shape
    hidden, directions = _check(ctx, node, steps, batch)
    zero = ctx.constant(np.zeros((batch, hidden), ctx.type(x).dtype.numpy))

    def start(i: int, d: int) -> str:
        return _drop(ctx, swap(node.inputs[i], (1, 0, 2)), d) if node.has(i) else zero

    runs = []
    for d, backwards in enumerate(directions):
        n_fns = len(_DEFAULTS[node.op_type])
        operands = [_drop(ctx, node.inputs[i], d) if node.has(i) else None for i in (1, 2, 3, 7)]
        w, r, b, p = operands
        assert w is not None and r is not None
        fns = [_activation(node, d * n_fns + k) for k in range(n_fns)]
        cell = _Layer(ctx, hidden, batch, w, r, b, p, fns)
        runs.append(_run(cell, node, x, start(5, d), start(6, d) if lstm else zero, backwards))

    def stack(parts: list[str], shape: tuple[int, ...]) -> str:
        parts = [ctx.emit(Reshape(shape), v) for v in parts]
        return parts[0] if len(parts) == 1 else ctx.emit(Concat(0), *parts)

    in_time = [states[t] for t in range(steps) for states, _, _ in runs]
    y = ctx.emit(Reshape((steps, len(runs), batch, hidden)), stack(in_time, (1, 1, batch, hidden)))
    last = [stack([h for _, h, _ in runs], (1, batch, hidden))]
    if lstm:
        last.append(stack([c for _, _, c in runs], (1, batch, hidden)))
    return (swap(y, (2, 0, 1, 3)), *(swap(v, (1, 0, 2)) for v in last))
