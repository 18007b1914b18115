"""LayerNorm: normalisation of each line of trailing dimensions by its mean and variance, or by its mean square (RMS)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsec.compiler.axes import BROADCAST, Access, AxisMap, Dim, DimKind, Iter
from sparsec.compiler.errors import ModelError
from sparsec.compiler.graph import ABSENT
from sparsec.compiler.onnx_rules import ImportContext, OnnxNode, onnx_rule
from sparsec.compiler.ops.base import Array, InArrays, InTypes, Op, broadcasts_to, need, register, value
from sparsec.compiler.ops.map import Map
from sparsec.compiler.scalar import Arg, Program
from sparsec.compiler.types import TensorType


@register
@dataclass(frozen=True, slots=True)
class LayerNorm(Op):
    """y = (x - mean) / sqrt(variance + epsilon) * scale + bias over the dimensions from `axis` (>= 0) to the last.

    With `rms`: y = x / sqrt(mean(x * x) + epsilon) * scale + bias. Inputs: x, then optionally scale and bias, which broadcast to
    x (within the normalised dimensions). 16-bit floats are computed in float32.
    """

    axis: int
    epsilon: float
    rms: bool = False
    name = "LayerNorm"
    summary = "layer or RMS normalisation over the trailing dimensions, optional scale and bias"

    def infer(self, inputs: InTypes) -> tuple[TensorType, ...]:
        x = need(inputs, 0, "data")
        if not 0 <= self.axis < x.rank or not x.dtype.is_float:
            raise ModelError(f"normalising from axis {self.axis} on needs floating-point data with such an axis, not {x}")
        for t in inputs[1:]:
            if t is not None and (not broadcasts_to(t.shape, x.shape[self.axis :]) or t.dtype != x.dtype):
                raise ModelError(f"scale or bias {t} does not fit the normalised dimensions {list(x.shape[self.axis :])} of {x}")
        return (TensorType(x.dtype, x.shape),)

    def evaluate(self, inputs: InArrays) -> tuple[Array, ...]:
        x = value(inputs, 0)
        wide = x.astype(np.float32) if x.dtype.itemsize < 4 else x
        over = tuple(range(self.axis, x.ndim))
        with np.errstate(all="ignore"):
            centred = wide if self.rms else wide - wide.mean(axis=over, keepdims=True)
            spread = np.square(centred).mean(axis=over, keepdims=True)
            y = centred / np.sqrt(spread + wide.dtype.type(self.epsilon))
        for i, apply in ((1, np.multiply), (2, np.add)):
            if len(inputs) > i and inputs[i] is not None:
                y = apply(y, value(inputs, i).astype(wide.dtype, copy=False))
        return (y.astype(x.dtype, copy=False),)

    def axes(self, inputs: InTypes) -> AxisMap:
        x = need(inputs, 0, "data")
        kinds = [DimKind.PARALLEL if i < self.axis else DimKind.NORMALISED for i in range(x.rank)]
        dims = tuple(Dim(f"d{i}", n, k) for i, (n, k) in enumerate(zip(x.shape, kinds, strict=True)))
        line: tuple[Access, ...] = tuple(Iter(d.name) for d in dims)

        def parameter(t: TensorType | None) -> tuple[Access, ...]:
            if t is None:
                return ()
            lead = x.rank - t.rank
            return tuple(line[i + lead] if n == x.shape[i + lead] else BROADCAST for i, n in enumerate(t.shape))

        return AxisMap(dims, (line, *(parameter(t) for t in inputs[1:])), (line,))


_ADD = Map(Program().then("add", Arg(0), Arg(1)))


def _normalise(ctx: ImportContext, node: OnnxNode, x: str, parameters: tuple[str, ...], *, axis: int, rms: bool) -> str:
    rank = ctx.type(x).rank
    if not -rank <= axis < rank:
        raise ModelError(f"axis {axis} is out of range for rank {rank}")
    while parameters and parameters[-1] == ABSENT:
        parameters = parameters[:-1]
    return ctx.emit(LayerNorm(axis % rank, float(node.attr("epsilon", 1e-5)), rms), x, *parameters)


@onnx_rule("LayerNormalization", becomes="LayerNorm", constraints="only the first output")
def _import_layer_norm(ctx: ImportContext, node: OnnxNode) -> str:
    return _normalise(ctx, node, node.inputs[0], node.inputs[1:3], axis=int(node.attr("axis", -1)), rms=False)


@onnx_rule("RMSNormalization", "SimplifiedLayerNormalization", becomes="LayerNorm", constraints="only the first output")
def _import_rms_norm(ctx: ImportContext, node: OnnxNode) -> str:
    return _normalise(ctx, node, node.inputs[0], node.inputs[1:2], axis=int(node.attr("axis", -1)), rms=True)


def _skip(ctx: ImportContext, node: OnnxNode, bias: int) -> str:
    total = ctx.emit(_ADD, node.inputs[0], node.inputs[1])
    return ctx.emit(_ADD, total, node.inputs[bias]) if node.has(bias) else total


@onnx_rule(
    "SkipLayerNormalization", domain="com.microsoft", becomes="Map, LayerNorm", constraints="only the first and fourth output"
)
def _import_skip_layer_norm(ctx: ImportContext, node: OnnxNode) -> tuple[str, ...]:
    total = _skip(ctx, node, 4)
    parameters = node.inputs[2:4]
    return _normalise(ctx, node, total, parameters, axis=-1, rms=False), ABSENT, ABSENT, total


@onnx_rule(
    "SkipSimplifiedLayerNormalization",
    domain="com.microsoft",
    becomes="Map, LayerNorm",
    constraints="only the first and fourth output",
)
def _import_skip_rms_norm(ctx: ImportContext, node: OnnxNode) -> tuple[str, ...]:
    total = _skip(ctx, node, 3)
    return _normalise(ctx, node, total, node.inputs[2:3], axis=-1, rms=True), ABSENT, ABSENT, total
