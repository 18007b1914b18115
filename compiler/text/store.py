"""The sidecar of the text form: constant data (orders of tiles too) by content hash, one copy for all dumps of a run."""

from __future__ import annotations

import hashlib
import weakref
from pathlib import Path
from typing import Any

import numpy as np

from sparsec.compiler.errors import ModelError
from sparsec.compiler.types import TensorType

Array = np.ndarray[Any, Any]


class ConstantStore:
    """Maps the SHA-256 of a constant's bytes to those bytes; dtype and shape stand in the text beside the hash.

    With a `folder`, data is written to `folder/<hash>.bin` at once and read from there; without one it is kept in memory.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """`folder` is created when the first constant is put."""
        self.folder = folder
        self._data: dict[str, bytes] = {}
        self._hashes: dict[int, tuple[weakref.ref[Array], str]] = {}  # frozen arrays are hashed once, not once a dump

    def put(self, array: Array) -> str:
        """Keep a constant and return its hash (64 hex digits)."""
        digest = self.digest(array)
        if self.folder is None:
            if digest not in self._data:
                self._data[digest] = array.tobytes()
        else:
            path = self.folder / f"{digest}.bin"
            if not path.exists():
                self.folder.mkdir(parents=True, exist_ok=True)
                partial = path.with_suffix(".part")
                partial.write_bytes(array.tobytes())
                partial.replace(path)
        return digest

    def digest(self, array: Array) -> str:
        """The hash of a constant, which is not kept."""
        known = self._hashes.get(id(array))
        if known is not None and known[0]() is array:
            return known[1]
        digest = content_hash(array)
        if not array.flags.writeable:
            self._hashes[id(array)] = (weakref.ref(array), digest)
        return digest

    def get(self, digest: str, t: TensorType) -> Array:
        """The constant of this hash, read as `t` (row-major). ModelError when the store lacks it or its size is another."""
        data = self.raw(digest)
        if len(data) != t.elements * t.dtype.itemsize:
            raise ModelError(f"constant sha256:{digest} has {len(data)} bytes, type {t} needs {t.elements * t.dtype.itemsize}")
        return np.frombuffer(data, dtype=t.dtype.numpy).reshape(t.shape)

    def raw(self, digest: str) -> bytes:
        """The data of this hash. ModelError when the store lacks it."""
        path = self.folder / f"{digest}.bin" if self.folder is not None else None
        if digest in self._data:
            return self._data[digest]
        if path is not None and path.is_file():
            return path.read_bytes()
        where = f"folder {self.folder}" if self.folder else "store"
        raise ModelError(f"constant sha256:{digest} is not in the {where}: keep the sidecar folder beside the dump")


def content_hash(array: Array) -> str:
    """SHA-256 of an array's bytes in row-major order, as 64 hex digits."""
    contiguous = np.ascontiguousarray(array)
    return hashlib.sha256(contiguous.reshape(-1).view(np.uint8).data).hexdigest()
