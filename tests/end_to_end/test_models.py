"""Whole models on every x86 target and thread count against onnxruntime: the measure is max|difference| / max|reference|.

Two of them run with all tests, the others by `make test-models`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import onnx
import pytest

import models
from sparsec.compiler import driver
from sparsec.compiler.onnxruntime_reference import OnnxRuntime
from sparsec.compiler.verify_model import TOLERANCE, verify_model
from tests.machine import needs_cpu

QUICK = ("squeezenet", "basic_pitch")
TARGETS = [
    pytest.param("host", 1),
    pytest.param("host", 2),
    pytest.param("x86_64+avx2+fma", 1, marks=needs_cpu("avx2", "fma")),
    pytest.param("x86_64+avx2+fma", 2, marks=needs_cpu("avx2", "fma")),
    pytest.param("generic", 1),
    pytest.param("generic", 2),
]


def _everything() -> Iterator[Any]:
    for name in sorted({*models.names(), *models.packaged_names()}):
        for target in TARGETS:
            quick = name in QUICK and target.values == ("host", 2)
            marks = target.marks if quick else (*target.marks, pytest.mark.slow, pytest.mark.models)
            yield pytest.param(name, *target.values, marks=marks, id="-".join(map(str, (name, *target.values))))


@cache
def _model(name: str) -> onnx.ModelProto:
    if name in models.names():
        return models.build(name)
    try:
        return models.packaged(name)
    except FileNotFoundError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(("name", "target", "threads"), list(_everything()))
def test_model(name: str, target: str, threads: int, tmp_path: Path) -> None:
    model = _model(name)
    feeds = [models.inputs(model, seed) for seed in range(3)]
    shapes = {k: a.shape for k, a in feeds[0].items()}
    compiled = driver.compile(model, tmp_path / "net", name="net", target=target, threads=threads, input_shapes=shapes)
    found = verify_model(compiled.run, OnnxRuntime(model).run, feeds)
    assert found.worst.error <= TOLERANCE, found.worst
    assert len({check.reference for check in found.checks}) > 1, "the outputs do not depend on the inputs"
