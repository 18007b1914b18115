"""ConvTranspose: the gradient of a convolution with respect to its input, as a layer of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from sparsec.compiler.axes import FIXED, Access, AxisMap, Dim, DimKind, Iter, Merged
from sparsec.compiler.errors import ModelError
from sparsec.compiler.onnx_rules import ImportContext, OnnxNode, onnx_rule
from sparsec.compiler.ops.base import Array, InArrays, InTypes, Op, need, register, value
from sparsec.compiler.ops.epilogue import apply_epilogue, epilogue_access, epilogue_type
from sparsec.compiler.ops.reshape import Reshape
from sparsec.compiler.scalar import Arg, Program
from sparsec.compiler.types import TensorType


@register
@dataclass(frozen=True, slots=True)
class ConvTranspose(Op):
    """y[n, oc, i * stride + k * dilation - pad] += x[n, ic, i] * w[ic, oc, k], then epilogue(y, *extras).

    Inputs: x [N, IC, *spatial], w [IC, OC / groups, *kernel], then the epilogue's operands. The extent of an output dimension is
    (in - 1) * stride + (kernel - 1) * dilation + 1 - pad_before - pad_after + output_padding.
    """

    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    output_padding: tuple[int, ...]
    groups: int = 1
    epilogue: Program = field(default_factory=Program)
    name = "ConvTranspose"
    summary = "transposed convolution, 1 to 3 spatial dimensions, groups, strides, dilations, padding, fused epilogue"

    def _spatial(self, x: TensorType, w: TensorType) -> tuple[int, ...]:
        n = len(self.strides)
        return tuple(
            (x.shape[2 + i] - 1) * self.strides[i]
            + (w.shape[2 + i] - 1) * self.dilations[i]
            + 1
            + self.output_padding[i]
            - self.pads[i]
            - self.pads[n + i]
            for i in range(n)
        )

    def infer(self, inputs: InTypes) -> tuple[TensorType, ...]:
        x, w = need(inputs, 0, "data"), need(inputs, 1, "weights")
        n = len(self.strides)
        if x.rank != n + 2 or w.rank != n + 2 or x.dtype != w.dtype:
            raise ModelError(
                f"a transposed convolution over {n} dimensions needs data and weights of rank {n + 2}, not {x} and {w}"
            )
        lengths = (len(self.dilations), len(self.pads), len(self.output_padding))
        if lengths != (n, 2 * n, n) or any(s < 1 for s in (*self.strides, *self.dilations, *w.shape)):
            raise ModelError(f"strides {self.strides}, dilations {self.dilations}, pads {self.pads} do not fit weights {w}")
        if self.groups < 1 or x.shape[1] != w.shape[0] or x.shape[1] % self.groups:
            raise ModelError(f"ConvTranspose weights {w} do not fit {x.shape[1]} input channels in {self.groups} groups")
        spatial = self._spatial(x, w)
        if any(d < 1 for d in spatial) or any(p < 0 for p in (*self.pads, *self.output_padding)):
            raise ModelError(f"pads {list(self.pads)} leave an output of {list(spatial)} from {x} and weights {w}")
        acc = TensorType(x.dtype, (x.shape[0], w.shape[1] * self.groups, *spatial))
        return (epilogue_type(self.epilogue, acc, inputs[2:]),)

    def evaluate(self, inputs: InArrays) -> tuple[Array, ...]:
        x, w = value(inputs, 0), value(inputs, 1)
        n, g = len(self.strides), self.groups
        kernel, size, batch = w.shape[2:], x.shape[2:], x.shape[0]
        columns = x.reshape(batch, g, x.shape[1] // g, prod(size))
        weights = w.reshape(g, w.shape[0] // g, w.shape[1], *kernel)
        full = [(size[i] - 1) * self.strides[i] + (kernel[i] - 1) * self.dilations[i] + 1 for i in range(n)]
        grown = [full[i] + self.output_padding[i] for i in range(n)]
        out = np.zeros((batch, g, w.shape[1], *grown), x.dtype)
        for k in np.ndindex(*kernel):
            part = np.matmul(weights[(..., *k)].transpose(0, 2, 1), columns)  # [N, g, OC/g, P]
            at: tuple[Any, ...] = (
                ...,
                *[slice(k[i] * d, k[i] * d + (size[i] - 1) * s + 1, s) for i, (s, d) in enumerate(self._steps())],
            )
            out[at] += part.reshape(batch, g, w.shape[1], *size)
        cut: tuple[Any, ...] = (..., *[slice(self.pads[i], grown[i] - self.pads[n + i]) for i in range(n)])
        acc = np.ascontiguousarray(out[cut])
        return (apply_epilogue(self.epilogue, acc.reshape(batch, -1, *acc.shape[3:]), inputs[2:]),)

    def _steps(self) -> list[tuple[int, int]]:
        return list(zip(self.strides, self.dilations, strict=True))

    def axes(self, inputs: InTypes) -> AxisMap:
        x, w, y = need(inputs, 0, "data"), need(inputs, 1, "weights"), self.infer(inputs)[0]
        n, g = len(self.strides), self.groups
        dims = [Dim("N", x.shape[0]), Dim("OC", w.shape[1]), Dim("IC", x.shape[1] // g, DimKind.REDUCED)]
        if g > 1:
            dims.append(Dim("G", g))
        channel_in: Access = Merged(("G", "IC")) if g > 1 else Iter("IC")
        channel_out: Access = Merged(("G", "OC")) if g > 1 else Iter("OC")
        out: tuple[Access, ...] = (Iter("N"), channel_out, *[FIXED] * n)
        operands = ((Iter("N"), channel_in, *[FIXED] * n), (channel_in, Iter("OC"), *[FIXED] * n))
        return AxisMap(tuple(dims), (*operands, *epilogue_access(out, y.shape, inputs[2:])), (out,))

    def macs(self, inputs: InTypes) -> int:
        return need(inputs, 0, "data").elements * prod(need(inputs, 1, "weights").shape[1:])

    def workspace(self, inputs: InTypes) -> int:
        """The result before `pads` are cut off."""
        x, w, n = need(inputs, 0, "data"), need(inputs, 1, "weights"), len(self.strides)
        cut = [self.pads[i] + self.pads[n + i] for i in range(n)]
        grown = [d + c for d, c in zip(self._spatial(x, w), cut, strict=True)]
        return x.shape[0] * w.shape[1] * self.groups * prod(grown) * x.dtype.itemsize


def _placement(
    node: OnnxNode, size: list[int], kernel: list[int], strides: list[int], dilations: list[int]
) -> tuple[list[int], list[int]]:
    """(pads, output_padding) with `auto_pad` and `output_shape` resolved.

    A wanted shape gives the total padding; its odd element goes after the data for SAME_UPPER, else before. A wanted shape that
    needs less than no padding is met by output padding.
    """
    n, mode = len(kernel), node.attr("auto_pad", "NOTSET")
    extra, wanted = list(node.attr("output_padding", [0] * n)), node.attr("output_shape")
    if mode not in ("", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise ModelError(f"auto_pad {mode!r} is not one of NOTSET, VALID, SAME_UPPER, SAME_LOWER")
    if not wanted:
        if not mode.startswith("SAME"):
            return [0] * 2 * n if mode == "VALID" else list(node.attr("pads", [0] * 2 * n)), extra
        wanted = [i * s for i, s in zip(size, strides, strict=True)]
    before, after = [], []
    for i, target in enumerate(wanted[-n:]):
        total = (size[i] - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1 + extra[i] - target
        extra[i] += max(-total, 0)
        half = max(total, 0) // 2
        before.append(half if mode == "SAME_UPPER" else max(total, 0) - half)
        after.append(max(total, 0) - before[-1])
    return before + after, extra


@onnx_rule("ConvTranspose", becomes="ConvTranspose", constraints="1 to 3 spatial dimensions")
def _import_conv_transpose(ctx: ImportContext, node: OnnxNode) -> str:
    x, w = ctx.type(node.inputs[0]), ctx.type(node.inputs[1])
    n = w.rank - 2
    if not 1 <= n <= 3:
        raise node.refuse(f"a transposed convolution with {n} spatial dimensions is not supported: 1 to 3 are")
    strides, dilations = list(node.attr("strides", [1] * n)), list(node.attr("dilations", [1] * n))
    pads, extra = _placement(node, list(x.shape[2:]), list(w.shape[2:]), strides, dilations)
    inputs, epilogue = list(node.inputs[:2]), Program()
    if node.has(2):
        inputs.append(ctx.emit(Reshape((ctx.type(node.inputs[2]).elements, *[1] * n)), node.inputs[2]))
        epilogue = Program().then("add", Arg(0), Arg(1))
    op = ConvTranspose(tuple(strides), tuple(dilations), tuple(pads), tuple(extra), node.attr("group", 1), epilogue)
    return ctx.emit(op, *inputs)
