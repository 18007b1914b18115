"""Bounds on what a model may ask for, so that bad input ends with a message and not with a full machine."""

from __future__ import annotations

from dataclasses import dataclass

from sparsec.compiler.errors import LimitError
from sparsec.compiler.types import TensorType


@dataclass(frozen=True, slots=True)
class Limits:
    """`max_tensor_bytes`: of one value; `max_nodes`: of the graph; `max_file_bytes`: of the model with its external data."""

    max_tensor_bytes: int = 4 << 30
    max_nodes: int = 200_000
    max_file_bytes: int = 64 << 30

    def check(self, t: TensorType, *, tensor: str | None = None) -> None:
        """Raise LimitError when a value of type `t` is larger than allowed (exact integers: no overflow)."""
        size = t.elements * t.dtype.itemsize
        if size > self.max_tensor_bytes:
            named = f"tensor {tensor!r}" if tensor else "a result"
            raise LimitError(
                f"{named} of type {t} takes {size:,} bytes, more than the limit of {self.max_tensor_bytes:,} "
                f"(raise it with --limits tensor-bytes=N)",
                tensor=tensor,
            )
