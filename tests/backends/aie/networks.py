"""Small networks of bytes for the array, and what runs them from their emitted files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sparsec.backends.aie.emit import emit
from sparsec.backends.aie.lower.network import lower
from sparsec.backends.aie.machine import machine_named
from sparsec.backends.aie.program import ArrayProgram, HostPart
from sparsec.backends.aie.simulate.model import ArrayModel, Host, ModelRun
from sparsec.compiler.dtypes import DType
from sparsec.compiler.graph import Graph, Node, Port
from sparsec.compiler.interpreter import interpret
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.scalar import Program
from sparsec.compiler.types import TensorType

Array = np.ndarray[Any, Any]


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
    w = rng.integers(-127, 128, (oc, 1 if depthwise else ic, *kernel)).astype(np.int8)
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


def random_feeds(rng: np.random.Generator, graph: Graph) -> dict[str, Array]:
    """Inputs of a graph: any bytes, floats from 0 to 1."""
    found = {}
    for v in graph.inputs:
        t = graph.types[v]
        made = rng.random(t.shape) if t.dtype.is_float else rng.integers(0, 256, t.shape)
        found[v] = made.astype(t.dtype.numpy)
    return found


def run_emitted(program: ArrayProgram, feeds: Mapping[str, Array], folder: Path) -> ModelRun:
    """Write the files, then run nothing but them; host parts are interpreted."""
    for name, data in emit(program).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def host(entry: Mapping[str, Any]) -> Host:
        part = program.parts[int(entry["folder"].removeprefix("part"))]
        assert isinstance(part, HostPart)
        return lambda values: interpret(part.graph, values)

    return ArrayModel(folder).run(feeds, host)


def compile_for(graph: Graph, target: str = "aie2:npu1") -> ArrayProgram:
    """The program of a graph."""
    return lower(graph, machine_named(target))
