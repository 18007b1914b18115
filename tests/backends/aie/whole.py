"""Networks of the model builders at small sizes, quantised for arrays, run from their emitted files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from benchmarks.aie_networks import quantised
from sparsec.backends.aie.program import ArrayPart, ArrayProgram
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.interpreter import interpret
from sparsec.compiler.passing.runner import run_pipeline
from sparsec.passes.pipelines import ARRAY, DEFAULT
from tests.backends.aie.networks import compile_for, run_emitted


def check_network(proto: onnx.ModelProto, size: int, folder: Path, *, target: str, density: float = 1.0) -> ArrayProgram:
    """All outputs for an image of `size` are those of the interpreter, which runs what the model says, to the last bit."""
    made, feeds = quantised(proto, size, density)
    program = compile_for(run_pipeline(import_model(made), ARRAY), target)
    run = run_emitted(program, feeds, folder)
    for output, expected in interpret(run_pipeline(import_model(made), DEFAULT), feeds).items():
        assert np.array_equal(run.outputs[output], expected)
    return program


def on_array(program: ArrayProgram) -> int:
    """Layers on the array."""
    return sum(len(p.plans) for p in program.parts if isinstance(p, ArrayPart))


def blocks(program: ArrayProgram) -> tuple[int, int]:
    """Blocks of weights that are not zero, and all of them, of products that have 16 channels and more in the model."""
    plans = [p.layer for part in program.parts if isinstance(part, ArrayPart) for p in part.plans]
    wide = [layer for layer in plans if not layer.depthwise and layer.input_blocks > 1 and not layer.wide]
    layers = [layer for layer in wide if not layer.terms]
    return sum(sum(layer.block_counts) for layer in layers), sum(layer.all_blocks for layer in layers)
