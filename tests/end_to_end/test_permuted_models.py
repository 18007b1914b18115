"""Whole models with every free class of channels in a random order: onnxruntime computes the same, to 1e-5 of the largest value.

Two of them run with all tests, the others by `make test-models`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

import models
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.onnxruntime_reference import OnnxRuntime
from sparsec.passes.permutation.apply import permuted, random_orders
from sparsec.passes.permutation.coupling_model import couple_model
from sparsec.passes.pruning.model import editor_of

QUICK = ("squeezenet", "mobilenet_v2")
# Where float32 itself rounds by more: VGG-19's random weights have a softmax that magnifies every rounding (docs/kernels.md), and
# Inception v3 is deep (in double precision the orders differ by 3e-14).
AMPLIFIES = {"vgg19": 3e-4, "inception_v3": 5e-5}


def _names() -> list[Any]:
    return [pytest.param(n, marks=() if n in QUICK else (pytest.mark.slow, pytest.mark.models)) for n in sorted(models.names())]


@pytest.mark.parametrize("name", _names())
def test_random_orders_compute_the_same(name: str) -> None:
    model = models.build(name)
    feeds = models.inputs(model, seed=0)
    editor = editor_of(model)
    graph = import_model(model, as_stored=True)
    coupling = couple_model(graph, editor)
    assert coupling.free
    orders = random_orders(coupling, np.random.default_rng(0))
    for value, array in permuted(graph, coupling, orders).items():
        editor.replace(value, array)
    assert [n.SerializeToString() for n in editor.proto.graph.node] == [n.SerializeToString() for n in model.graph.node]
    want, got = (_run(m, feeds) for m in (model, editor.proto))
    for output, expected in want.items():
        error = np.abs(got[output] - expected).max() / np.abs(expected).max()
        assert error <= AMPLIFIES.get(name, 1e-5), f"{output}: {error:.1e}"


def _run(model: onnx.ModelProto, feeds: dict[str, Any]) -> dict[str, Any]:
    return OnnxRuntime(model, threads=2).run(feeds)
