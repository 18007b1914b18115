"""Build main.c with a compiled library and run it as any C program would be, checked against onnxruntime."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import models
from sparsec.compiler.driver import compile as compile_model
from sparsec.compiler.dtypes import DType
from sparsec.compiler.onnxruntime_reference import OnnxRuntime
from sparsec.compiler.runtime import CompiledModel
from sparsec.compiler.verify_model import relative_error

MAIN = Path(__file__).parent / "main.c"
Array = np.ndarray[Any, Any]
WARNINGS = ("-Wall", "-Wextra", "-Werror")


@cache
def tiny(name: str) -> onnx.ModelProto:
    """A model of models/, built once."""
    return models.build(name)


def small_graph(names: Mapping[str, str] | None = None) -> onnx.ModelProto:
    """Two convolutions, an activation, a residual sum, a pooling and a product; `names` renames values, nodes and the graph."""
    n = {k: k for k in ("graph", "x", "w1", "w2", "b1", "a", "r", "c", "s", "p", "f", "w3", "y", "z", "conv", "relu")}
    n |= dict(names or {})
    rng = np.random.default_rng(7)
    weights = {"w1": (6, 3, 3, 3), "b1": (6,), "w2": (6, 6, 1, 1), "w3": (6, 5)}
    tensors = [numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), n[k]) for k, s in weights.items()]
    nodes = [
        helper.make_node("Conv", [n["x"], n["w1"], n["b1"]], [n["a"]], name=n["conv"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", [n["a"]], [n["r"]], name=n["relu"]),
        helper.make_node("Conv", [n["r"], n["w2"]], [n["c"]]),
        helper.make_node("Add", [n["c"], n["r"]], [n["s"]]),
        helper.make_node("GlobalAveragePool", [n["s"]], [n["p"]]),
        helper.make_node("Flatten", [n["p"]], [n["f"]]),
        helper.make_node("Gemm", [n["f"], n["w3"]], [n["y"]]),
        helper.make_node("Sigmoid", [n["s"]], [n["z"]]),
    ]
    x = helper.make_tensor_value_info(n["x"], TensorProto.FLOAT, [2, 3, 7, 9])
    y = helper.make_tensor_value_info(n["y"], TensorProto.FLOAT, [2, 5])
    z = helper.make_tensor_value_info(n["z"], TensorProto.FLOAT, [2, 6, 7, 9])
    graph = helper.make_graph(nodes, n["graph"], [x], [y, z], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def build(model: onnx.ModelProto, folder: Path, **options: Any) -> CompiledModel:
    """Compile into `folder`; by default for generic machines, whose C compiles fastest."""
    return compile_model(model, folder, **{"target": "generic", "name": "net", **options})


def emit(model: onnx.ModelProto, folder: Path, *, target: str = "generic", threads: int = 1) -> tuple[str, ...]:
    """Write the files of a library called net, without building it; the flags that its C wants."""
    from sparsec.backends.cpu.target import CpuTarget
    from sparsec.compiler import driver
    from sparsec.compiler.importer.api import import_model

    graph = replace(import_model(model), name="net")
    emitted = driver.build(graph, CpuTarget.named(target, threads)).emitted
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in emitted.files.items():
        (folder / name).write_bytes(data)
    return emitted.compile_flags


def run(command: Sequence[str | Path], cwd: Path, **environment: str) -> str:
    """Run to the end; its stdout. Fails with all that it printed."""
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, env={**os.environ, **environment})
    assert done.returncode == 0, f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout


def definitions(compiled: CompiledModel) -> list[str]:
    """The -D flags that main.c wants."""
    name = compiled.report.options.name
    return [f"-DLIBRARY={name}", f"-DMACRO={name.upper()}", f'-DHEADER="{name}.h"']


def sources(compiled: CompiledModel) -> list[str]:
    """The library's own C and assembler files."""
    return [f for f in compiled.report.sources.files if f.endswith((".c", ".S"))]


def link(compiled: CompiledModel, cc: str, *flags: str, output: str = "program") -> Path:
    """main.c and the library's sources, in one call of `cc` with the target's flags."""
    folder = compiled.directory
    isa = [f for f in compiled.report.options.cflags if not f.startswith("-O")]
    command = [
        cc,
        *isa,
        "-O1",
        *flags,
        *definitions(compiled),
        "-I.",
        "-Wa,-I.",
        "-o",
        output,
        str(MAIN),
        *sources(compiled),
        "-lm",
    ]
    run(command, folder)
    return folder / output


def check(compiled: CompiledModel, model: onnx.ModelProto, command: Sequence[str | Path], cwd: Path, **environment: str) -> None:
    """Run a program made of main.c in `cwd` on random inputs; its outputs are onnxruntime's."""
    feeds = models.inputs(model, seed=1)
    expected = OnnxRuntime(model).run(feeds)
    for name, found in outputs_of(compiled, feeds, command, cwd, **environment).items():
        assert relative_error(found, expected[name]) <= 1e-4, name


def outputs_of(
    compiled: CompiledModel, feeds: Mapping[str, Array], command: Sequence[str | Path], cwd: Path, **environment: str
) -> dict[str, Array]:
    """Run a program made of main.c in `cwd`; its outputs by name."""
    for i, t in enumerate(compiled.inputs):
        (cwd / f"in_{i}.bin").write_bytes(np.ascontiguousarray(feeds[t.name]).tobytes())
    run(command, cwd, **environment)
    return {
        t.name: np.fromfile(cwd / f"out_{i}.bin", DType(t.dtype).numpy).reshape(t.shape) for i, t in enumerate(compiled.outputs)
    }
