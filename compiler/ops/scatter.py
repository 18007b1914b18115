"""What ScatterElements and ScatterND share: the reductions, and how an element is updated."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparsec.compiler.errors import ModelError
from sparsec.compiler.ops.base import Array

REDUCTIONS = {"none": None, "add": np.add, "mul": np.multiply, "min": np.minimum, "max": np.maximum}


def check_reduction(reduction: str) -> None:
    """Raise ModelError unless `reduction` is one of ONNX's."""
    if reduction not in REDUCTIONS:
        raise ModelError(f"reduction {reduction!r} is not one of {', '.join(REDUCTIONS)}")


def update(target: Array, position: tuple[Any, ...], updates: Array, reduction: str) -> None:
    """target[position] = updates, or combined with what is there; several updates of one element all count."""
    ufunc = REDUCTIONS[reduction]
    if ufunc is None:
        target[position] = updates
    else:
        ufunc.at(target, position, updates)
