"""Small networks whose scales are powers of two, as graphs that the array backend lowers."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparsec.compiler.graph import Graph
from sparsec.compiler.importer.api import import_model
from sparsec.compiler.passing.pipeline import parse_pipeline
from sparsec.compiler.passing.runner import run_pipeline
from sparsec.passes.pipelines import PIPELINES
from sparsec.passes.registry import load_all
from tests.quantised import QdqBuilder


class _PowerBuilder(QdqBuilder):
    """All weights share one scale."""

    def weights(self, name: str, shape: tuple[int, ...], axis: int, x: str) -> tuple[str, str]:
        w = self.rng.integers(-16, 17, shape).astype(np.int8)
        scale = np.full(shape[axis], 2.0**-6, np.float32)
        dq = self.node(
            "DequantizeLinear",
            [self.constant(f"{name}.w", w), self.constant(f"{name}.ws", scale)],
            f"{name}.wdq",
            axis=axis,
        )
        bias = self.rng.integers(-500, 500, shape[axis]).astype(np.int32)
        both = (np.float32(self.scales[x]) * scale).astype(np.float32)
        b = [self.constant(f"{name}.b", bias), self.constant(f"{name}.bs", both)]
        return dq, self.node("DequantizeLinear", b, f"{name}.bdq", axis=0)


def passed(model: Any) -> Graph:
    """The model after the default passes."""
    steps = parse_pipeline("default", load_all(), PIPELINES)
    return run_pipeline(import_model(model), steps)


def two_convolutions(side: int = 6, channels: int = 8) -> Graph:
    """A 3 x 3 and a 1 x 1 convolution of uint8 [1, channels, side, side], one after the other."""
    b = _PowerBuilder(7)
    x = b.quantised("x", 2.0**-5, 0)
    first = b.quantised(b.node("Relu", [b.conv(x, "first", (channels, channels, 3, 3))], "r0"), 2.0**-4, 0)
    last = b.quantised(b.node("Relu", [b.conv(first, "last", (channels, channels, 1, 1))], "r1"), 2.0**-4, 0)
    return passed(b.model({"x": (1, channels, side, side)}, [last]))
