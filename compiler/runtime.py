"""Run a compiled library from Python: ctypes over the C interface, nothing else."""

from __future__ import annotations

import ctypes
import os
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sparsec.compiler.dtypes import DType
from sparsec.compiler.errors import InternalError, ToolchainError, UsageError
from sparsec.compiler.report import Report, TensorInfo, read_report

Array = np.ndarray[Any, Any]
_STATUS = {1: "an input, output, weights or arena pointer is NULL", 2: "the arena or the weights are not 64-byte aligned"}


def aligned_bytes(nbytes: int, alignment: int = 64) -> Array:
    """An uninitialised uint8 array that starts at a multiple of `alignment`."""
    raw = np.empty(nbytes + alignment, dtype=np.uint8)
    start = -raw.ctypes.data % alignment
    return raw[start : start + nbytes]


def _load(path: Path) -> ctypes.CDLL:
    """Load a library that may have replaced another one under the same name, which the loader would return again.

    A hard link under a fresh name makes it look; where the folder cannot be written, the plain name has to do.
    """
    alias = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}")
    try:
        os.link(path, alias)
    except OSError:
        alias = path
    try:
        return ctypes.CDLL(str(alias))
    except OSError as exc:
        raise ToolchainError(f"cannot load {path.name} of {path.parent}: {exc}") from exc
    finally:
        if alias != path:
            alias.unlink(missing_ok=True)


class CompiledModel:
    """A compiled network: `run` it, `bench` it, read its `report`. Not re-entrant (it owns one arena); make one a thread."""

    def __init__(self, directory: str | Path, *, library: str | None = None) -> None:
        """Open `directory`, as `sparsec compile` left it. `library` names another build: the one with profile hooks.

        The library itself is loaded when it is first needed, so that one for another machine can be looked at.
        """
        self.directory = Path(directory)
        self.report: Report = read_report(self.directory)
        self._profiled = library is not None
        self._path = (self.directory / (library or f"lib{self.report.options.name}.so")).resolve()
        self._function: Any = None
        self._outputs = [np.empty(t.shape, DType(t.dtype).numpy) for t in self.outputs]

    def load(self) -> None:
        """Load the library and allocate the arena, once. ToolchainError when this machine cannot load it."""
        if self._function is not None:
            return
        name = self.report.options.name
        library = _load(self._path)
        self._arena = aligned_bytes(self.report.memory.arena_bytes)
        self._weights = self._read_weights(name)
        function = getattr(library, f"{name}_{'profile' if self._profiled else 'run'}")
        function.restype = ctypes.c_int
        self._function = function

    def _read_weights(self, name: str) -> Array | None:
        if self.report.options.weights != "file":
            return None
        path = self._path.parent / f"{name}_weights.bin"
        weights = aligned_bytes(self.report.memory.weights_bytes or 64)
        data = np.fromfile(path, np.uint8)
        if data.size != self.report.memory.weights_bytes:
            expected = self.report.memory.weights_bytes
            raise UsageError(f"{path.name} has {data.size} bytes, expected {expected}: compile the model again")
        weights[: data.size] = data
        return weights

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """Name, dtype and shape of every input, in order."""
        return self.report.inputs

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """Name, dtype and shape of every output, in order."""
        return self.report.outputs

    def _pointers(self, arrays: list[Array]) -> Any:
        return (ctypes.c_void_p * max(len(arrays), 1))(*(a.ctypes.data for a in arrays))

    def _feed(self, feeds: Mapping[str, Array]) -> list[Array]:
        unknown = set(feeds) - {t.name for t in self.inputs}
        if unknown:
            raise UsageError(f"no input is called {sorted(unknown)[0]!r}: the inputs are {[t.name for t in self.inputs]}")
        arrays = []
        for t in self.inputs:
            if t.name not in feeds:
                raise UsageError(f"input {t.name!r} is missing: give a {t.dtype} array of shape {list(t.shape)}", tensor=t.name)
            array = np.ascontiguousarray(feeds[t.name])
            if array.shape != t.shape or array.dtype != DType(t.dtype).numpy:
                array_is = f"{array.dtype}{list(array.shape)}"
                raise UsageError(f"input {t.name!r} is {array_is}, expected {t.dtype}{list(t.shape)}", tensor=t.name)
            arrays.append(array)
        return arrays

    def _invoke(self, inputs: Any, outputs: Any, seconds: Array | None = None) -> None:
        weights = ctypes.c_void_p(self._weights.ctypes.data if self._weights is not None else None)
        arena = ctypes.c_void_p(self._arena.ctypes.data)
        extra = [] if seconds is None else [ctypes.c_void_p(seconds.ctypes.data)]
        status = self._function(inputs, outputs, weights, arena, *extra)
        if status:
            raise InternalError(f"{self.report.options.name}_run returned {status}: {_STATUS.get(status, 'unknown status')}")

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run once. `feeds`: input name -> array of exactly the input's dtype and shape. Returns output name -> new array."""
        arrays = self._feed(feeds)
        self.load()
        seconds = np.zeros(max(self.steps, 1)) if self._profiled else None
        self._invoke(self._pointers(arrays), self._pointers(self._outputs), seconds)
        return {t.name: a.copy() for t, a in zip(self.outputs, self._outputs, strict=True)}

    @property
    def steps(self) -> int:
        """Kernel calls in a run."""
        return sum(layer.calls for layer in self.report.layers)

    def bench(self, feeds: Mapping[str, Array] | None = None, *, runs: int = 20, warmup: int = 3) -> dict[str, float]:
        """Time `runs` runs: median and minimum CPU seconds of the process, and wall seconds, per run."""
        runner = self.runner(feeds)
        for _ in range(warmup):
            runner()
        cpu, wall = [], []
        for _ in range(runs):
            c, w = time.process_time(), time.perf_counter()
            runner()
            cpu.append(time.process_time() - c)
            wall.append(time.perf_counter() - w)
        medians = {"cpu_median": float(np.median(cpu)), "wall_median": float(np.median(wall))}
        return {**medians, "cpu_min": min(cpu), "wall_min": min(wall)}

    def runner(self, feeds: Mapping[str, Array] | None = None) -> Any:
        """A function without arguments that runs once on fixed inputs (random ones by default), for timing loops."""
        if feeds is None:
            rng = np.random.default_rng(0)
            feeds = {t.name: random_array(rng, t) for t in self.inputs}
        arrays = self._feed(feeds)
        self.load()
        inputs, outputs = self._pointers(arrays), self._pointers(self._outputs)
        seconds = np.zeros(max(self.steps, 1)) if self._profiled else None

        def run() -> Array | None:
            self._invoke(inputs, outputs, seconds)
            return seconds

        run.keep = arrays  # type: ignore[attr-defined]  # the pointers must stay valid as long as the closure
        return run


def random_array(rng: np.random.Generator, t: TensorInfo) -> Array:
    """Plausible data for an input: standard normal floats, small non-negative integers, ones for booleans."""
    dtype = DType(t.dtype)
    if dtype.is_float:
        return rng.standard_normal(t.shape).astype(dtype.numpy)
    if dtype is DType.BOOL:
        return np.ones(t.shape, np.bool_)
    return rng.integers(0, 2, t.shape).astype(dtype.numpy)
