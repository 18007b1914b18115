"""Recognise quantised values: Maps that quantise and dequantise, and constants that are integers times a scale."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsec.compiler.dtypes import DType
from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.graph import Node
from sparsec.compiler.ops.base import Array
from sparsec.compiler.ops.map import Map
from sparsec.compiler.ops.quantize import (
    DEQUANTISE,
    DEQUANTISE_ZERO,
    RANGES,
    centre_program,
    dequantise_program,
    quantise_program,
)
from sparsec.compiler.ops.reshape import Reshape
from sparsec.compiler.ops.transpose import Transpose
from sparsec.compiler.scalar import Imm, Program, Step

_SIGN = 128  # between int8 and the uint8 value that stands for it
_BYTES = (DType.U8, DType.I8)


@dataclass(frozen=True, slots=True)
class Affine:
    """A real number r is the integer round(r / scale) + zero."""

    scale: float
    zero: int


def _number(step: Step) -> float | int | None:
    a = step.args[1] if len(step.args) == 2 else None
    return a.value if isinstance(a, Imm) else None


def as_dequantise(node: Node | None) -> Affine | None:
    """The parameters of a Map that computes (x - zero) * scale; None for another node."""
    if node is None or not isinstance(node.op, Map) or len(node.op.program.steps) != 4:
        return None
    steps = node.op.program.steps
    zero, scale = _number(steps[1]), _number(steps[3])
    if scale is None or not isinstance(zero, int) or node.op.program != dequantise_program(scale, zero):
        return None
    return Affine(scale, zero)


def as_quantise(node: Node | None) -> tuple[Affine, DType] | None:
    """Parameters and result of a Map that computes saturate(round(x / scale) + zero); None for another node."""
    if node is None or not isinstance(node.op, Map) or len(node.op.program.steps) != 6:
        return None
    steps = node.op.program.steps
    scale, zero, dtype = _number(steps[0]), _number(steps[2]), steps[5].dtype
    if scale is None or zero is None or dtype not in RANGES:
        return None
    if node.op.program != quantise_program(scale, int(zero), dtype):
        return None
    return Affine(scale, int(zero)), dtype


def as_centre(node: Node | None) -> int | None:
    """The zero point of a Map that computes x - zero in int32; None for another node."""
    if node is None or not isinstance(node.op, Map) or len(node.op.program.steps) != 2:
        return None
    zero = _number(node.op.program.steps[1])
    return zero if isinstance(zero, int) and node.op.program == centre_program(zero) else None


def to_unsigned() -> Program:
    """The uint8 value that stands for an int8 one: x + 128."""
    return Program.parse(f"cast.i32(a0);add(t0,{_SIGN});cast.u8(t1)")


def to_signed() -> Program:
    """The inverse of `to_unsigned`."""
    return Program.parse(f"cast.i32(a0);sub(t0,{_SIGN});cast.i8(t1)")


def unsigned(zero: int) -> int:
    """The zero point of what `to_unsigned` makes of int8 values with the zero point `zero`."""
    return zero + _SIGN


def is_signed_view(node: Node | None) -> bool:
    """Whether a node is the Map `to_signed`."""
    return node is not None and isinstance(node.op, Map) and node.op.program == to_signed()


@dataclass(frozen=True, slots=True)
class QuantisedConstant:
    """(data - zero) * scale: `data` are integers; `scale` and `zero` broadcast to them and have as many dimensions."""

    data: Array
    scale: Array
    zero: Array

    def int8(self) -> Array | None:
        """data - zero as int8; None where it does not fit."""
        if self.data.dtype == np.int8 and not self.zero.any():
            return self.data
        wide = self.data.astype(np.int32) - self.zero.astype(np.int32)
        fits = wide.size == 0 or (wide.min() >= -128 and wide.max() <= 127)
        return wide.astype(np.int8) if fits else None


def quantised_constant(editor: GraphEditor, value: str) -> QuantisedConstant | None:
    """The integers behind a constant that a Map dequantises, seen through Reshape and Transpose; None for another value."""
    node = editor.producer(value)
    if node is None:
        return None
    if isinstance(node.op, Transpose | Reshape):
        inner = quantised_constant(editor, node.inputs[0])
        return _moved(inner, node.op) if inner is not None else None
    array = editor.constant_of(node.inputs[0]) if node.inputs else None
    if not isinstance(node.op, Map) or array is None or array.dtype.kind not in "iu":
        return None
    rank = array.ndim
    affine = as_dequantise(node)
    if affine is not None:
        return QuantisedConstant(array, _full(np.float32(affine.scale), rank), _full(np.int32(affine.zero), rank))
    if node.op.program not in (DEQUANTISE, DEQUANTISE_ZERO):
        return None
    scale = known(editor, node.inputs[-1])
    zero = known(editor, node.inputs[1]) if node.op.program == DEQUANTISE_ZERO else np.int32(0)
    if scale is None or zero is None:
        return None
    return QuantisedConstant(array, _full(scale, rank), _full(zero, rank))


def _full(array: Array | np.generic, rank: int) -> Array:
    return np.reshape(array, (1,) * (rank - np.ndim(array)) + np.shape(array))


def _moved(c: QuantisedConstant, op: Transpose | Reshape) -> QuantisedConstant | None:
    if isinstance(op, Transpose):
        return QuantisedConstant(*(a.transpose(op.perm) for a in (c.data, c.scale, c.zero)))
    shape = op.evaluate((c.data,))[0].shape
    if c.scale.size == 1 and c.zero.size == 1:
        ones = (1,) * len(shape)
        return QuantisedConstant(c.data.reshape(shape), c.scale.reshape(ones), c.zero.reshape(ones))
    every = [np.broadcast_to(a, c.data.shape).reshape(shape) for a in (c.scale, c.zero)]
    return QuantisedConstant(c.data.reshape(shape), *every)


def known(editor: GraphEditor, value: str) -> Array | None:
    """The array of a value that Reshapes and Maps make of constants alone; None for another value."""
    array = editor.constant_of(value)
    if array is not None:
        return array
    node = editor.producer(value)
    if node is None or not isinstance(node.op, Reshape | Map | Transpose):
        return None
    inputs = [known(editor, v) for v in node.inputs]
    if any(a is None for a in inputs):
        return None
    return node.op.evaluate(inputs)[0]
