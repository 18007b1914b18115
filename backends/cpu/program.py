"""The CPU program: what lowering makes and emission prints. Kernel calls over buffers, weights packed, nothing left to decide."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from sparsec.backends.cpu.isa import Isa
from sparsec.backends.cpu.kernel import Geometry, Kernel
from sparsec.compiler.types import TensorType

ALIGN = 64  # a cache line; also the widest vector


class Space(Enum):
    """Where a buffer lives."""

    ARENA = "arena"
    WEIGHTS = "weights"
    INPUT = "input"
    OUTPUT = "output"
    NULL = "null"


@dataclass(frozen=True, slots=True)
class Ref:
    """An address: a buffer of a space and a byte offset into it. Arena buffers get their place from the memory plan."""

    space: Space
    buffer: str
    offset: int = 0

    def at(self, more: int) -> Ref:
        """The address `more` bytes on."""
        return Ref(self.space, self.buffer, self.offset + more)


NULL = Ref(Space.NULL, "")


@dataclass(frozen=True, slots=True)
class Call:
    """One kernel call. `node` is the graph node it belongs to; its work is dealt out to threads in `parts` pieces."""

    kernel: Kernel
    geometry: Geometry
    operands: tuple[Ref, ...]
    node: str
    scratch_bytes: int = 0
    parts: int = 1


@dataclass
class Weights:
    """The weights blob: packed arrays, each at a 64-byte boundary, equal bytes stored once."""

    chunks: list[bytes] = field(default_factory=list)
    size: int = 0
    _known: dict[bytes, int] = field(default_factory=dict)
    _starts: list[int] = field(default_factory=list)  # of the arrays, ascending, and the bytes of each
    _lengths: list[int] = field(default_factory=list)

    def add(self, array: np.ndarray) -> Ref:
        """Append an array (C order, its own dtype) and return its address."""
        data = np.ascontiguousarray(array).tobytes()
        key = hashlib.sha256(data).digest()
        if key not in self._known:
            self._known[key] = self.size
            self._starts.append(self.size)
            self._lengths.append(len(data))
            self.chunks.append(data)
            self.chunks.append(bytes(-len(data) % ALIGN))
            self.size += len(data) + (-len(data) % ALIGN)
        return Ref(Space.WEIGHTS, "", self._known[key])

    def extent(self, offset: int) -> tuple[int, int]:
        """Where the array that `offset` lies in begins, and its bytes without the padding behind it."""
        index = bisect_right(self._starts, offset) - 1
        return self._starts[index], self._lengths[index]


@dataclass(frozen=True, slots=True)
class ArenaBuffer:
    """An arena buffer and the calls (by index) between which it is alive, both included."""

    name: str
    nbytes: int
    first: int
    last: int


@dataclass(frozen=True)
class Interface:
    """A model input or output as the C caller sees it: row-major `type` under the model's own `name`."""

    name: str
    type: TensorType


@dataclass(frozen=True)
class Program:
    """A lowered network."""

    name: str
    isa: Isa
    threads: int
    inputs: tuple[Interface, ...]
    outputs: tuple[Interface, ...]
    calls: tuple[Call, ...]
    buffers: tuple[ArenaBuffer, ...]
    weights: Weights

    def kernels(self) -> Iterator[Kernel]:
        """The distinct kernels, in order of first use."""
        yield from dict.fromkeys(c.kernel for c in self.calls)

    @property
    def scratch_bytes(self) -> int:
        """Scratch that one thread needs: the largest of any call's, rounded to a cache line."""
        return -(-max((c.scratch_bytes for c in self.calls), default=0) // ALIGN) * ALIGN
