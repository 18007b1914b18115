"""Inputs to run a model on: random ones that make sense, or those of .npy and .npz files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from sparsec.compiler.dtypes import DType
from sparsec.compiler.errors import UsageError
from sparsec.compiler.report import TensorInfo

Array = np.ndarray[Any, Any]
_NO_ROWS: Mapping[str, int] = {}


def random_feeds(inputs: Sequence[TensorInfo], seed: int = 0, rows: Mapping[str, int] = _NO_ROWS) -> dict[str, Array]:
    """Draw a value for every input: standard normal floats, fair coins for booleans, 0 or 1 for integers.

    `rows` (see `table_rows`) names the inputs that index a table, and its extent: those are drawn from the whole table.
    """
    rng = np.random.default_rng(seed)
    return {t.name: _draw(rng, t, rows.get(t.name, 2)) for t in inputs}


def _draw(rng: np.random.Generator, t: TensorInfo, limit: int) -> Array:
    dtype = DType(t.dtype)
    if dtype.is_float:
        return np.asarray(rng.standard_normal(t.shape)).astype(dtype.numpy)
    if dtype is DType.BOOL:
        return np.asarray(rng.random(t.shape) < 0.5)
    return np.asarray(rng.integers(0, max(limit, 1), t.shape)).astype(dtype.numpy)


def table_rows(model: onnx.ModelProto) -> dict[str, int]:
    """Graph input -> extent of the constant table that it indexes by Gather, directly or through a Cast. {} for no such input."""
    extents = {t.name: tuple(t.dims) for t in model.graph.initializer}
    names = {v.name: v.name for v in model.graph.input if v.name not in extents}
    found: dict[str, int] = {}
    for node in model.graph.node:
        if node.op_type == "Cast" and node.input[0] in names:
            names[node.output[0]] = names[node.input[0]]
        elif node.op_type == "Gather" and node.input[1] in names and extents.get(node.input[0]):
            dims = extents[node.input[0]]
            axis = next((int(a.i) for a in node.attribute if a.name == "axis"), 0)
            if -len(dims) <= axis < len(dims):
                name = names[node.input[1]]
                found[name] = min(found.get(name, dims[axis]), dims[axis])
    return found


def read_feeds(files: Sequence[str], inputs: Sequence[TensorInfo]) -> dict[str, Array]:
    """Inputs from files, each written FILE.npz (arrays by name), NAME=FILE.npy, or FILE.npy for a model with one input.

    UsageError unless every input gets an array of its shape and of its dtype (or of one that converts without loss).
    """
    found: dict[str, Array] = {}
    for entry in files:
        found.update(_read_entry(entry, inputs))
    known = [t.name for t in inputs]
    for name in found:
        if name not in known:
            raise UsageError(f"no input is called {name!r}: the inputs are {known}", tensor=name)
    return {t.name: _fitted(found, t) for t in inputs}


def _read_entry(entry: str, inputs: Sequence[TensorInfo]) -> dict[str, Array]:
    name, equals, path = ("", "", entry) if Path(entry).exists() else entry.rpartition("=")
    try:
        loaded = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as exc:
        raise UsageError(f"cannot read {path!r} as .npy or .npz: {exc}") from None
    if isinstance(loaded, np.ndarray):
        if not equals and len(inputs) != 1:
            raise UsageError(f"the model has {len(inputs)} inputs: write NAME={path}, or put arrays by name into an .npz file")
        return {name if equals else inputs[0].name: loaded}
    with loaded:
        if equals:
            raise UsageError(f"{path!r} holds arrays by name: give it without {name}=")
        return {key: loaded[key] for key in loaded.files}


def _fitted(found: Mapping[str, Array], t: TensorInfo) -> Array:
    if t.name not in found:
        raise UsageError(f"input {t.name!r} ({t.dtype}{list(t.shape)}) is not in the given files", tensor=t.name)
    array, dtype = found[t.name], DType(t.dtype).numpy
    if array.dtype.kind == "V" and array.dtype.itemsize == dtype.itemsize:
        array = array.view(dtype)  # numpy saves bfloat16 as raw bytes
    if array.shape != t.shape:
        raise UsageError(f"input {t.name!r} is {list(array.shape)} in the file, the model takes {list(t.shape)}", tensor=t.name)
    if array.dtype != dtype:
        converted = array.astype(dtype)
        if not np.array_equal(converted.astype(array.dtype), array, equal_nan=array.dtype.kind in "fc"):
            raise UsageError(f"input {t.name!r} is {array.dtype} in the file and loses values as {t.dtype}", tensor=t.name)
        array = converted
    return np.ascontiguousarray(array).reshape(t.shape)
