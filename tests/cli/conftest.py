"""A small model, compiled once for all tests of the commands."""

from pathlib import Path

import onnx
import pytest

import models
from sparsec.compiler.cli import main


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.onnx"
    onnx.save(models.build("tiny_cnn"), path)
    return path


@pytest.fixture(scope="session")
def compiled(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compiled") / "tiny"
    assert main(["compile", str(model), "-o", str(folder), "-q"]) == 0
    return folder
