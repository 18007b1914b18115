"""Products of bfloat16 as graphs of one node, of whole or of real numbers, and what runs them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from sparsec.backends.aie.program import ArrayProgram
from sparsec.backends.aie.simulate.model import ModelRun
from sparsec.compiler.dtypes import DType
from sparsec.compiler.graph import Graph, Node, Port
from sparsec.compiler.interpreter import interpret
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.ops.pool import Pool
from sparsec.compiler.scalar import Program
from sparsec.compiler.types import TensorType
from tests.backends.aie.networks import compile_for, run_emitted

Array = np.ndarray[Any, Any]
BF16 = DType.BF16.numpy


def numbers(rng: np.random.Generator, shape: tuple[int, ...], whole: bool) -> Array:
    """bfloat16: small whole numbers, whose sums of products float32 holds exactly in any order, or normal ones."""
    return (rng.integers(-9, 10, shape) if whole else rng.normal(0, 1, shape)).astype(BF16)


def epilogue(residual: bool, cut: str) -> Program:
    """Bias, residual, `cut` (steps that read t-1, with semicolons), rounding."""
    text = "add(a0,a1)" + (";cast.f32(a2);add(t0,t1)" if residual else "")
    for step in filter(None, cut.split(";")):
        text += ";" + step.replace("t-1", f"t{text.count(';')}")
    return Program.parse(f"{text};cast.bf16(t{text.count(';')})")


def _sparse(rng: np.random.Generator, w: Array, density: float) -> Array:
    """[OC, IC, ...] of whose blocks of 8 x 8 channels, the same for all taps, a share is not zero."""
    keep = rng.random((-(-w.shape[0] // 8), -(-w.shape[1] // 8))) < density
    mask = np.kron(keep, np.ones((8, 8)))[: w.shape[0], : w.shape[1]]
    return (w.astype(np.float32) * mask.reshape(*mask.shape, *[1] * (w.ndim - 2))).astype(BF16)


def convolution(
    rng: np.random.Generator,
    channels: tuple[int, int],
    size: tuple[int, int],
    kernel: tuple[int, int] = (1, 1),
    *,
    stride: int = 1,
    pads: tuple[int, int, int, int] = (0, 0, 0, 0),
    residual: bool = False,
    cut: str = "",
    density: float = 1.0,
    whole: bool = True,
    depthwise: bool = False,
) -> Graph:
    """A convolution with a bias, and what else is asked for. A depthwise one has as many channels as it reads."""
    ic, oc = channels if not depthwise else (channels[0], channels[0])
    w = _sparse(rng, numbers(rng, (oc, 1 if depthwise else ic, *kernel), whole), density)
    bias = numbers(rng, (oc, 1, 1), whole).astype(np.float32)
    op = Conv((stride, stride), (1, 1), pads, ic if depthwise else 1, epilogue(residual, cut), wide=True)
    out = tuple((d + pads[i] + pads[2 + i] - kernel[i]) // stride + 1 for i, d in enumerate(size))
    return _graph(op, (1, ic, *size), w, bias, (1, oc, *out), residual)


def maximum(shape: tuple[int, int, int, int], kernel: tuple[int, int], stride: int, pads: tuple[int, int, int, int]) -> Graph:
    """The greatest of windows."""
    op, x = Pool("max", kernel, (stride, stride), (1, 1), pads), TensorType(DType.BF16, shape)
    types = {"x": x, "y": op.infer([x])[0]}
    return Graph("net", ("x",), (Port("y", "y"),), (Node("layer", op, ("x",), ("y",), ("layer",)),), types, {})


def mean(channels: int, size: int) -> Graph:
    """The mean of images, as a pass leaves it."""
    op = Conv((1, 1), (1, 1), (0, 0, 0, 0), channels, Program.parse(f"div(a0,{float(size**2)!r});cast.bf16(t0)"), wide=True)
    x, w = TensorType(DType.BF16, (1, channels, size, size)), np.ones((channels, 1, size, size), BF16)
    types = {"x": x, "w": TensorType(DType.BF16, w.shape), "y": TensorType(DType.BF16, (1, channels, 1, 1))}
    return Graph("net", ("x",), (Port("y", "y"),), (Node("layer", op, ("x", "w"), ("y",), ("layer",)),), types, {"w": w})


def product(
    rng: np.random.Generator,
    sizes: tuple[int, int, int],
    *,
    residual: bool = False,
    cut: str = "",
    density: float = 1.0,
    whole: bool = True,
) -> Graph:
    """[1, M, K] x [K, N] with a bias, and what else is asked for."""
    m, k, n = sizes
    w = _sparse(rng, numbers(rng, (n, k), whole), density).T.copy()
    bias = numbers(rng, (n,), whole).astype(np.float32)
    return _graph(MatMul(epilogue=epilogue(residual, cut), wide=True), (1, m, k), w, bias, (1, m, n), residual)


def _graph(op: Any, x: tuple[int, ...], w: Array, bias: Array, y: tuple[int, ...], residual: bool) -> Graph:
    types = {"x": TensorType(DType.BF16, x), "w": TensorType(DType.BF16, w.shape), "b": TensorType(DType.F32, bias.shape)}
    types["y"] = TensorType(DType.BF16, y)
    inputs = ("x",)
    if residual:
        inputs, types["r"] = ("x", "r"), types["y"]
    node = Node("layer", op, ("x", "w", "b", *inputs[1:]), ("y",), ("layer",))
    return Graph("net", inputs, (Port("y", "y"),), (node,), types, {"w": w, "b": bias})


def feeds_of(rng: np.random.Generator, graph: Graph, whole: bool = True) -> dict[str, Any]:
    """Inputs of a graph."""
    return {v: numbers(rng, graph.types[v].shape, whole) for v in graph.inputs}


def run(graph: Graph, feeds: dict[str, Any], program: ArrayProgram | None = None, target: str = "aie2:npu1") -> ModelRun:
    """Execute what is emitted for a graph, all of which has to be the array's."""
    with tempfile.TemporaryDirectory() as folder:
        ran = run_emitted(program or compile_for(graph, target), feeds, Path(folder))
    assert len(ran.parts) == 1  # nothing is the host's
    return ran


def equal(graph: Graph, rng: np.random.Generator, program: ArrayProgram | None = None, target: str = "aie2:npu1") -> ModelRun:
    """Execute it on whole numbers: results are the interpreter's to the last bit."""
    feeds = feeds_of(rng, graph)
    ran = run(graph, feeds, program, target)
    assert np.array_equal(ran.outputs["y"], interpret(graph, feeds)["y"])
    return ran
