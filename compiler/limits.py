"""Bounds on what a model may ask for, so that bad input ends with a message and not with a full machine."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sparsec.compiler.errors import LimitError, UsageError
from sparsec.compiler.types import TensorType

# name in `--limits NAME=N,...` -> field
_NAMES = {
    "tensor-bytes": "max_tensor_bytes",
    "constant-bytes": "max_constant_bytes",
    "nodes": "max_nodes",
    "file-bytes": "max_file_bytes",
    "rank": "max_rank",
}
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper bounds, each inclusive.

    `max_tensor_bytes`: of one value; `max_constant_bytes`: of a constant that import computes (Range, NonZero, masks);
    `max_nodes`: of the graph, subgraphs and inlined functions included; `max_file_bytes`: of the model with its external data;
    `max_rank`: dimensions of one value.
    """

    max_tensor_bytes: int = 4 << 30
    max_constant_bytes: int = 256 << 20
    max_nodes: int = 200_000
    max_file_bytes: int = 64 << 30
    max_rank: int = 16

    @staticmethod
    def parse(text: str) -> Limits:
        """From `tensor-bytes=8G,nodes=1000`; numbers may end in k, M, G or T (powers of 1024). UsageError otherwise."""
        given: dict[str, int] = {}
        for part in filter(None, (p.strip() for p in text.split(","))):
            name, _, number = (p.strip() for p in part.partition("="))
            found = re.fullmatch(r"([0-9]{1,18})([kKmMgGtT]?)", number)
            if name not in _NAMES or found is None:
                raise UsageError(f"--limits takes NAME=NUMBER,... with the names {', '.join(_NAMES)}, not {part!r}")
            if _NAMES[name] in given:
                raise UsageError(f"--limits gives {name} twice")
            given[_NAMES[name]] = int(found[1]) * _UNITS[found[2].lower()]
        return Limits(**given)

    def check(self, t: TensorType, *, tensor: str | None = None) -> None:
        """Raise LimitError when a value of type `t` is larger than allowed (exact integers: no overflow)."""
        named = f"tensor {tensor!r}" if tensor else "a result"
        if t.rank > self.max_rank:
            raise LimitError(
                f"{named} has rank {t.rank}, more than the limit of {self.max_rank} (--limits rank=N)", tensor=tensor
            )
        self._check_bytes(t, named, self.max_tensor_bytes, "tensor-bytes", tensor)

    def check_constant(self, t: TensorType, *, tensor: str | None = None) -> None:
        """`check`, and raise LimitError when `t` is too large for a constant that import computes."""
        self.check(t, tensor=tensor)
        self._check_bytes(t, "a constant computed by import,", self.max_constant_bytes, "constant-bytes", tensor)

    def _check_bytes(self, t: TensorType, named: str, bound: int, option: str, tensor: str | None) -> None:
        size = t.elements * t.dtype.itemsize
        if size > bound:
            raise LimitError(
                f"{named} of type {t} takes {size:,} bytes, more than the limit of {bound:,} (raise it with --limits {option}=N)",
                tensor=tensor,
            )
