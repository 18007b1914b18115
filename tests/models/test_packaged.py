"""Trained models found in other packages, when those are installed."""

from __future__ import annotations

import importlib.metadata
import sys

import numpy as np
import pytest

import models

ort = pytest.importorskip("onnxruntime")

MODULES = {"basic_pitch": "basic_pitch", "ddddocr": "ddddocr", "ddddocr_ocr": "ddddocr", "magika": "magika"}


@pytest.mark.parametrize("name", models.packaged_names())
def test_packaged_model_runs(name: str) -> None:
    try:
        model = models.packaged(name)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    assert MODULES[name] not in sys.modules, "the package must not be imported"
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    first, second = (session.run(None, models.inputs(model, seed)) for seed in (1, 2))
    assert all(np.isfinite(output).all() for output in first)
    if name != "ddddocr_ocr":  # its output is the decoded text: noise has none
        assert any(not np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(FileNotFoundError, match="pip install --no-deps basic-pitch"):
        models.packaged("basic_pitch")


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown packaged model 'yolo' \(known: basic_pitch, "):
        models.packaged("yolo")
