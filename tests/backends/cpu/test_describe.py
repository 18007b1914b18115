"""What the report says that kernels read: the packed constants of each node, once each."""

import numpy as np
import pytest
from onnx import helper

from sparsec.backends.cpu.describe import describe_layers
from sparsec.backends.cpu.program import ALIGN, Weights
from sparsec.backends.cpu.target import CpuTarget
from sparsec.compiler.driver import build
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.report import Layer
from tests.reference import make_model

RNG = np.random.default_rng(3)


def test_the_array_that_an_address_lies_in() -> None:
    weights = Weights()
    first, second = (weights.add(np.full(n, n, np.float32)) for n in (3, 40))
    assert weights.add(np.full(3, 3, np.float32)) == first
    assert weights.extent(first.offset) == (0, 12)
    assert second.offset == ALIGN and weights.extent(second.at(100).offset) == (ALIGN, 160)


def product(kept: int) -> Layer:
    """x[8, 128] times w[128, 64] + b, of which the first `kept` inputs have weights."""
    w = RNG.standard_normal((128, 64)).astype(np.float32)
    w[kept:] = 0
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="fc")
    weights = {"w": w, "b": np.ones(64, np.float32)}
    made = build(
        import_model(make_model([node], {"x": np.zeros((8, 128), np.float32)}, ["y"], weights)),
        CpuTarget.named("x86_64+avx512f", 1),
    )
    layers = describe_layers(made.graph, made.schedule, made.program)
    assert sum(one.packed_bytes for one in layers) <= made.program.weights.size
    (layer,) = (one for one in layers if one.weight_bytes)
    return layer


@pytest.mark.parametrize(("kept", "rows"), [(128, 128), (32, 32)])
def test_packed_weights_are_counted_with_their_lists_and_biases(kept: int, rows: int) -> None:
    layer = product(kept)
    assert layer.weight_bytes == 4 * (128 * 64 + 64)
    least = 4 * (rows * 64 + 64)
    assert least <= layer.packed_bytes <= 1.1 * least, "weights and biases, and a few bytes a row in lists"
