"""Convolutions of bytes as graphs of the IR: a layer of a quantised network by itself, or some that follow one another, for tests
and benchmarks of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparsec.compiler.dtypes import DType
from sparsec.compiler.graph import Graph, Node, Port
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.scalar import Program
from sparsec.compiler.types import TensorType


@dataclass(frozen=True, slots=True)
class ByteConv:
    """A convolution of a chain: which value it reads, by number (0 is the input, n the result of the n-th convolution), its
    channels, square kernel, and the number of the value that is added to it."""

    x: int
    channels: int
    kernel: int = 1
    stride: int = 1
    residual: int | None = None


def chain_graph(
    rng: np.random.Generator,
    channels: int,
    size: tuple[int, int],
    convs: Sequence[ByteConv],
    outputs: Sequence[int] = (),
    *,
    shift: int = 12,
    density: float = 1.0,
    of_four: int = 4,
) -> Graph:
    """Convolutions of uint8 that read each other's results. Outputs are the last result and those with numbers in `outputs`.
    Weights are as those of `conv_graph`."""
    values: list[TensorType] = [TensorType(DType.U8, (1, channels, *size))]
    nodes: list[Node] = []
    types, constants = {"v0": values[0]}, dict[str, np.ndarray]()
    for i, conv in enumerate(convs, 1):
        x = values[conv.x]
        w = _largest(_weights(rng, (conv.channels, x.shape[1], conv.kernel, conv.kernel), density), of_four)
        names = [f"v{conv.x}", f"w{i}", f"b{i}", *([f"v{conv.residual}"] if conv.residual is not None else [])]
        constants |= {f"w{i}": w, f"b{i}": rng.integers(-4000, 4000, (conv.channels, 1, 1)).astype(np.int32)}
        pad = conv.kernel // 2
        program = _program(shift, (0, 0, 0), shift - 1 if conv.residual is not None else None)
        op = Conv((conv.stride, conv.stride), (1, 1), (pad, pad, pad, pad), 1, program, 0)
        out = [(d + 2 * pad - conv.kernel) // conv.stride + 1 for d in x.shape[2:]]
        values.append(TensorType(DType.U8, (1, conv.channels, *out)))
        types |= {
            f"v{i}": values[-1],
            f"w{i}": TensorType(DType.I8, w.shape),
            f"b{i}": TensorType(DType.I32, (conv.channels, 1, 1)),
        }
        nodes.append(Node(f"conv{i}", op, tuple(names), (f"v{i}",), (f"conv{i}",)))
    ports = tuple(Port(f"v{i}", f"v{i}") for i in dict.fromkeys((*outputs, len(convs))))
    return Graph("chain", ("v0",), ports, tuple(nodes), types, constants)


def bottlenecks(channels: int, inner: int, blocks: int) -> list[ByteConv]:
    """ResNet's blocks: 1x1 to `inner` channels, 3x3, 1x1 back to `channels`, to which the block's input is added."""
    found: list[ByteConv] = []
    for _ in range(blocks):
        n = len(found)
        found += [ByteConv(n, inner), ByteConv(n + 1, inner, 3), ByteConv(n + 2, channels, residual=n)]
    return found


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
    of_four: int = 4,
) -> Graph:
    """One convolution of uint8 with uint8 results. `zeros` are the zero points of data, residual and result; of the 8 x 8 blocks
    of weights that make 8 channels, a share of `density` is not zero, and of every four consecutive input channels `of_four`, the
    largest."""
    ic, oc = channels
    w = _largest(_weights(rng, (oc, 1 if depthwise else ic, *kernel), density), of_four)
    bias = rng.integers(-4000, 4000, (oc, 1, 1)).astype(np.int32)
    program = _program(shift, zeros, residual_shift if residual else None)
    op = Conv((stride, stride), (1, 1), pads, ic if depthwise else 1, program, zeros[0])
    x = TensorType(DType.U8, (1, ic, *size))
    wt, bt = TensorType(DType.I8, w.shape), TensorType(DType.I32, bias.shape)
    out = [(d + pads[i] + pads[2 + i] - kernel[i]) // stride + 1 for i, d in enumerate(size)]
    y = TensorType(DType.U8, (1, oc, *out))
    types = {"x": x, "w": wt, "b": bt, "y": y} | ({"r": y} if residual else {})
    inputs = ("x", "r") if residual else ("x",)
    node = Node("conv", op, ("x", "w", "b", *inputs[1:]), ("y",), ("conv",))
    return Graph("layer", inputs, (Port("y", "y"),), (node,), types, {"w": w, "b": bias})


def _weights(rng: np.random.Generator, shape: tuple[int, ...], density: float) -> np.ndarray:
    """int8 [oc, ic, rows, columns], of whose 8 x 8 blocks a share is not zero."""
    oc, ic = shape[:2]
    w = np.clip(np.rint(rng.normal(0, 40, shape)), -127, 127).astype(np.int8)
    if density < 1:
        blocks = -(-ic // 8)
        kept = max(1, round(density * blocks))
        keep = np.argsort(rng.random((-(-oc // 8), blocks)), axis=1) < kept
        w *= np.kron(keep, np.ones((8, 8), np.int8))[:oc, :ic, None, None].astype(np.int8)
    return w


def _largest(w: np.ndarray, kept: int) -> np.ndarray:
    """Of every four input channels of weights [oc, ic, rows, columns] so many, the rest zeros."""
    if kept >= 4:
        return w
    oc, ic, *kernel = w.shape
    groups = np.zeros((oc, -(-ic // 4) * 4, *kernel), np.int16)
    groups[:, :ic] = abs(w.astype(np.int16))
    places = np.argsort(np.argsort(-groups.reshape(oc, -1, 4, *kernel), axis=2, kind="stable"), axis=2)
    keep = (places < kept).reshape(groups.shape)[:, :ic]
    return np.where(keep, w, 0).astype(np.int8)


def _program(shift: int, zeros: tuple[int, int, int], residual_shift: int | None) -> Program:
    """What makes bytes of sums: the bias, maybe a residual, a shift, and the bounds of bytes."""
    text = f"add(a0,a1);cast.f32(t0);mul(t1,{2.0**-shift!r});"
    n = 2
    if residual_shift is not None:
        text += f"cast.f32(a2);sub(t3,{float(zeros[1])!r});mul(t4,{2.0 ** (residual_shift - shift)!r});add(t2,t5);"
        n = 6
    text += f"round(t{n});add(t{n + 1},{float(zeros[2])!r});relu(t{n + 2});min(t{n + 3},255.0);cast.u8(t{n + 4})"
    return Program.parse(text)
