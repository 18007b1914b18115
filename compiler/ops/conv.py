"""Conv: N-D convolution with groups, strides, dilations and explicit padding, and an epilogue."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

import numpy as np

from sparsec.compiler.axes import Access, AxisMap, Dim, DimKind, Iter, Merged, Window
from sparsec.compiler.errors import ModelError
from sparsec.compiler.onnx_rules import ImportContext, OnnxNode, onnx_rule
from sparsec.compiler.ops.base import Array, InArrays, InTypes, Op, need, register, value
from sparsec.compiler.ops.epilogue import apply_epilogue, epilogue_access, epilogue_type
from sparsec.compiler.ops.integer import DATA, accumulator, centred, summed
from sparsec.compiler.ops.reshape import Reshape
from sparsec.compiler.ops.windows import auto_pads, window_extent
from sparsec.compiler.scalar import Arg, Program
from sparsec.compiler.types import TensorType


@register
@dataclass(frozen=True, slots=True)
class Conv(Op):
    """y[n, oc, p] = epilogue(sum over ic, k of x[n, ic, p * stride + k * dilation - pad] * w[oc, ic, k], *extras).

    Inputs: x [N, IC, *spatial], w [OC, IC / groups, *kernel], then the epilogue's operands, which broadcast to the output
    [N, OC, *out]. `pads` is (before of every spatial dim, then after of every spatial dim), as in ONNX. 8-bit x and int8 w sum
    (x - zero) * w in int32, and padding is x = zero. `wide`: x and w are bfloat16, and sums are float32. `terms`: how many
    products of a sum the model has (0: all), where a pass gave kernels another shape and zeros fill them up.
    """

    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    groups: int = 1
    epilogue: Program = field(default_factory=Program)
    zero: int = 0
    wide: bool = False
    terms: int = 0
    name = "Conv"
    summary = "convolution, 1 to 3 spatial dimensions, groups, strides, dilations, padding, fused epilogue"

    def infer(self, inputs: InTypes) -> tuple[TensorType, ...]:
        x, w = need(inputs, 0, "data"), need(inputs, 1, "weights")
        n = len(self.strides)
        if x.rank != n + 2 or w.rank != n + 2:
            raise ModelError(f"Conv with {n} spatial dimensions needs data and weights of rank {n + 2}, not {x} and {w}")
        if x.shape[1] != w.shape[1] * self.groups or w.shape[0] % self.groups:
            raise ModelError(f"Conv weights {w} do not fit {x.shape[1]} input channels in {self.groups} groups")
        if not 0 <= self.terms <= prod(w.shape[1:]):
            raise ModelError(f"Conv weights {w} do not have {self.terms} terms: expected {prod(w.shape[1:])} at most")
        dtype = accumulator(x, w, self.zero, "Conv", wide=self.wide)
        spatial = tuple(
            window_extent(x.shape[2 + i], w.shape[2 + i], self.strides[i], self.dilations[i], self.pads[i], self.pads[n + i])
            for i in range(n)
        )
        acc = TensorType(dtype, (x.shape[0], w.shape[0], *spatial))
        return (epilogue_type(self.epilogue, acc, inputs[2:]),)

    def evaluate(self, inputs: InArrays) -> tuple[Array, ...]:
        dtype = np.dtype(np.float32) if self.wide else value(inputs, 0).dtype
        x, w = centred(value(inputs, 0), value(inputs, 1), self.zero, wide=self.wide)
        n, g = len(self.strides), self.groups
        padded = np.pad(x, [(0, 0), (0, 0), *((self.pads[i], self.pads[n + i]) for i in range(n))])
        spans = [(w.shape[2 + i] - 1) * self.dilations[i] + 1 for i in range(n)]
        view = np.lib.stride_tricks.sliding_window_view(padded, spans, axis=tuple(range(2, 2 + n)))
        view = view[
            (
                slice(None),
                slice(None),
                *(slice(None, None, s) for s in self.strides),
                *(slice(None, None, d) for d in self.dilations),
            )
        ]
        out_spatial = view.shape[2 : 2 + n]
        k = prod(w.shape[2:])
        # [N, g, IC/g, P, K] -> per group a matrix product in the widest of the operands' types
        cols = view.reshape(x.shape[0], g, w.shape[1], prod(out_spatial), k)
        cols = cols.transpose(1, 0, 3, 2, 4).reshape(g, x.shape[0] * prod(out_spatial), w.shape[1] * k)
        weights = w.reshape(g, w.shape[0] // g, w.shape[1] * k)
        acc = summed(np.matmul(cols, weights.transpose(0, 2, 1)), dtype)  # [g, N*P, OC/g]
        acc = acc.reshape(g, x.shape[0], prod(out_spatial), w.shape[0] // g).transpose(1, 0, 3, 2)
        acc = np.ascontiguousarray(acc).reshape(x.shape[0], w.shape[0], *out_spatial)
        return (apply_epilogue(self.epilogue, acc, inputs[2:]),)

    def axes(self, inputs: InTypes) -> AxisMap:
        x, w, y = need(inputs, 0, "data"), need(inputs, 1, "weights"), self.infer(inputs)[0]
        n, g = len(self.strides), self.groups
        names = "DHW"[3 - n :]
        dims = [Dim("N", x.shape[0]), Dim("OC", y.shape[1] // g), Dim("IC", w.shape[1], DimKind.REDUCED)]
        if g > 1:
            dims.append(Dim("G", g))
        dims += [Dim(f"O{c}", y.shape[2 + i]) for i, c in enumerate(names)]
        dims += [Dim(f"K{c}", w.shape[2 + i], DimKind.REDUCED) for i, c in enumerate(names)]
        channel_in: Access = Merged(("G", "IC")) if g > 1 else Iter("IC")
        channel_out: Access = Merged(("G", "OC")) if g > 1 else Iter("OC")
        windows = tuple(Window(f"O{c}", f"K{c}", self.strides[i], self.dilations[i], self.pads[i]) for i, c in enumerate(names))
        out: tuple[Access, ...] = (Iter("N"), channel_out, *(Iter(f"O{c}") for c in names))
        return AxisMap(
            tuple(dims),
            (
                (Iter("N"), channel_in, *windows),
                (channel_out, Iter("IC"), *(Iter(f"K{c}") for c in names)),
                *epilogue_access(out, y.shape, inputs[2:]),
            ),
            (out,),
        )

    def macs(self, inputs: InTypes) -> int:
        return prod(self.infer(inputs)[0].shape) * (self.terms or prod(need(inputs, 1, "weights").shape[1:]))

    def workspace(self, inputs: InTypes) -> int:
        """The padded data, and every window's elements side by side."""
        x, w, n = need(inputs, 0, "data"), need(inputs, 1, "weights"), len(self.strides)
        padded = prod(x.shape[:2]) * prod(x.shape[2 + i] + self.pads[i] + self.pads[n + i] for i in range(n))
        windows = prod(self.infer(inputs)[0].shape[2:]) * x.shape[0] * x.shape[1] * prod(w.shape[2:])
        return (padded + windows) * (8 if x.dtype in DATA else 4 if self.wide else x.dtype.itemsize)


@onnx_rule("Conv", becomes="Conv", constraints="1 to 3 spatial dimensions; weights may be computed")
def import_conv(ctx: ImportContext, node: OnnxNode) -> str:
    """Conv with its bias, where there is one, in the epilogue."""
    x, w = node.inputs[0], node.inputs[1]
    shape, kernel = ctx.type(x).shape, list(ctx.type(w).shape[2:])
    n = len(kernel)
    if not 1 <= n <= 3:
        raise node.refuse(f"a convolution with {n} spatial dimensions is not supported: 1 to 3 are")
    strides, dilations = node.attr("strides", [1] * n), node.attr("dilations", [1] * n)
    pads = auto_pads(node.attr("auto_pad", "NOTSET"), list(shape[2:]), kernel, strides, dilations, node.attr("pads", [0] * 2 * n))
    inputs, epilogue = [x, w], Program()
    if node.has(2):
        bias = ctx.emit(Reshape((ctx.type(node.inputs[2]).elements, *[1] * n)), node.inputs[2])
        inputs.append(bias)
        epilogue = Program().then("add", Arg(0), Arg(1))
    return ctx.emit(Conv(tuple(strides), tuple(dilations), tuple(pads), node.attr("group", 1), epilogue), *inputs)
