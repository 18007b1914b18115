"""Fashion-MNIST as the Debian package dataset-fashion-mnist ships it (Xiao, Rasul, Vollgraf, arXiv 1708.07747)."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
FOLDER = Path("/usr/share/datasets/fashion-mnist")
CLASSES = 10


def load(part: str, folder: Path = FOLDER) -> tuple[Array, Array]:
    """Images [N, 1, 28, 28] float32 in [0, 1] and labels [N] int64 of `part`, "train" (60,000) or "t10k" (10,000)."""
    if not folder.is_dir():
        raise SystemExit(f"no folder {str(folder)!r}: install the Debian package dataset-fashion-mnist")
    images = _read(folder / f"{part}-images-idx3-ubyte.gz", header=16).reshape(-1, 1, 28, 28)
    labels = _read(folder / f"{part}-labels-idx1-ubyte.gz", header=8)
    return images.astype(np.float32) / np.float32(255), labels.astype(np.int64)


def _read(path: Path, header: int) -> Array:
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header)
