"""BatchNorm in inference form. A pass folds it into the convolution before or after it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsec.compiler.axes import Access, AxisMap, Dim, Iter
from sparsec.compiler.errors import ModelError
from sparsec.compiler.onnx_rules import ImportContext, OnnxNode, onnx_rule
from sparsec.compiler.ops.base import Array, InArrays, InTypes, Op, need, register, value
from sparsec.compiler.types import TensorType


@register
@dataclass(frozen=True, slots=True)
class BatchNorm(Op):
    """y = (x - mean) / sqrt(var + epsilon) * scale + bias, channel-wise.

    Inputs: x [N, C, *spatial], then scale, bias, mean and var, each [C]. The result has the type of x.
    """

    epsilon: float
    name = "BatchNorm"
    summary = "batch normalisation with the statistics given (inference)"

    def infer(self, inputs: InTypes) -> tuple[TensorType, ...]:
        x = need(inputs, 0, "data")
        if x.rank < 2:
            raise ModelError(f"batch normalisation needs data of rank 2 or more, not {x}")
        for i, what in enumerate(("scale", "bias", "mean", "variance"), 1):
            if need(inputs, i, what).shape != (x.shape[1],):
                raise ModelError(f"the {what} is {need(inputs, i, what)}, expected [{x.shape[1]}], the channels of {x}")
        return (TensorType(x.dtype, x.shape),)

    def evaluate(self, inputs: InArrays) -> tuple[Array, ...]:
        x = value(inputs, 0)
        column = (-1, *[1] * (x.ndim - 2))
        scale, bias, mean, var = (value(inputs, i).reshape(column) for i in range(1, 5))
        y = (x - mean) / np.sqrt(var + var.dtype.type(self.epsilon)) * scale + bias
        return (y.astype(x.dtype, copy=False),)

    def axes(self, inputs: InTypes) -> AxisMap:
        x = need(inputs, 0, "data")
        names = ["N", "C", *(f"d{i}" for i in range(2, x.rank))]
        dims = tuple(Dim(n, e) for n, e in zip(names, x.shape, strict=True))
        line: tuple[Access, ...] = tuple(Iter(n) for n in names)
        return AxisMap(dims, (line, *((Iter("C"),),) * 4), (line,))


@onnx_rule("BatchNormalization", becomes="BatchNorm", constraints="inference only")
def _import_batch_norm(ctx: ImportContext, node: OnnxNode) -> str:
    if node.attr("training_mode", 0):
        raise node.refuse("it has training_mode set: export the model for inference")
    if any(node.outputs[1:]):
        raise node.refuse(f"its output {node.outputs[1]!r} exists in training only: export the model for inference")
    return ctx.emit(BatchNorm(float(node.attr("epsilon", 1e-5))), *node.inputs[:5])
