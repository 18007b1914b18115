"""Pool: maximum, mean or Lp norm over sliding windows."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from sparsec.compiler.axes import Access, AxisMap, Dim, DimKind, Iter, Window
from sparsec.compiler.errors import ModelError
from sparsec.compiler.onnx_rules import ImportContext, OnnxNode, onnx_rule
from sparsec.compiler.ops.base import Array, InArrays, InTypes, Op, need, register, value
from sparsec.compiler.ops.windows import auto_pads, window_extent
from sparsec.compiler.types import TensorType


@register
@dataclass(frozen=True, slots=True)
class Pool(Op):
    """y[n, c, p] = kind over k of x[n, c, p * stride + k * dilation - pad].

    Data [N, C, *spatial], 1 to 3 spatial dimensions. `kind` is max, avg or lp (the `p`-norm). Padding never wins a maximum
    and adds nothing to a sum; a mean divides by the positions inside the data, or with `include_pad` inside the data and the
    explicit padding. With `ceil` a last window may reach beyond the padding: positions there count in neither case.
    """

    kind: str
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    ceil: bool = False
    include_pad: bool = False
    p: int = 2
    name = "Pool"
    summary = "max, average or Lp pooling, 1 to 3 spatial dimensions, dilations, padding, ceil mode"

    def infer(self, inputs: InTypes) -> tuple[TensorType, ...]:
        x, n = need(inputs, 0, "data"), len(self.kernel)
        if x.rank != n + 2:
            raise ModelError(f"a pool with {n} spatial dimensions needs data of rank {n + 2}, not {x}")
        if self.kind != "max" and not x.dtype.is_float:
            raise ModelError(f"{self.kind} pooling needs floating-point data, not {x}")
        if (len(self.strides), len(self.dilations), len(self.pads)) != (n, n, 2 * n) or any(k < 1 for k in self.kernel):
            raise ModelError(
                f"strides {self.strides}, dilations {self.dilations}, pads {self.pads} do not fit kernel {self.kernel}"
            )
        spans = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]
        if any(not 0 <= p < span for p, span in zip(self.pads, spans * 2, strict=True)):
            raise ModelError(f"pads {list(self.pads)} must be from 0 to one less than the windows' extents {spans}")
        return (TensorType(x.dtype, (*x.shape[:2], *(self._extent(i, x.shape[2 + i]) for i in range(n)))),)

    def _extent(self, i: int, extent: int) -> int:
        before, after = self.pads[i], self.pads[len(self.kernel) + i]
        return window_extent(extent, self.kernel[i], self.strides[i], self.dilations[i], before, after, ceil=self.ceil)

    def windows(self, x: Array, fill: float, pad: float | None = None) -> Array:
        """View [N, C, *out, *kernel] of `x` padded with `pad` (default `fill`), and beyond the explicit padding with `fill`."""
        n = len(self.kernel)
        both = [(self.pads[i], self.pads[n + i]) for i in range(n)]
        out = [self._extent(i, x.shape[2 + i]) for i in range(n)]
        spans = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]
        beyond = [
            max((out[i] - 1) * self.strides[i] + spans[i] - x.shape[2 + i] - self.pads[i] - self.pads[n + i], 0) for i in range(n)
        ]
        padded = np.pad(x, [(0, 0), (0, 0), *both], constant_values=fill if pad is None else pad)
        padded = np.pad(padded, [(0, 0), (0, 0), *((0, e) for e in beyond)], constant_values=fill)
        view = np.lib.stride_tricks.sliding_window_view(padded, spans, axis=tuple(range(2, 2 + n)))
        steps = [slice(0, (o - 1) * s + 1, s) for o, s in zip(out, self.strides, strict=True)]
        return view[(slice(None), slice(None), *steps, *(slice(None, None, d) for d in self.dilations))]

    def evaluate(self, inputs: InArrays) -> tuple[Array, ...]:
        x, n = value(inputs, 0), len(self.kernel)
        window = tuple(range(-n, 0))
        if self.kind == "max":
            lowest = np.iinfo(x.dtype).min if x.dtype.kind in "iu" else -np.inf
            return (self.windows(x, lowest).max(axis=window),)
        if self.kind == "lp":
            total = (np.abs(self.windows(x, 0)) ** x.dtype.type(self.p)).sum(axis=window)
            return ((total ** x.dtype.type(1 / self.p)).astype(x.dtype, copy=False),)
        return ((self.windows(x, 0).sum(axis=window) / self.counts(x)).astype(x.dtype, copy=False),)

    def counts(self, x: Array) -> Array:
        """What a mean of every window of `x` divides by, [1, 1, *out]."""
        ones = np.ones((1, 1, *x.shape[2:]), x.dtype)
        return np.asarray(self.windows(ones, 0, 1.0 if self.include_pad else 0.0).sum(axis=tuple(range(-len(self.kernel), 0))))

    def axes(self, inputs: InTypes) -> AxisMap:
        x, y, n = need(inputs, 0, "data"), self.infer(inputs)[0], len(self.kernel)
        names = "DHW"[3 - n :]
        dims = (
            Dim("N", x.shape[0]),
            Dim("C", x.shape[1]),
            *(Dim(f"O{c}", y.shape[2 + i]) for i, c in enumerate(names)),
            *(Dim(f"K{c}", self.kernel[i], DimKind.REDUCED) for i, c in enumerate(names)),
        )
        windows = tuple(Window(f"O{c}", f"K{c}", self.strides[i], self.dilations[i], self.pads[i]) for i, c in enumerate(names))
        out: tuple[Access, ...] = (Iter("N"), Iter("C"), *(Iter(f"O{c}") for c in names))
        return AxisMap(dims, ((Iter("N"), Iter("C"), *windows),), (out,))

    def macs(self, inputs: InTypes) -> int:
        return 0 if self.kind == "max" else prod(self.infer(inputs)[0].shape) * prod(self.kernel)

    def workspace(self, inputs: InTypes) -> int:
        """The padded data, as far as the last window reaches."""
        x, out, n = need(inputs, 0, "data"), self.infer(inputs)[0].shape[2:], len(self.kernel)
        spans = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]
        reach = [(o - 1) * s + span for o, s, span in zip(out, self.strides, spans, strict=True)]
        padded = [x.shape[2 + i] + self.pads[i] + self.pads[n + i] for i in range(n)]
        return prod(x.shape[:2]) * prod(map(max, reach, padded)) * x.dtype.itemsize


_KINDS = {"MaxPool": "max", "AveragePool": "avg", "LpPool": "lp"}


@onnx_rule("AveragePool", "LpPool", becomes="Pool", constraints="1 to 3 spatial dimensions")
@onnx_rule("MaxPool", becomes="Pool", constraints="1 to 3 spatial dimensions; nothing reads Indices")
def _import_pool(ctx: ImportContext, node: OnnxNode) -> str:
    if any(node.outputs[1:]):
        raise node.refuse(f"its output {node.outputs[1]!r} (Indices) is not supported")
    x, kernel = ctx.type(node.inputs[0]), [int(k) for k in node.attr("kernel_shape")]
    n = len(kernel)
    if not 1 <= n <= 3:
        raise node.refuse(f"a pool with {n} spatial dimensions is not supported: 1 to 3 are")
    strides, dilations = node.attr("strides", [1] * n), node.attr("dilations", [1] * n)
    mode = node.attr("auto_pad", "NOTSET")
    pads = auto_pads(mode, list(x.shape[2:]), kernel, strides, dilations, node.attr("pads", [0] * 2 * n))
    op = Pool(
        _KINDS[node.op_type],
        tuple(kernel),
        tuple(strides),
        tuple(dilations),
        tuple(pads),
        bool(node.attr("ceil_mode", 0)) and mode in ("", "NOTSET"),
        bool(node.attr("count_include_pad", 0)) and node.op_type == "AveragePool",
        int(node.attr("p", 2)) if node.op_type == "LpPool" else 2,
    )
    return ctx.emit(op, node.inputs[0])
