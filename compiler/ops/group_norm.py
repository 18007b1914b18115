"""GroupNorm: every group of channels of every image normalised by its own statistics. Instance norm has a group a channel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsec.compiler.axes import Access, AxisMap, Dim, DimKind, Iter, Merged
from sparsec.compiler.errors import ModelError
from sparsec.compiler.onnx_rules import ImportContext, OnnxNode, onnx_rule
from sparsec.compiler.ops.base import Array, InArrays, InTypes, Op, need, register, value
from sparsec.compiler.types import TensorType


@register
@dataclass(frozen=True, slots=True)
class GroupNorm(Op):
    """y = (x - mean) / sqrt(variance + epsilon) * scale + bias, statistics over each group's channels and all positions.

    Inputs: x [N, C, *spatial], scale [C], bias [C]. The result has the type of x; statistics are at least float32.
    """

    groups: int
    epsilon: float
    name = "GroupNorm"
    summary = "group and instance normalisation, a scale and a bias a channel"

    def infer(self, inputs: InTypes) -> tuple[TensorType, ...]:
        x = need(inputs, 0, "data")
        if x.rank < 2 or not x.dtype.is_float or self.groups < 1 or x.shape[1] % self.groups:
            raise ModelError(f"normalisation in {self.groups} groups does not fit the channels of {x}")
        for i, what in ((1, "scale"), (2, "bias")):
            if need(inputs, i, what).shape != (x.shape[1],):
                raise ModelError(f"the {what} is {need(inputs, i, what)}, expected [{x.shape[1]}], the channels of {x}")
        return (TensorType(x.dtype, x.shape),)

    def evaluate(self, inputs: InArrays) -> tuple[Array, ...]:
        x, scale, bias = (value(inputs, i) for i in range(3))
        wide = np.result_type(x.dtype, np.float32)
        grouped = x.astype(wide).reshape(x.shape[0], self.groups, -1)
        centred = grouped - grouped.mean(axis=2, keepdims=True)
        variance = np.mean(centred * centred, axis=2, keepdims=True)
        y = (centred / np.sqrt(variance + wide.type(self.epsilon))).reshape(x.shape)
        column = (-1, *[1] * (x.ndim - 2))
        return ((y * scale.reshape(column) + bias.reshape(column)).astype(x.dtype, copy=False),)

    def axes(self, inputs: InTypes) -> AxisMap:
        x = need(inputs, 0, "data")
        size = x.shape[1] // self.groups
        positions = tuple(Dim(f"d{i}", n, DimKind.NORMALISED) for i, n in enumerate(x.shape) if i > 1)
        dims = (Dim("N", x.shape[0]), Dim("G", self.groups), Dim("C", size, DimKind.NORMALISED), *positions)
        channel: Access = Iter("G") if size == 1 else Iter("C") if self.groups == 1 else Merged(("G", "C"))
        line: tuple[Access, ...] = (Iter("N"), channel, *(Iter(d.name) for d in positions))
        return AxisMap(dims, (line, (channel,), (channel,)), (line,))


@onnx_rule("InstanceNormalization", becomes="GroupNorm")
def _import_instance_norm(ctx: ImportContext, node: OnnxNode) -> str:
    channels = ctx.type(node.inputs[0]).shape[1]
    return ctx.emit(GroupNorm(channels, float(node.attr("epsilon", 1e-5))), *node.inputs[:3])


@onnx_rule("GroupNormalization", becomes="GroupNorm", constraints="before opset 21: scale and bias constant")
def _import_group_norm(ctx: ImportContext, node: OnnxNode) -> str:
    return ctx.emit(GroupNorm(int(node.attr("num_groups")), float(node.attr("epsilon", 1e-5))), *node.inputs[:3])
