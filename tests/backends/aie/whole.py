"""Whole networks of the model builders at small sizes, quantised for arrays, run from their emitted files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

import models
from sparsec.backends.aie.program import ArrayPart, ArrayProgram
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.interpreter import interpret
from sparsec.compiler.passing.runner import run_pipeline
from sparsec.passes.pipelines import ARRAY, DEFAULT
from sparsec.passes.quantisation.model import quantise
from sparsec.passes.quantisation.settings import Settings
from tests.backends.aie.networks import compile_for, run_emitted


def check_network(name: str, size: int, folder: Path, *, target: str, density: float = 1.0) -> ArrayProgram:
    """All outputs are those of the interpreter, which runs what the model says, to the last bit."""
    proto, rng = models.build(name), np.random.default_rng(0)
    weights = {t.name for t in proto.graph.initializer}
    (image,) = (v for v in proto.graph.input if v.name not in weights)
    for dim in image.type.tensor_type.shape.dim[2:]:
        dim.dim_value = size
    del proto.graph.value_info[:]
    for output in proto.graph.output:
        output.type.tensor_type.ClearField("shape")
    if density < 1:
        _prune(proto, density, rng)
    data = {image.name: rng.standard_normal((3, 3, size, size)).astype(np.float32)}
    made = quantise(proto, data, Settings(power_of_two=True, per_channel=False)).proto
    program = compile_for(run_pipeline(import_model(made), ARRAY), target)
    feeds = {image.name: data[image.name][:1]}
    run = run_emitted(program, feeds, folder)
    for output, expected in interpret(run_pipeline(import_model(made), DEFAULT), feeds).items():
        assert np.array_equal(run.outputs[output], expected)
    return program


def _prune(proto: onnx.ModelProto, density: float, rng: np.random.Generator) -> None:
    """A share of the 8 x 8 blocks of all products of many channels stays."""
    for t in proto.graph.initializer:
        if len(t.dims) == 4 and t.dims[1] >= 16:
            w = numpy_helper.to_array(t)
            keep = rng.random((-(-w.shape[0] // 8), -(-w.shape[1] // 8))) < density
            mask = np.kron(keep, np.ones((8, 8), w.dtype))[: w.shape[0], : w.shape[1], None, None]
            t.CopyFrom(numpy_helper.from_array(np.asarray(w * mask, w.dtype), t.name))


def on_array(program: ArrayProgram) -> int:
    """Layers on the array."""
    return sum(len(p.plans) for p in program.parts if isinstance(p, ArrayPart))


def blocks(program: ArrayProgram) -> tuple[int, int]:
    """Blocks of weights that are not zero, and all of them."""
    layers = [p.layer for part in program.parts if isinstance(part, ArrayPart) for p in part.plans]
    return sum(sum(layer.block_counts) for layer in layers), sum(layer.all_blocks for layer in layers)
