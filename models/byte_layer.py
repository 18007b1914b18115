"""One convolution of bytes as a graph of the IR: a layer of a quantised network by itself, for tests and benchmarks of arrays."""

from __future__ import annotations

import numpy as np

from sparsec.compiler.dtypes import DType
from sparsec.compiler.graph import Graph, Node, Port
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.scalar import Program
from sparsec.compiler.types import TensorType


def conv_graph(
    rng: np.random.Generator,
    channels: tuple[int, int],
    size: tuple[int, int],
    kernel: tuple[int, int] = (1, 1),
    *,
    stride: int = 1,
    pads: tuple[int, int, int, int] = (0, 0, 0, 0),
    depthwise: bool = False,
    residual: bool = False,
    zeros: tuple[int, int, int] = (0, 0, 0),
    shift: int = 10,
    residual_shift: int = 6,
    density: float = 1.0,
) -> Graph:
    """One convolution of uint8 with uint8 results. `zeros` are the zero points of data, residual and result; of the 8 x 8 blocks
    of weights that make 8 channels, a share of `density` is not zero."""
    ic, oc = channels
    w = np.clip(np.rint(rng.normal(0, 40, (oc, 1 if depthwise else ic, *kernel))), -127, 127).astype(np.int8)
    if density < 1:
        blocks = -(-ic // 8)
        kept = max(1, round(density * blocks))
        keep = np.argsort(rng.random((-(-oc // 8), blocks)), axis=1) < kept
        w *= np.kron(keep, np.ones((8, 8), np.int8))[:oc, :ic, None, None].astype(np.int8)
    bias = rng.integers(-4000, 4000, (oc, 1, 1)).astype(np.int32)
    scale, ratio = 2.0**-shift, 2.0 ** (residual_shift - shift)
    text = f"add(a0,a1);cast.f32(t0);mul(t1,{scale!r});"
    n = 2
    if residual:
        text += f"cast.f32(a2);sub(t3,{float(zeros[1])!r});mul(t4,{ratio!r});add(t2,t5);"
        n = 6
    text += f"round(t{n});add(t{n + 1},{float(zeros[2])!r});relu(t{n + 2});min(t{n + 3},255.0);cast.u8(t{n + 4})"
    op = Conv((stride, stride), (1, 1), pads, ic if depthwise else 1, Program.parse(text), zeros[0])
    x = TensorType(DType.U8, (1, ic, *size))
    wt, bt = TensorType(DType.I8, w.shape), TensorType(DType.I32, bias.shape)
    out = [(d + pads[i] + pads[2 + i] - kernel[i]) // stride + 1 for i, d in enumerate(size)]
    y = TensorType(DType.U8, (1, oc, *out))
    types = {"x": x, "w": wt, "b": bt, "y": y} | ({"r": y} if residual else {})
    inputs = ("x", "r") if residual else ("x",)
    node = Node("conv", op, ("x", "w", "b", *inputs[1:]), ("y",), ("conv",))
    return Graph("layer", inputs, (Port("y", "y"),), (node,), types, {"w": w, "b": bias})
